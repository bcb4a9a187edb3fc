//! `lockstep replay`: a log file once more, on a machine of its own, compared entry by entry.

use lockstep_core::machine::door::Door;
use lockstep_core::machine::run::Ended;
use lockstep_core::replica::{Replayer, Standby};
use lockstep_host::configuration::Configuration;
use lockstep_host::error::RunError;
use lockstep_host::live::{Order, World};
use lockstep_host::machine::{Plan, start};
use lockstep_host::outside::{Signals, conclude, console_written};
use lockstep_host::recording::feed::{open_log, same_environment};
use lockstep_host::recording::{FileFeed, FileJournal};
use lockstep_kvm::ClockKind;
use lockstep_process::status::Status;
use std::path::Path;

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
