//! The one error type of the command line, and the exit status of each (docs/errors.md).

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
use lockstep_process::descriptors::TooFewDescriptors;
pub use lockstep_process::status::Status;
use std::path::PathBuf;

/// An error and its causes, on one line.
pub fn with_causes(why: &dyn std::error::Error) -> String {
    let mut text = why.to_string();
    let mut source = why.source();
    while let Some(cause) = source {
        text.push_str(&format!(": {cause}"));
        source = cause.source();
    }
    text
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
    #[error("configuration file {} cannot be used", path.display())]
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
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The log failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// The machine stopped.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// The log was made in another environment.
    #[error("{name} differs: {recorded} in the log, {here} here")]
    Mismatch {
        /// The first differing field.
        name: String,
        /// Its value in the log.
        recorded: String,
        /// Its value here.
        here: String,
    },
    /// The logging channel cannot be opened.
    #[error(transparent)]
    Channel(Box<dyn std::error::Error + Send + Sync>),
    /// The switch cannot start or go on.
    #[error(transparent)]
    Switch(SwitchError),
    /// The demonstration cannot be given.
    #[error(transparent)]
    Demo(DemoError),
    /// The peer cannot be worked with.
    #[error(transparent)]
    Peer(Box<dyn std::error::Error + Send + Sync>),
    /// The machine that was joined is gone, and this side was not its backup yet.
    #[error(
        "the machine that this side was joining was lost before this side was its backup: it may not go on with it"
    )]
    NotArmed,
    /// What a command prints cannot be printed.
    #[error("cannot write to standard output: {0}")]
    Output(std::io::Error),
    /// The process may open too few files.
    #[error(transparent)]
    Descriptors(#[from] TooFewDescriptors),
    /// A part of Lockstep itself failed.
    #[error("{what}: this is a defect of Lockstep")]
    Defect {
        /// What happened.
        what: String,
    },
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

    /// There is nothing to make a random name of.
    pub fn no_random_bytes(why: getrandom::Error) -> Self {
        Self::other("the host gives no random bytes")(std::io::Error::other(why))
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
            | Self::Channel(_) => Status::Configuration,
            Self::Switch(error) => switch_status(error),
            Self::Network(error) => network_status(error),
            Self::Demo(error) => error.status(),
            Self::Memory(MemoryError::Map { .. }) | Self::Host(_) | Self::Descriptors(_) => Status::Host,
            Self::Log(error) => log_status(error),
            Self::Machine(MachineError::Door(error)) => door_status(error),
            Self::Mismatch { .. } | Self::Peer(_) => Status::Mismatch,
            Self::Machine(MachineError::Cpu(_) | MachineError::NoDigest(_))
            | Self::Output(_)
            | Self::NotArmed
            | Self::Defect { .. }
            | Self::Other { .. } => Status::Failure,
        }
    }

    /// What to do about it, where that is known.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Image {
                source: ImageError::Segment { end, limit, .. },
                ..
            } if end > limit => Some("give the guest more memory: --memory-mib"),
            Self::Image { .. } => Some(
                "`make guests` builds images that Lockstep runs; docs/guest-interface.md says what one is",
            ),
            Self::ConfigurationFile { .. } => Some("`lockstep run --print-config` prints a valid file"),
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

/// What cannot be attached is configured wrongly; what fails later fails.
fn network_status(error: &NetworkError) -> Status {
    match error {
        NetworkError::Closed { .. }
        | NetworkError::InterfaceGone { .. }
        | NetworkError::Broken { .. }
        | NetworkError::Framing { .. }
        | NetworkError::Runtime { .. } => Status::Failure,
        _ => Status::Configuration,
    }
}

fn switch_status(error: &SwitchError) -> Status {
    match error {
        SwitchError::Runtime { .. } => Status::Failure,
        _ => Status::Configuration,
    }
}

fn log_status(error: &LogError) -> Status {
    match error {
        LogError::File { .. } | LogError::Exists { .. } => Status::Configuration,
        LogError::FormatVersion { .. } => Status::Mismatch,
        // A log that begins in another format is in that format; one that changes its format later
        // is damaged.
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
        // A live machine that is stopped has ended well; what comes here is a replay that has not
        // seen the end of its log.
        DoorError::Stopped | DoorError::Host { .. } | DoorError::WrongAnswer { .. } => Status::Failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::{Error, ErrorKind};

    fn closed() -> Error {
        ErrorKind::BrokenPipe.into()
    }

    #[test]
    fn what_fails_while_it_runs_is_no_configuration() {
        let attachment = "switch:/run/switch".to_owned();
        let socket = PathBuf::from("/run/switch");
        let failures = [
            CommandError::Network(NetworkError::Closed {
                attachment: attachment.clone(),
            }),
            CommandError::Network(NetworkError::Broken {
                attachment,
                source: closed(),
            }),
            CommandError::Switch(SwitchError::Runtime { source: closed() }),
            CommandError::Defect {
                what: "the vCPU thread ended without an outcome".to_owned(),
            },
        ];
        for failure in failures {
            assert_eq!(failure.status(), Status::Failure, "{failure}");
        }
        let absent = NetworkError::SwitchAbsent {
            socket,
            source: closed(),
        };
        assert_eq!(CommandError::Network(absent).status(), Status::Configuration);
    }

    #[test]
    fn headlines_name_the_thing() {
        let log = PathBuf::from("/tmp/log");
        let headline = CommandError::Log(LogError::Exists { path: log }).to_string();
        assert!(headline.contains("/tmp/log"), "{headline}");
        let door = DoorError::Log(LogError::CutOff {
            path: PathBuf::from("/tmp/log"),
            offset: 1,
            entries: 0,
            partial_bytes: 1,
        });
        let headline = CommandError::Machine(MachineError::Door(door)).to_string();
        assert!(headline.contains("/tmp/log"), "{headline}");
    }
}
