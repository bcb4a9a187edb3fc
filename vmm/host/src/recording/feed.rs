//! The feed of a replay: a log file, entry by entry.

use crate::disk::Disks;
use crate::error::RunError;
use crate::live::control::Ordered;
use lockstep_core::machine::disk::Request;
use lockstep_core::machine::door::DoorError;
use lockstep_core::replica::replayer::OwnRead;
use lockstep_core::replica::snapshot::Place;
use lockstep_core::replica::{Fed, Feed};
use lockstep_logging_channel::{
    Body, Completion, DeviceId, Environment, LogError, LogReader, OutputKind, OutputTarget, Sequence,
};
use lockstep_process::writing::standard;
use std::path::Path;

/// Reads a log file from its second entry on.
pub struct FileFeed {
    reader: LogReader,
    ordered: Ordered,
    /// Replayed console bytes are shown.
    show_console: bool,
    /// The replay's own disks.
    disks: Disks,
}

impl FileFeed {
    /// Opens `path` and takes its environment.
    ///
    /// # Errors
    /// [`RunError::Log`].
    pub fn open(path: &Path, ordered: Ordered, show_console: bool) -> Result<(Self, Environment), RunError> {
        let (reader, environment) = open_log(path)?;
        Ok((
            Self {
                reader,
                ordered,
                show_console,
                disks: Disks::default(),
            },
            environment,
        ))
    }
}

impl FileFeed {
    /// The same with disks.
    #[must_use]
    pub fn with_disks(self, disks: Disks) -> Self {
        Self { disks, ..self }
    }

    /// Goes on at a snapshot: with the entry that is its first.
    ///
    /// # Errors
    /// [`RunError::Log`]: the log is shorter.
    pub fn skip_to(&mut self, place: &Place) -> Result<(), RunError> {
        Ok(skip_to(&mut self.reader, place)?)
    }
}

/// Goes on with the first entry behind the snapshot at `place`.
///
/// # Errors
/// [`LogError::TooShort`], [`LogError::File`].
pub fn skip_to(log: &mut LogReader, place: &Place) -> Result<(), LogError> {
    log.skip_to(Sequence(place.entry), place.log_offset, (place.exits, 0))
}

/// Opens a log and takes its environment.
///
/// # Errors
/// [`RunError::Log`].
pub fn open_log(path: &Path) -> Result<(LogReader, Environment), RunError> {
    let mut reader = LogReader::open(path)?;
    let first = reader.next().transpose()?.map(|entry| entry.body);
    let Some(Body::Environment(environment)) = first else {
        return Err(LogError::NotALog { found: [0; 4] }.into());
    };
    Ok((reader, environment))
}

impl Feed for FileFeed {
    fn next(&mut self, _exits: u64) -> Result<Fed, DoorError> {
        self.ordered.obey()?;
        match self.reader.next() {
            Some(Ok(entry)) => {
                // The run would be over, and what is behind its end never be read.
                if matches!(entry.body, Body::End(_))
                    && let Some(Err(why)) = self.reader.next()
                {
                    return Err(why.into());
                }
                Ok(Fed::Entry(Box::new(entry)))
            }
            Some(Err(why)) => Err(why.into()),
            None => Ok(Fed::Exhausted),
        }
    }

    fn replayed(&mut self, _sequence: Sequence, _exits: u64) -> Result<(), DoorError> {
        Ok(())
    }

    fn output(&mut self, _sequence: Sequence, target: OutputTarget, bytes: Vec<u8>) -> Result<(), DoorError> {
        if self.show_console && target.kind == OutputKind::Text {
            standard::console().push_when_there_is_room(&bytes);
        }
        Ok(())
    }

    fn disk_request(&mut self, device: DeviceId, request: Request) -> Result<(), DoorError> {
        self.disks.issue(device, request)
    }

    fn disk_completed(
        &mut self,
        device: DeviceId,
        completion: &Completion,
    ) -> Result<Option<OwnRead>, DoorError> {
        let ordered = &self.ordered;
        self.disks
            .wait(device, completion.number, ordered.woken(), || ordered.obey())
    }

    fn finish(&mut self) -> Result<(), DoorError> {
        Ok(())
    }

    fn kicked(&mut self) -> Result<(), DoorError> {
        self.ordered.obey()
    }
}

/// Refuses an environment that is not the log's.
///
/// # Errors
/// [`RunError::Mismatch`] naming the first differing field.
pub fn same_environment(recorded: &Environment, here: &Environment) -> Result<(), RunError> {
    let text = |value: Option<String>| value.unwrap_or_else(|| "nothing".to_owned());
    match recorded.first_difference(here) {
        None => Ok(()),
        Some(difference) => Err(RunError::Mismatch {
            name: difference.name,
            recorded: text(difference.recorded),
            here: text(difference.here),
        }),
    }
}
