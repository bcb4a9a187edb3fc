//! Disks of a machine that replays: its own carries out what the guest asks, and has to read what the
//! log says; one that is shared is not touched.

use super::{Feed, OwnRead, ReplayStop, Replayer};
use crate::machine::disk::Request;
use crate::machine::door::DoorError;
use crate::replica::mutant::{self, Mutant};
use crate::replica::recorder::{disk_number_bytes, disk_write};
use lockstep_logging_channel::view::described;
use lockstep_logging_channel::{
    Body, Completion, DeviceId, Digest, Entry, ExecutionPoint, OutputTarget, ReadData,
};

/// Name of what differs where a disk has read something else.
pub const DISK_PART: &str = "disk";

impl<F: Feed> Replayer<F> {
    /// Takes what the guest asks of a disk; compares it where it leaves for a shared one.
    ///
    /// # Errors
    /// [`ReplayStop`].
    pub fn disk_request(
        &mut self,
        point: ExecutionPoint,
        device: DeviceId,
        request: &Request,
    ) -> Result<(), ReplayStop> {
        if !(self.feed.shares_disk(device) && request.operation.leaves()) {
            return Ok(self.feed.disk_request(device, request.clone())?);
        }
        let found = Body::DiskWrite(disk_write(device, request));
        let doing = || format!("the guest asks for {}", described(&found));
        let entry = self.expect(point, &doing)?;
        self.check_point(&entry, point, &doing)?;
        if entry.body != found {
            let (expected, found) = (described(&entry.body), described(&found));
            return Err(self.diverged(&entry, point, "output", expected, found));
        }
        let sequence = entry.sequence;
        self.met(entry)?;
        self.feed.disk_request(device, request.clone())?;
        let number = disk_number_bytes(request.number);
        Ok(self.feed.output(sequence, OutputTarget::disk(device), number)?)
    }

    /// Waits for one's own disk to have done what `completion`, of this entry, says; puts the bytes
    /// that it has read in the place of their digest.
    pub(super) fn complete(
        &mut self,
        entry: &Entry,
        point: ExecutionPoint,
        completion: &mut Completion,
    ) -> Result<(), ReplayStop> {
        let Some(device) = entry.body.device() else {
            return Ok(());
        };
        let own = self.feed.disk_completed(device, completion);
        self.stopped |= matches!(own, Err(DoorError::Stopped));
        let own = own?;
        let ReadData::Digest(expected) = completion.read else {
            return Ok(());
        };
        let Some(OwnRead { offset_bytes, bytes }) = own else {
            let found = format!("request {} of {device} reads nothing", completion.number);
            return Err(self.diverged(entry, point, DISK_PART, format!("digest {expected}"), found));
        };
        let found = Digest::of(&bytes);
        if found != expected && !mutant::is(Mutant::BelieveOwnDisk) {
            let end = offset_bytes.saturating_add(bytes.len() as u64);
            let text = |digest| format!("digest {digest} of bytes {offset_bytes} to {end} of its disk");
            return Err(self.diverged(entry, point, DISK_PART, text(expected), text(found)));
        }
        completion.read = ReadData::Bytes(bytes);
        Ok(())
    }
}
