//! `lockstep record`: one machine, everything that enters it into a log file.

use lockstep_core::machine::door::Door;
use lockstep_core::machine::run::Ended;
use lockstep_core::replica::Recorder;
use lockstep_core::replica::recorder::Start;
use lockstep_core::replica::replayer::TimeFloor;
use lockstep_host::configuration::Configuration;
use lockstep_host::error::RunError;
use lockstep_host::machine::Plan;
use lockstep_host::outside::{Live, Outsides, Signals, conclude, world};
use lockstep_host::recording::FileJournal;
use lockstep_logging_channel::{EndReason, ExecutionPoint, Existing, Generation, Sequence};
use lockstep_process::status::Status;
use std::path::Path;

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
