//! `lockstep replay`: a log file once more, on a machine of its own, compared entry by entry.

use super::record::FileJournal;
use lockstep_core::machine::door::{Door, DoorError};
use lockstep_core::machine::run::Ended;
use lockstep_core::replica::{Fed, Feed, Replayer, Standby};
use lockstep_host::configuration::Configuration;
use lockstep_host::error::RunError;
use lockstep_host::live::{Order, World, control::Ordered};
use lockstep_host::machine::{Plan, start};
use lockstep_host::outside::{Signals, conclude, console_written};
use lockstep_kvm::ClockKind;
use lockstep_logging_channel::{Body, Environment, LogError, LogReader, OutputKind, OutputTarget, Sequence};
use lockstep_process::status::Status;
use lockstep_process::writing::standard;
use std::path::Path;

/// Reads a log file from its second entry on.
pub struct FileFeed {
    reader: LogReader,
    ordered: Ordered,
    /// Replayed console bytes are shown.
    show_console: bool,
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
            },
            environment,
        ))
    }
}

fn open_log(path: &Path) -> Result<(LogReader, Environment), RunError> {
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

/// Replays `log` with `plan`.
///
/// # Errors
/// [`RunError`]; a divergence is one.
pub async fn replay_plan(
    plan: Plan,
    log: &Path,
    show_console: bool,
    signals: &mut Signals,
) -> Result<Ended, RunError> {
    let (control, ordered) = lockstep_host::live::control::control();
    let (feed, recorded) = FileFeed::open(log, ordered.clone(), show_console)?;
    same_environment(&recorded, &plan.environment(recorded.pair))?;
    let counts_instructions = plan.clock() != ClockKind::None;
    let memory_bytes = plan.memory_bytes();
    let make_door = Box::new(move || {
        let replayer = Replayer::new(feed, counts_instructions).of_memory(memory_bytes);
        Ok(Box::new(Standby::<_, World, FileJournal>::new(replayer, None)) as Box<dyn Door>)
    });
    let mut machine = start(plan, ordered, make_door)?;
    loop {
        tokio::select! {
            outcome = machine.outcome() => {
                machine.join();
                console_written(signals).await;
                return outcome;
            }
            () = signals.received() => control.give(Order::Stop),
        }
    }
}

/// Replays `log` of `image`.
///
/// # Errors
/// [`RunError`].
pub async fn replay(image: &Path, log: &Path, configuration: &Configuration) -> Result<Status, RunError> {
    let (_, recorded) = open_log(log)?;
    let plan = Plan::for_replay(image, configuration, &recorded)?;
    let ended = replay_plan(plan, log, true, &mut Signals::listen()).await?;
    tracing::info!(exits = ended.point.exits, "the replay equals the log");
    Ok(conclude(&ended))
}
