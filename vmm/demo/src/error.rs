//! Reasons why a demonstration cannot be given.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use lockstep_process::status::Status;

/// A demonstration cannot start, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum DemoError {
    /// The guest image is missing.
    #[error("the key-value guest is not there (looked for {})", list(looked_for))]
    ImageMissing {
        /// Paths at which it was looked for.
        looked_for: Vec<PathBuf>,
    },
    /// A file of the Linux guest is missing.
    #[error("{} is not there", file.display())]
    LinuxMissing {
        /// Its path.
        file: PathBuf,
    },
    /// The stopped replica would be woken before its peer gives it up.
    #[error(
        "a stopped replica would be woken after {stopped:?}, and with --timeout-ms {timeout_ms} the other gives it up later: \
         make --duration longer by {more:?}"
    )]
    StopTooShort {
        /// Time for which it would be stopped.
        stopped: Duration,
        /// Silence after which a replica gives up the other.
        timeout_ms: u64,
        /// Time that is missing in all.
        more: Duration,
    },
    /// Epochs are asked for where there are none.
    #[error("--epoch-ms {epoch_ms} has no use with --mode replay")]
    EpochUnused {
        /// The length that was asked for.
        epoch_ms: u64,
    },
    /// The times contradict each other.
    #[error("--after {after:?} is not before the end of --duration {duration:?}")]
    Times {
        /// Time before the loss.
        after: Duration,
        /// Time in all.
        duration: Duration,
    },
    /// The directory of the demonstration cannot be made or used.
    #[error("cannot {action} in the temporary directory (TMPDIR says where that is)")]
    Directory {
        /// The action that was tried.
        action: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// A process cannot be started.
    #[error("cannot start `lockstep {process}`")]
    Spawn {
        /// The command.
        process: &'static str,
        /// The system's answer.
        source: io::Error,
    },
    /// A process ended before its time.
    #[error("`lockstep {process}` ended early, {status}{}", said(messages))]
    EndedEarly {
        /// The command.
        process: &'static str,
        /// Its status.
        status: ExitStatus,
        /// The end of what it wrote to standard error.
        messages: String,
    },
    /// Something did not happen in time.
    #[error("{what} took longer than {} s{}", limit.as_secs(), said(messages))]
    NotInTime {
        /// The event that was waited for.
        what: &'static str,
        /// For how long.
        limit: Duration,
        /// The end of what the process in question wrote to standard error.
        messages: String,
    },
    /// A client cannot connect before anything was killed.
    #[error("client {client} cannot use the guest")]
    Client {
        /// Its number.
        client: u16,
        /// The failure.
        source: io::Error,
    },
    /// A replica gave up the other before anything was done to either: what was to be shown did not
    /// happen.
    #[error(
        "the pair parted before anything was done to it, with a timeout of {timeout_ms} ms: the {replica} noticed: {cause}"
    )]
    Parted {
        /// The replica that noticed.
        replica: &'static str,
        /// The cause that it noticed.
        cause: String,
        /// Silence after which a replica is given up.
        timeout_ms: u64,
    },
    /// Signals cannot be listened for, or clocks and randomness not be used.
    #[error("cannot set up the demonstration")]
    Runtime {
        /// The system's answer.
        source: io::Error,
    },
    /// A signal came.
    #[error("the demonstration was stopped by a signal, before its end")]
    Interrupted,
}

impl DemoError {
    /// A remedy, where one is known.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::ImageMissing { .. } => Some("`make guests` builds it; --image names one"),
            Self::LinuxMissing { .. } => Some("`make guests-debian` makes a kernel and an initial ramdisk"),
            Self::Times { .. } => Some("--after is a part of --duration, which is the time of one round"),
            Self::EpochUnused { .. } => Some("it is the time between the checkpoints of --mode checkpoint"),
            Self::Parted { .. } => {
                Some("this host is too busy for such a timeout: give more with --timeout-ms")
            }
            _ => None,
        }
    }

    /// The exit status it leads to.
    #[must_use]
    pub fn status(&self) -> Status {
        match self {
            Self::ImageMissing { .. }
            | Self::LinuxMissing { .. }
            | Self::EpochUnused { .. }
            | Self::StopTooShort { .. }
            | Self::Times { .. }
            | Self::Directory { .. } => Status::Configuration,
            Self::EndedEarly { status, .. } => [Status::Configuration, Status::Host]
                .into_iter()
                .find(|known| status.code() == Some(*known as i32))
                .unwrap_or(Status::Failure),
            _ => Status::Failure,
        }
    }
}

fn list(paths: &[PathBuf]) -> String {
    paths
        .iter()
        .map(|path| path.display().to_string())
        .collect::<Vec<_>>()
        .join(", ")
}

fn said(messages: &str) -> String {
    if messages.is_empty() {
        String::new()
    } else {
        format!("; it said:\n{messages}")
    }
}
