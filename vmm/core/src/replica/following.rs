//! The log as a machine takes it that follows without running: the common points, the outputs that
//! each of them lets go, what its disks have to have there, and guest times. Nothing counts before
//! the common point behind it, or the end.

use super::common::Staged;
use super::epochs::{CHANGES_BYTES_MAX, HELD_BYTES_MAX, Held, change_bytes};
use super::mutant::{self, Mutant};
use super::recorder::disk_number_bytes;
use super::replayer::{Fed, Feed, ReplayStop};
use super::time_floor::TimeFloor;
use crate::machine::disk::{DiskShape, Operation};
use crate::machine::door::{DoorError, Followed};
use crate::machine::saved::SavedError;
use lockstep_logging_channel::{Body, DeviceId, DiskChange, Entry, LogError, OutputTarget, Sequence};
use std::collections::BTreeMap;

/// Name of what waits, in messages.
const HELD: &str = "output before a common point";
/// Name of what a disk has done, in messages.
const CHANGES: &str = "changes of disks before a common point";

/// What disks have done since the last common point, in order.
#[derive(Debug, Default)]
struct Changes {
    operations: Vec<(DeviceId, Operation)>,
    bytes: u64,
}

/// The following side of the door.
pub struct Following<F> {
    feed: F,
    staged: Staged,
    held: Held,
    /// The disks of its own, by their devices.
    disks: BTreeMap<DeviceId, DiskShape>,
    changes: Changes,
    floor: TimeFloor,
    last: Sequence,
}

impl<F: Feed> Following<F> {
    /// One that has everything up to entry `last`, for a machine with `memory_bytes` bytes of
    /// memory; guest times go on from `floor`.
    pub fn new(feed: F, memory_bytes: u64, last: Sequence, floor: TimeFloor) -> Self {
        Self {
            feed,
            staged: Staged::of_memory(memory_bytes),
            held: Held::default(),
            disks: BTreeMap::new(),
            changes: Changes::default(),
            floor,
            last,
        }
    }

    /// The same with disks of its own.
    #[must_use]
    pub fn with_disks(self, disks: BTreeMap<DeviceId, DiskShape>) -> Self {
        Self { disks, ..self }
    }

    /// Number of the last entry taken.
    #[must_use]
    pub fn last(&self) -> Sequence {
        self.last
    }

    /// The latest guest times in the log so far.
    #[must_use]
    pub fn floor(&self) -> TimeFloor {
        self.floor
    }

    /// Waits for the next common point, or for the end.
    ///
    /// # Errors
    /// [`ReplayStop::Exhausted`]: nothing comes any more. What has come behind the last common
    /// point is dropped.
    pub fn next_common_point(&mut self) -> Result<Followed, ReplayStop> {
        loop {
            match self.feed.next(u64::MAX)? {
                Fed::Entry(entry) => {
                    if let Some(followed) = self.take(*entry)? {
                        return Ok(followed);
                    }
                }
                Fed::Passed(_) => {}
                Fed::Exhausted if mutant::is(Mutant::PutHalfAnEpoch) && self.staged.has_pages() => {
                    return self
                        .staged
                        .put_together()
                        .map(Followed::Met)
                        .ok_or(ReplayStop::Exhausted);
                }
                Fed::Exhausted => return Err(ReplayStop::Exhausted),
            }
        }
    }

    fn take(&mut self, entry: Entry) -> Result<Option<Followed>, DoorError> {
        let Entry {
            sequence,
            point,
            body,
            generation,
        } = entry;
        let part = |why| DoorError::Part { sequence, why };
        self.floor.raise(&body);
        let followed = match body {
            Body::Value(_) => None,
            Body::Part(piece) => {
                self.staged.take(generation, sequence, &piece).map_err(part)?;
                None
            }
            Body::HeldOutput(output) => {
                self.held.put(output.target, output.bytes);
                let bytes = self.held.bytes();
                if bytes > HELD_BYTES_MAX {
                    return Err(part(SavedError::Length {
                        section: HELD,
                        bytes,
                        bytes_max: HELD_BYTES_MAX,
                    }));
                }
                if mutant::is(Mutant::SayUnfinishedEpoch) {
                    self.let_go(sequence)?;
                }
                None
            }
            Body::DiskWrite(write) if self.feed.shares_disk(write.device) => {
                let number = disk_number_bytes(write.number);
                self.held.put(OutputTarget::disk(write.device), number);
                None
            }
            Body::DiskChange(change) => {
                self.keep(change).map_err(part)?;
                if mutant::is(Mutant::ChangeDisksAtOnce) {
                    self.change_disks()?;
                }
                None
            }
            Body::CommonPoint(common) => {
                let met = self.staged.finish(point, &common).map_err(part)?;
                self.change_disks()?;
                self.let_go(sequence)?;
                Some(Followed::Met(met))
            }
            Body::End(end) => {
                self.change_disks()?;
                self.let_go(sequence)?;
                Some(Followed::Ended(end.reason, point))
            }
            body @ (Body::Environment(_)
            | Body::Event(_)
            | Body::Output(_)
            | Body::DiskWrite(_)
            | Body::Digests(_)) => {
                return Err(LogError::Misplaced {
                    expected: "an entry of a machine in checkpoint mode",
                    found: body.kind(),
                }
                .into());
            }
        };
        self.last = sequence;
        self.feed.replayed(sequence, point.exits)?;
        if matches!(followed, Some(Followed::Ended(..))) {
            self.feed.finish()?;
        }
        Ok(followed)
    }

    /// Keeps what a disk has done until it counts.
    fn keep(&mut self, change: DiskChange) -> Result<(), SavedError> {
        let DiskChange { device, change, .. } = change;
        let Changes { operations, bytes } = &mut self.changes;
        *bytes += change_bytes(&change);
        if *bytes > CHANGES_BYTES_MAX {
            return Err(SavedError::Length {
                section: CHANGES,
                bytes: *bytes,
                bytes_max: CHANGES_BYTES_MAX,
            });
        }
        let operation = Operation::from(change);
        let shape = self.disks.get(&device);
        if !shape.is_some_and(|shape| operation.suits(shape)) {
            return Err(SavedError::Change { device });
        }
        operations.push((device, operation));
        Ok(())
    }

    /// Its own disks have what the followed machine has found them with, before anything is made of
    /// the common point.
    fn change_disks(&mut self) -> Result<(), DoorError> {
        let Changes { operations, .. } = std::mem::take(&mut self.changes);
        if operations.is_empty() || mutant::is(Mutant::ForgetChanges) {
            return Ok(());
        }
        self.feed.change_disks(operations)
    }

    /// What waited is of entry `sequence`. It is given before that is reported, so that a report
    /// has all of it.
    fn let_go(&mut self, sequence: Sequence) -> Result<(), DoorError> {
        let held = self.held.take();
        if mutant::is(Mutant::ForgetHeldOutputs) {
            return Ok(());
        }
        for (target, bytes) in held {
            self.feed.output(sequence, target, bytes)?;
        }
        Ok(())
    }
}
