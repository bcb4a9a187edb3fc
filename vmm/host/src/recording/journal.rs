//! The journal of a recording: a log file, and the outlets behind it.

use crate::error::RunError;
use crate::outlets::Outlets;
use lockstep_core::machine::door::DoorError;
use lockstep_core::replica::Journal;
use lockstep_logging_channel::{
    Body, Entry, Environment, ExecutionPoint, Existing, Generation, LogWriter, OutputTarget, Sequence,
};
use std::path::Path;

/// A log file, and the outlets behind it.
pub struct FileJournal {
    writer: LogWriter,
    outlets: Outlets,
}

impl FileJournal {
    /// A new log at `path`, beginning with its environment.
    ///
    /// # Errors
    /// [`RunError::Log`].
    pub fn create(
        path: &Path,
        existing: Existing,
        environment: Environment,
        outlets: Outlets,
    ) -> Result<Self, RunError> {
        let mut writer = LogWriter::create(path, existing)?;
        writer.append(&Entry {
            generation: Generation(0),
            sequence: Sequence(0),
            point: ExecutionPoint::default(),
            body: Body::Environment(environment),
        })?;
        Ok(Self { writer, outlets })
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
