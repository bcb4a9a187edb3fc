//! Exit statuses and the one error type of the command line (docs/errors.md).

use crate::kvm::HostError;
use crate::machine::MachineError;
use crate::machine::boot::BootError;
use crate::machine::door::DoorError;
use crate::machine::image::ImageError;
use crate::machine::memory::MemoryError;
use crate::shell::demo::DemoError;
use crate::shell::network::NetworkError;
use crate::shell::switch::SwitchError;
use lockstep_logging_channel::LogError;
use std::path::PathBuf;
use std::process::ExitCode;

/// Documented exit statuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// All went well.
    Success = 0,
    /// The guest failed, or something else that has no status of its own.
    Failure = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The configuration, or a file it names, is wrong.
    Configuration = 3,
    /// The host lacks something.
    Host = 4,
    /// A replay differs from its log.
    Divergence = 40,
    /// Another machine of the pair has gone on alone.
    Fenced = 41,
    /// The log is damaged.
    DamagedLog = 42,
    /// The peer or the environment does not match.
    Mismatch = 43,
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> Self {
        Self::from(status as u8)
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// A setting is missing or wrong.
    #[error("{setting}: {why}")]
    Setting {
        /// Its name as on the command line.
        setting: String,
        /// What is wrong, and what to do.
        why: String,
    },
    /// A configuration file cannot be used.
    #[error("configuration file {}", path.display())]
    ConfigurationFile {
        /// Its path.
        path: PathBuf,
        /// Why not.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A file cannot be read or written.
    #[error("cannot {action} {}", path.display())]
    File {
        /// What was tried.
        action: &'static str,
        /// Its path.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// The guest image cannot be run.
    #[error("guest image {} cannot be run", path.display())]
    Image {
        /// Its path.
        path: PathBuf,
        /// Why not.
        source: ImageError,
    },
    /// The machine cannot be built as configured.
    #[error("the machine cannot be built")]
    Memory(#[from] MemoryError),
    /// The machine cannot be built as configured.
    #[error("the machine cannot be built")]
    Boot(#[from] BootError),
    /// The host lacks something.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The network attachment failed.
    #[error("network")]
    Network(#[from] NetworkError),
    /// The log failed.
    #[error("log")]
    Log(#[from] LogError),
    /// The machine stopped.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// The log or the peer was made in another environment.
    #[error("{name} differs: {recorded} there, {here} here")]
    Mismatch {
        /// The first differing field.
        name: String,
        /// Its value in the log or at the peer.
        recorded: String,
        /// Its value here.
        here: String,
    },
    /// The logging channel cannot be opened.
    #[error("logging channel")]
    Channel(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The switch cannot start or go on.
    #[error("switch")]
    Switch(#[source] SwitchError),
    /// The demonstration cannot be given.
    #[error("demo")]
    Demo(#[source] DemoError),
    /// The peer cannot be worked with.
    #[error("peer")]
    Peer(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// What a command prints cannot be printed.
    #[error("cannot write to standard output: {0}")]
    Output(std::io::Error),
    /// Everything else.
    #[error("{what}")]
    Other {
        /// What failed.
        what: String,
        /// Why.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
}

impl CommandError {
    /// A failure without a type of its own.
    pub fn other(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let what = what.into();
        move |why| Self::Other {
            what,
            source: Box::new(why),
        }
    }

    /// A wrong setting.
    pub fn setting(setting: &str, why: impl Into<String>) -> Self {
        Self::Setting {
            setting: setting.to_owned(),
            why: why.into(),
        }
    }

    /// The exit status it leads to.
    #[must_use]
    pub fn status(&self) -> Status {
        match self {
            Self::Setting { .. }
            | Self::ConfigurationFile { .. }
            | Self::File { .. }
            | Self::Image { .. }
            | Self::Memory(MemoryError::Size { .. })
            | Self::Boot(_)
            | Self::Channel(_)
            | Self::Switch(_)
            | Self::Network(_) => Status::Configuration,
            Self::Demo(error) => error.status(),
            Self::Memory(MemoryError::Map { .. }) | Self::Host(_) => Status::Host,
            Self::Log(error) => log_status(error),
            Self::Machine(MachineError::Door(error)) => door_status(error),
            Self::Mismatch { .. } | Self::Peer(_) => Status::Mismatch,
            Self::Machine(MachineError::Cpu(_)) | Self::Output(_) | Self::Other { .. } => Status::Failure,
        }
    }

    /// What to do about it, where that is known.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Image {
                source: ImageError::Segment { .. },
                ..
            } => Some("give the guest more memory: --memory-mib"),
            Self::Image { .. } => Some(
                "`make guests` builds images that Lockstep runs; docs/guest-interface.md says what one is",
            ),
            Self::ConfigurationFile { .. } => Some("`--print-config` prints a valid file with every setting"),
            Self::Host(error) | Self::Demo(DemoError::Host(error)) if error.is_of_kvm_itself() => Some(
                "the lab needs no KVM: in Lockstep's sources, `make lab-demo` and `make lab-test` use Debian's in QEMU",
            ),
            Self::Mismatch { .. } => {
                Some("both sides must run the same lockstep, guest image and machine settings")
            }
            Self::Host(HostError::Property { .. }) => Some(
                "`lockstep doctor` shows what this host offers; --requalify measures it anew; without --clock and --window-exits less is needed",
            ),
            Self::Log(LogError::Exists { .. }) => Some("--overwrite replaces it"),
            Self::Machine(MachineError::Door(DoorError::Diverged(_))) => {
                Some("`lockstep log dump LOG` shows the entries; keep the log: it is the evidence")
            }
            _ => None,
        }
    }
}

fn log_status(error: &LogError) -> Status {
    match error {
        LogError::File { .. } | LogError::Exists { .. } => Status::Configuration,
        LogError::FormatVersion { .. } => Status::Mismatch,
        // A log that begins in another format is in that format; one that changes its format later is damaged.
        LogError::Damaged {
            source, entries: 0, ..
        } => log_status(source),
        _ => Status::DamagedLog,
    }
}

fn door_status(error: &DoorError) -> Status {
    match error {
        DoorError::Diverged(_) => Status::Divergence,
        DoorError::Fenced => Status::Fenced,
        DoorError::Log(error) => log_status(error),
        DoorError::Exhausted => Status::DamagedLog,
        // A live machine that is stopped has ended well; what comes here is a replay that has not seen the end of its log.
        DoorError::Stopped | DoorError::Host { .. } => Status::Failure,
    }
}
