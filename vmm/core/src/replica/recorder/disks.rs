//! Disks of a machine that is recorded.

use super::{Journal, Outside, Recorder};
use crate::machine::disk::Request;
use crate::machine::door::DoorError;
use crate::replica::epochs::change_bytes;
use lockstep_logging_channel::{
    Body, Completion, DeviceId, Digest, DiskChange, DiskWrite, Event, EventKind, ExecutionPoint,
    OutputTarget, ReadData,
};

impl<O: Outside, J: Journal> Recorder<O, J> {
    /// The event as it stands in the log: who replays has a disk of its own to read from, unless
    /// there is one for both.
    pub(super) fn logged(&self, event: &Event) -> Event {
        let mut logged = event.clone();
        if let EventKind::Completion(Completion { number, read }) = &mut logged.kind
            && let ReadData::Bytes(bytes) = read
            && !self.outside.shares_disk(event.device)
            && !self.was_asked_before_the_capture(event.device, *number)
        {
            *read = ReadData::Digest(Digest::of(bytes));
        }
        logged
    }

    /// True for a request that may have been done, and another one behind it, when the image was
    /// copied for who joined: its copy would read what was written later.
    fn was_asked_before_the_capture(&self, device: DeviceId, number: u64) -> bool {
        let Some(first) = &self.since_capture else {
            return false;
        };
        first.get(&device).is_none_or(|first| number < *first)
    }

    /// Gives a request to its disk, and says so in the log where it leaves for a shared one.
    pub(super) fn ask_disk(
        &mut self,
        point: ExecutionPoint,
        device: DeviceId,
        request: Request,
    ) -> Result<(), DoorError> {
        if let Some(first) = &mut self.since_capture {
            first.entry(device).or_insert(request.number);
        }
        if !(self.outside.shares_disk(device) && request.operation.leaves()) {
            return self.outside.disk_request(device, request);
        }
        let write = disk_write(device, &request);
        // The disk knows it before the gate may let it go.
        self.outside.disk_request(device, request)?;
        let number = disk_number_bytes(write.number);
        if let Some(epoch) = self.followed_epoch() {
            epoch.held.put(OutputTarget::disk(device), number);
            return self.append(point, Body::DiskWrite(write));
        }
        self.let_go(point)?;
        let entry = self.entry(point, Body::DiskWrite(write));
        self.journal.output(&entry, OutputTarget::disk(device), number)
    }
}

impl<O: Outside, J: Journal> Recorder<O, J> {
    /// Logs what a disk of the machine's own has done, where who follows does not run and has an
    /// image of its own.
    pub(super) fn log_change(
        &mut self,
        point: ExecutionPoint,
        device: DeviceId,
        request: Request,
    ) -> Result<(), DoorError> {
        let Request { number, operation } = request;
        let is_shared = self.outside.shares_disk(device);
        let Some(change) = operation.into_change().filter(|_| !is_shared) else {
            return Ok(());
        };
        let Some(epoch) = self.followed_epoch() else {
            return Ok(());
        };
        epoch.change_bytes += change_bytes(&change);
        let change = DiskChange {
            device,
            number,
            change,
        };
        self.append(point, Body::DiskChange(change))
    }
}

/// The log's record of a request that leaves for a shared disk.
#[must_use]
pub fn disk_write(device: DeviceId, request: &Request) -> DiskWrite {
    DiskWrite {
        device,
        number: request.number,
        digest: request.digest(),
    }
}

/// What of a request for a shared disk goes through the gate: its number. The disk has the rest.
#[must_use]
pub fn disk_number_bytes(number: u64) -> Vec<u8> {
    number.to_le_bytes().to_vec()
}

/// The number of a request that has come out of the gate.
#[must_use]
pub fn disk_number(bytes: &[u8]) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.try_into().ok()?))
}
