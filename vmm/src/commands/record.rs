//! `lockstep record`: one machine, everything that enters it into a log file.

use lockstep_core::machine::door::{Door, DoorError};
use lockstep_core::machine::run::Ended;
use lockstep_core::replica::recorder::Start;
use lockstep_core::replica::replayer::TimeFloor;
use lockstep_core::replica::{Journal, Recorder};
use lockstep_host::configuration::Configuration;
use lockstep_host::error::RunError;
use lockstep_host::machine::Plan;
use lockstep_host::outlets::Outlets;
use lockstep_host::outside::{Live, Outsides, Signals, conclude, world};
use lockstep_logging_channel::{
    Body, EndReason, Entry, Environment, ExecutionPoint, Existing, Generation, LogWriter, OutputTarget,
    Sequence,
};
use lockstep_process::status::Status;
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

/// Runs `image` until it ends, and records it into `log`.
///
/// # Errors
/// [`RunError`].
pub async fn record(
    image: &Path,
    log: &Path,
    existing: Existing,
    configuration: &Configuration,
    signals: &mut Signals,
) -> Result<Status, RunError> {
    let plan = Plan::new(image, configuration)?;
    let ended = record_plan(plan, log, existing, configuration, signals).await?;
    Ok(conclude(&ended))
}

/// Runs the machine of `plan`, and records it. Tells how it ended.
///
/// # Errors
/// [`RunError`].
pub async fn record_plan(
    plan: Plan,
    log: &Path,
    existing: Existing,
    configuration: &Configuration,
    signals: &mut Signals,
) -> Result<Ended, RunError> {
    let entering = plan.entering();
    let Some((outsides, live)) = Outsides::open(configuration, entering.clock, signals).await? else {
        return Ok(Ended {
            reason: EndReason::Stopped,
            point: ExecutionPoint::default(),
        });
    };
    let Live {
        outlets,
        arrivals,
        ordered,
    } = live;
    let mut name = [0; 16];
    getrandom::fill(&mut name).map_err(RunError::no_random_bytes)?;
    let outlets = outlets.waiting_for_reader();
    let journal = FileJournal::create(log, existing, plan.environment(name), outlets)?;
    let make_door = Box::new(move || {
        let outside = world(TimeFloor::default(), arrivals, ordered, entering)?;
        let start = Start {
            generation: Generation(0),
            sequence: Sequence(1),
        };
        Ok(Box::new(Recorder::new(outside, journal, start)) as Box<dyn Door>)
    });
    outsides.run(plan, make_door, signals).await
}
