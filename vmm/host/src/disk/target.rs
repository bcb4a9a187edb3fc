//! What the requests of a disk are carried out on: its bytes, and the marks of those that may differ
//! from the other side's.

use super::changes::{KeptChanges, Reached};
use super::storage::{Storage, carry_out};
use lockstep_core::machine::disk::{Operation, Request};
use lockstep_core::replica::disk_changes::{Part, changed, parts};
use lockstep_logging_channel::ReadData;
use lockstep_shared_disk::image::RawFile;
use std::io;
use std::sync::Arc;

/// Bytes and marks. Calls block.
#[derive(Clone)]
pub(super) struct Target {
    pub storage: Arc<dyn Storage>,
    /// Blocks that may differ from the other side's, where there is one with an image of its own.
    pub changes: Option<Arc<KeptChanges>>,
}

impl Target {
    /// Carries `request` out; what it changes is marked before. Gives the bytes that it has read.
    ///
    /// # Errors
    /// The system's.
    pub fn carry_out(&self, request: &Request) -> io::Result<ReadData> {
        let carry_out = || carry_out(&*self.storage, request);
        let Some(changes) = &self.changes else {
            return carry_out();
        };
        let Some(range) = changed(&request.operation) else {
            let read = carry_out()?;
            if request.operation == Operation::Flush {
                changes.flushed(request.number)?;
            }
            return Ok(read);
        };
        for part in parts() {
            match part {
                Part::Mark => changes.mark(Some(request.number), &range)?,
                Part::Change => drop(carry_out()?),
            }
        }
        Ok(ReadData::Nothing)
    }

    /// The file of the image, where the system can read or write the bytes of `operation` as they are
    /// and nothing is to be marked before: a mark blocks until it is durable.
    #[must_use]
    pub fn whole(&self, operation: &Operation) -> Option<RawFile<'_>> {
        let is_marked = self.changes.is_some() && changed(operation).is_some();
        self.storage.whole(operation).filter(|_| !is_marked)
    }

    /// Clears the marks that are not needed any more, now that both sides have a state.
    pub fn clear(&self, reached: Reached) {
        if let Some(changes) = &self.changes {
            changes.both_have(reached);
        }
    }
}
