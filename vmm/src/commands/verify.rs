//! `lockstep verify`: records once, or takes a recording; replays it many times, in pieces between
//! its snapshots; compares every output, digest and the final memory.

use super::record::{Files, record_plan};
use lockstep_core::machine::door::DoorError;
use lockstep_core::machine::{Ended, MachineError};
use lockstep_host::configuration::{Configuration, GuestFiles};
use lockstep_host::disk::Purpose;
use lockstep_host::error::RunError;
use lockstep_host::machine::Plan;
use lockstep_host::outside::{Signals, conclude, console_written};
use lockstep_host::recording::checking::check;
use lockstep_host::recording::feed::open_log;
use lockstep_host::recording::pieces::{Recorded, count_entries};
use lockstep_logging_channel::{EndReason, Existing};
use lockstep_process::status::Status;
use lockstep_process::writing::standard;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Replays of a recording that is made for them.
const RUNS: u32 = 3;

/// The log of a verification: removed when all is well, kept as evidence when not.
struct Evidence {
    directory: PathBuf,
    keep: bool,
}

impl Evidence {
    /// A folder under a name that nobody has: what an earlier verification kept stays.
    fn create() -> Result<Self, RunError> {
        let temporary = std::env::temp_dir();
        let made = tempfile::Builder::new()
            .prefix("lockstep-verify-")
            .disable_cleanup(true)
            .tempdir_in(&temporary);
        let made = made.map_err(|source| RunError::File {
            action: "create a folder in",
            path: temporary,
            source,
        })?;
        Ok(Self {
            directory: made.path().to_owned(),
            keep: false,
        })
    }

    fn log(&self) -> PathBuf {
        self.directory.join("log")
    }
}

impl Drop for Evidence {
    fn drop(&mut self) {
        if self.keep {
            tracing::error!(log = %self.log().display(), "the log is kept");
        } else {
            // A left-over temporary directory harms nobody.
            let _ = std::fs::remove_dir_all(&self.directory);
        }
    }
}

/// Description of a verification.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// The recording; none for one that is made.
    pub log: Option<PathBuf>,
    /// Replays; none for the default.
    pub runs: Option<u32>,
    /// Time between two snapshots of a recording that is made; none for no snapshot.
    pub snapshot_every: Option<Duration>,
}

/// Replays a recording of `guest`. A signal ends the verification, whatever it is doing.
///
/// # Errors
/// [`RunError`]; the first divergence is one, and a log that was made is kept.
pub async fn verify(
    guest: &GuestFiles,
    wanted: &Wanted,
    configuration: &Configuration,
    signals: &mut Signals,
) -> Result<Status, RunError> {
    if let Some(log) = &wanted.log {
        let (_, environment) = open_log(log)?;
        let plan = Plan::for_replay(guest, configuration, &environment)?;
        let runs = wanted.runs.unwrap_or(1);
        let ended = replay_all(plan, log, runs, signals).await?;
        let entries = counted(log, signals).await?;
        let what = format!("verified: {entries} entries of {}", log.display());
        return said(&what, runs, &ended, signals).await;
    }
    let plan = Plan::new(guest, configuration, Purpose::Base)?;
    let mut evidence = Evidence::create()?;
    let log = evidence.log();
    let files = Files {
        log: &log,
        existing: Existing::Refuse,
        snapshot_every: wanted.snapshot_every,
    };
    let recorded = record_plan(plan.clone(), files, configuration, signals).await?;
    if recorded.reason == EndReason::Stopped {
        return Err(stopped());
    }
    let runs = wanted.runs.unwrap_or(RUNS);
    let ended = match replay_all(plan, &log, runs, signals).await {
        Ok(ended) => ended,
        Err(why) => {
            evidence.keep = !is_stopped(&why);
            return Err(why);
        }
    };
    let entries = counted(&log, signals).await?;
    let what = format!("verified: recorded once, {entries} entries");
    said(&what, runs, &ended, signals).await
}

/// Replays `log` so many times. Gives its end.
async fn replay_all(plan: Plan, log: &Path, runs: u32, signals: &mut Signals) -> Result<Ended, RunError> {
    let recorded = Recorded::open(plan, log)?;
    let check_once = async |run: u32, signals: &mut Signals| {
        let checked = check(&recorded, signals).await.inspect_err(|why| {
            if !is_stopped(why) {
                tracing::error!(run, "this replay failed");
            }
        })?;
        let (pieces, at_a_time) = (checked.pieces, checked.at_a_time);
        if pieces == 1 {
            tracing::info!(run, of = runs, "replayed without divergence");
        } else {
            tracing::info!(run, of = runs, pieces, at_a_time, "replayed without divergence");
        }
        Ok(checked.ended)
    };
    repeated(runs, signals, check_once).await
}

/// Does `work` so many times, once at least, and gives the last result. None begins after a signal,
/// also where that found the recording or the replay before at its end, and changed nothing about it.
async fn repeated<T>(
    times: u32,
    signals: &mut Signals,
    mut work: impl AsyncFnMut(u32, &mut Signals) -> Result<T, RunError>,
) -> Result<T, RunError> {
    let mut time = 0;
    loop {
        if signals.have_come() {
            return Err(stopped());
        }
        time += 1;
        let done = work(time, signals).await?;
        if time >= times {
            return Ok(done);
        }
    }
}

async fn counted(log: &Path, signals: &mut Signals) -> Result<u64, RunError> {
    let log = log.to_owned();
    tokio::select! {
        entries = tokio::task::spawn_blocking(move || count_entries(&log)) => entries.unwrap_or_else(|why| Err(not_counted(why))),
        () = signals.received() => Err(stopped()),
    }
}

async fn said(what: &str, runs: u32, ended: &Ended, signals: &mut Signals) -> Result<Status, RunError> {
    let text = format!("{what}; replayed {runs} times without divergence\n");
    standard::console().push(text.as_bytes());
    console_written(signals).await;
    Ok(conclude(ended))
}

fn is_stopped(why: &RunError) -> bool {
    matches!(why, RunError::Machine(MachineError::Door(DoorError::Stopped)))
}

fn stopped() -> RunError {
    MachineError::Door(DoorError::Stopped).into()
}

fn not_counted(why: tokio::task::JoinError) -> RunError {
    RunError::Other {
        what: "the log cannot be counted".to_owned(),
        source: Box::new(why),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_process::signals::Signal;
    use tokio::sync::watch;

    #[tokio::test]
    async fn a_signal_that_finds_a_replay_at_its_end_lets_none_follow() {
        let (asked, receiver) = watch::channel(None);
        let mut signals = Signals::of(receiver);
        let mut begun = Vec::new();
        let outcome = repeated(3, &mut signals, async |run: u32, signals: &mut Signals| {
            begun.push(run);
            if run == 2 {
                asked.send_replace(Some(Signal::SIGTERM));
                signals.received().await;
            }
            Ok(())
        });
        let why = outcome.await.unwrap_err();
        assert!(is_stopped(&why), "{why}");
        assert_eq!(begun, [1, 2]);
    }
}
