//! The journal of a recording: a log file, and the outlets behind it.

use crate::error::RunError;
use crate::outlets::Outlets;
use crossbeam_channel::{Receiver, Sender, bounded};
use lockstep_core::machine::door::DoorError;
use lockstep_core::replica::{CaptureJournal, Journal};
use lockstep_logging_channel::{
    Body, Entry, Environment, ExecutionPoint, Existing, Generation, LogWriter, OutputTarget, Sequence,
};
use std::path::Path;

/// A log file, and the outlets behind it.
pub struct FileJournal {
    writer: LogWriter,
    outlets: Outlets,
    captured: Sender<(Sequence, u64)>,
}

/// Places in the log at which the machine was captured, one capture at a time.
#[derive(Debug)]
pub struct CapturedAt(Receiver<(Sequence, u64)>);

impl CapturedAt {
    /// Byte of the log at which the entry behind `last` begins, where the machine was captured
    /// there. Forgets what was captured before.
    #[must_use]
    pub fn offset_behind(&self, last: Sequence) -> Option<u64> {
        let mut captured = self.0.try_iter();
        captured.find_map(|(sequence, offset)| (sequence == last).then_some(offset))
    }

    /// Forgets what was captured.
    pub fn forget(&self) {
        self.0.try_iter().for_each(drop);
    }
}

impl FileJournal {
    /// A new log at `path`, beginning with its environment.
    ///
    /// # Errors
    /// [`RunError::Log`]: a file that was not there before is not there then.
    pub fn create(
        path: &Path,
        existing: Existing,
        environment: Environment,
        outlets: Outlets,
    ) -> Result<(Self, CapturedAt), RunError> {
        let mut writer = LogWriter::create(path, existing)?;
        let first = Entry {
            generation: Generation(0),
            sequence: Sequence(0),
            point: ExecutionPoint::default(),
            body: Body::Environment(environment),
        };
        // Now, because a log that cannot take its first entry is not worth a guest.
        if let Err(why) = writer.append(&first).and_then(|()| writer.flush()) {
            writer.discard();
            return Err(why.into());
        }
        let (captured, at) = bounded(1);
        let journal = Self {
            writer,
            outlets,
            captured,
        };
        Ok((journal, CapturedAt(at)))
    }
}

impl Journal for FileJournal {
    fn append(&mut self, entry: &Entry) -> Result<(), DoorError> {
        Ok(self.writer.append(entry)?)
    }

    fn output(&mut self, entry: &Entry, target: OutputTarget, bytes: Vec<u8>) -> Result<(), DoorError> {
        self.writer.append(entry)?;
        self.outlets.release(std::iter::once((target, bytes.as_slice())))
    }

    fn passed(&mut self, _exits: u64, idle: bool) -> Result<(), DoorError> {
        if idle {
            self.writer.flush()?;
        }
        Ok(())
    }

    fn finish(&mut self) -> Result<(), DoorError> {
        Ok(self.writer.sync()?)
    }
}

impl CaptureJournal for FileJournal {
    fn saved_at(&mut self, sequence: Sequence, _exits: u64) -> Result<(), DoorError> {
        self.writer.flush()?;
        // Full means that nobody asks any more.
        let _ = self.captured.try_send((sequence, self.writer.offset()));
        Ok(())
    }
}
