//! `lockstep replay`: a log file once more, on a machine of its own, compared entry by entry.

use lockstep_core::machine::run::Ended;
use lockstep_host::configuration::{Configuration, GuestFiles};
use lockstep_host::error::RunError;
use lockstep_host::machine::Plan;
use lockstep_host::outside::{Signals, conclude, console_written};
use lockstep_host::recording::feed::open_log;
use lockstep_host::recording::pieces::{From, Recorded};
use lockstep_process::status::Status;
use std::path::Path;

/// Replays `log` of `guest`, all of it or `from` a snapshot on.
///
/// # Errors
/// [`RunError`]; a divergence is one.
pub async fn replay(
    guest: &GuestFiles,
    log: &Path,
    from: Option<From>,
    configuration: &Configuration,
) -> Result<Status, RunError> {
    let (_, environment) = open_log(log)?;
    let plan = Plan::for_replay(guest, configuration, &environment)?;
    let recorded = Recorded::open(plan, log)?;
    let snapshot = from.map(|from| recorded.snapshot(from)).transpose()?;
    if let Some(snapshot) = &snapshot {
        let place = snapshot.header.place;
        tracing::info!(
            entry = place.entry,
            exits = place.exits,
            snapshot = %snapshot.path.display(),
            "the replay begins at a snapshot: entries before it are not looked at"
        );
    }
    let mut signals = Signals::listen();
    let replayed = recorded.replay(snapshot, &mut signals).await;
    console_written(&mut signals).await;
    let ended: Ended = replayed?;
    tracing::info!(exits = ended.point.exits, "the replay equals the log");
    Ok(conclude(&ended))
}
