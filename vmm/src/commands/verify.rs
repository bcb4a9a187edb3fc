//! `lockstep verify`: records once, replays many times, compares every output, digest and the final
//! memory.

use super::record::record_plan;
use super::replay::replay_plan;
use lockstep_core::machine::MachineError;
use lockstep_core::machine::door::DoorError;
use lockstep_host::configuration::Configuration;
use lockstep_host::error::RunError;
use lockstep_host::machine::Plan;
use lockstep_host::outside::{Signals, conclude, console_written};
use lockstep_logging_channel::{EndReason, Existing, LogReader};
use lockstep_process::status::Status;
use lockstep_process::writing::standard;
use std::path::{Path, PathBuf};

/// The log of a verification: removed when all is well, kept as evidence when not.
struct Evidence {
    directory: PathBuf,
    keep: bool,
}

impl Evidence {
    fn create() -> Result<Self, RunError> {
        let directory = std::env::temp_dir().join(format!("lockstep-verify-{}", std::process::id()));
        std::fs::create_dir(&directory).map_err(|source| RunError::File {
            action: "create",
            path: directory.clone(),
            source,
        })?;
        Ok(Self {
            directory,
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

/// Records `image` and replays it `runs` times. A signal ends the verification, whatever it is
/// doing.
///
/// # Errors
/// [`RunError`]; the first divergence is one, and its log is kept.
pub async fn verify(
    image: &Path,
    runs: u32,
    configuration: &Configuration,
    signals: &mut Signals,
) -> Result<Status, RunError> {
    let plan = Plan::new(image, configuration)?;
    let mut evidence = Evidence::create()?;
    let log = evidence.log();
    let recorded = record_plan(plan.clone(), &log, Existing::Refuse, configuration, signals).await?;
    if recorded.reason == EndReason::Stopped {
        return Err(stopped());
    }
    for run in 1..=runs {
        if let Err(error) = replay_plan(plan.clone(), &log, false, signals).await {
            let is_stopped = matches!(error, RunError::Machine(MachineError::Door(DoorError::Stopped)));
            evidence.keep = !is_stopped;
            if !is_stopped {
                tracing::error!(run, "this replay failed");
            }
            return Err(error);
        }
        tracing::info!(run, of = runs, "replayed without divergence");
    }
    let entries = tokio::select! {
        entries = tokio::task::spawn_blocking(move || count(&log)) => entries.unwrap_or_else(|why| Err(not_counted(why)))?,
        () = signals.received() => return Err(stopped()),
    };
    let text =
        format!("verified: recorded once, {entries} entries; replayed {runs} times without divergence\n");
    standard::console().push(text.as_bytes());
    console_written(signals).await;
    Ok(conclude(&recorded))
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

fn count(log: &Path) -> Result<u64, RunError> {
    let mut entries = 0;
    for entry in LogReader::open(log)? {
        entry?;
        entries += 1;
    }
    Ok(entries)
}
