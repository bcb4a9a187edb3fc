//! The one error type of the command line, and the exit status of each (docs/errors.md).

use lockstep_core::machine::MachineError;
use lockstep_core::machine::door::DoorError;
use lockstep_core::machine::image::ImageError;
use lockstep_core::machine::image::inspect::Type;
use lockstep_core::machine::memory::MemoryError;
use lockstep_core::replica::snapshot::SnapshotError;
use lockstep_host::error::{GuestFile, RunError};
use lockstep_host::machine::plan::BUILD_FIELD;
use lockstep_kvm::HostError;
use lockstep_logging_channel::LogError;
use lockstep_logging_channel::handshake::HandshakeError;
use lockstep_network::NetworkError;
use lockstep_process::descriptors::TooFewDescriptors;
pub use lockstep_process::status::Status;
use lockstep_qualify::KERNEL_OPTION;
use lockstep_switch::SwitchError;
use std::path::PathBuf;

/// Reason why a command failed.
#[derive(Debug, thiserror::Error)]
pub enum CommandError {
    /// A configuration file cannot be used.
    #[error("configuration file {} cannot be used", path.display())]
    ConfigurationFile {
        /// Its path.
        path: PathBuf,
        /// The reason.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// A machine cannot be run as asked, or did not run on.
    #[error(transparent)]
    Run(#[from] RunError),
    /// The switch cannot start or go on.
    #[error(transparent)]
    Switch(SwitchError),
    /// The output of a command cannot be printed.
    #[error("cannot write to standard output: {0}")]
    Output(std::io::Error),
    /// Arguments that contradict each other.
    #[error("{why}")]
    Usage {
        /// The contradiction.
        why: String,
    },
    /// A machine is where it was.
    #[error("{name} is not switched over: {why}")]
    Switchover {
        /// Its name.
        name: String,
        /// The reason.
        why: String,
    },
    /// A machine was switched over, and is not protected.
    #[error("{name} was switched over to {holder}, and is not protected: {why}")]
    Unprotected {
        /// Its name.
        name: String,
        /// The side that has taken over.
        holder: String,
        /// The reason.
        why: String,
    },
    /// An image of a disk cannot be used.
    #[error(transparent)]
    DiskImage(lockstep_shared_disk::image::ImageError),
    /// The process may open too few files.
    #[error(transparent)]
    Descriptors(#[from] TooFewDescriptors),
}

impl CommandError {
    /// A failure without a type of its own.
    pub fn other(what: impl Into<String>) -> impl FnOnce(std::io::Error) -> Self {
        let failed = RunError::other(what);
        move |why| failed(why).into()
    }

    /// A wrong setting.
    pub fn setting(setting: &str, why: impl Into<String>) -> Self {
        RunError::setting(setting, why).into()
    }

    /// The exit status it leads to.
    #[must_use]
    pub fn status(&self) -> Status {
        match self {
            Self::ConfigurationFile { .. } | Self::DiskImage(_) => Status::Configuration,
            Self::Run(error) => run_status(error),
            Self::Switch(error) => switch_status(error),
            Self::Descriptors(_) => Status::Host,
            Self::Switchover { .. } | Self::Unprotected { .. } | Self::Output(_) => Status::Failure,
            Self::Usage { .. } => Status::Usage,
        }
    }

    /// A remedy, where one is known.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        match self {
            Self::ConfigurationFile { .. } => Some("`lockstep run --print-config` prints a valid file"),
            Self::Run(error) => run_hint(error),
            Self::DiskImage(error) => error.hint(),
            Self::Switchover { .. } | Self::Unprotected { .. } => Some(
                "`lockstep status` with this name and directory shows who takes part; `lockstep replica` makes a side that can take over",
            ),
            _ => None,
        }
    }
}

/// A log is read by commands that run nothing, too.
impl From<LogError> for CommandError {
    fn from(why: LogError) -> Self {
        RunError::from(why).into()
    }
}

fn run_status(error: &RunError) -> Status {
    match error {
        RunError::Setting { .. }
        | RunError::File { .. }
        | RunError::Image { .. }
        | RunError::Disk(_)
        | RunError::OtherType { .. }
        | RunError::Memory(MemoryError::Size { .. })
        | RunError::CommandLine(_)
        | RunError::Boot(_)
        | RunError::Channel(_)
        | RunError::NoSnapshot { .. }
        | RunError::NoEntry { .. } => Status::Configuration,
        RunError::Network(error) => network_status(error),
        RunError::Memory(MemoryError::Map { .. })
        | RunError::Host(_)
        | RunError::NoIoUring { .. }
        | RunError::DiskFails { .. }
        | RunError::NotDurable => Status::Host,
        RunError::Log(error) => log_status(error),
        RunError::Snapshot { source, .. } | RunError::SnapshotDisks { source, .. } => snapshot_status(source),
        RunError::Machine(MachineError::Door(error)) => door_status(error),
        RunError::BackupDiverged { .. } => Status::Divergence,
        RunError::Mismatch { .. } | RunError::Peer(_) => Status::Mismatch,
        RunError::Machine(
            MachineError::Cpu(_)
            | MachineError::NotTaken(_)
            | MachineError::NoDigest(_)
            | MachineError::Saved(_)
            | MachineError::Restart(_),
        )
        | RunError::NotArmed
        | RunError::SwitchedOver
        | RunError::Defect { .. }
        | RunError::Other { .. } => Status::Failure,
    }
}

fn run_hint(error: &RunError) -> Option<&'static str> {
    match error {
        RunError::Image {
            source: ImageError::Segment { end, limit, .. },
            ..
        } if end > limit => Some("give the guest more memory: --memory-mib"),
        RunError::Image {
            source: ImageError::TooLarge { .. },
            ..
        } => Some("give the guest more memory: --memory-mib"),
        RunError::Image {
            source: ImageError::Modules { .. },
            ..
        } => Some("leave these modules out of the initrd; docs/guests.md"),
        RunError::Image {
            what: GuestFile::Image,
            source:
                ImageError::NotElf { .. }
                | ImageError::Machine { .. }
                | ImageError::Kind { .. }
                | ImageError::Segment { .. }
                | ImageError::Overlap { .. }
                | ImageError::Entry { .. }
                | ImageError::Rewrite { .. },
            ..
        } => Some("`make guests` builds images that Lockstep runs; docs/guest-interface.md says what one is"),
        RunError::OtherType { found, .. } => Some(match found {
            Type::GuestImage => "an image that was written for Lockstep is named without an option",
            Type::BzImage | Type::Vmlinux => {
                "a kernel of Linux is named by --kernel, its initial ramdisk by --initrd"
            }
            Type::Initrd => "an initial ramdisk is named by --initrd, beside --kernel",
            Type::Module => "a module belongs into the initial ramdisk; docs/guests.md",
        }),
        RunError::Image { .. } => Some(
            "`lockstep inspect FILE` says what a file is; docs/guests.md has the kernels and initrds that can be used",
        ),
        RunError::Disk(error) => error.hint(),
        RunError::Host(error) => host_hint(error),
        RunError::DiskFails { .. } => Some(
            "mend the disk of this host and start this side again: it joins, and its image is made the holder's",
        ),
        RunError::NotDurable => Some(
            "look at the host's disk first; `lockstep disk check IMAGE` says whether an image can be used",
        ),
        RunError::NoIoUring { .. } => {
            Some("leave aio out of --disk, or say aio=threads: threads do the same")
        }
        RunError::Mismatch { .. } => {
            Some("both sides must run the same lockstep, guest image and machine settings")
        }
        RunError::Peer(why) if differs_in_build(why.as_ref()) => Some(
            "a machine keeps the build of Lockstep with which it began: start this side with that one; docs/upgrading.md",
        ),
        RunError::Log(LogError::Exists { .. }) => Some("--overwrite replaces it"),
        RunError::NoSnapshot { .. } => Some(
            "without --from the replay begins with the recording; `lockstep record --snapshot-every` writes snapshots, `lockstep log info` lists them",
        ),
        RunError::Snapshot { .. } => Some(
            "the log does not need it: without --from the replay begins with the recording; removed, it is in nobody's way",
        ),
        RunError::SnapshotDisks { .. } => Some(
            "snapshots before it do not need it, and the log does not either: --from an earlier entry, or leave --from out; for `verify`, remove the snapshots from there on",
        ),
        RunError::Machine(MachineError::Door(DoorError::Diverged(_))) => {
            Some("`lockstep log dump LOG` shows the entries; keep the log: it is the evidence")
        }
        RunError::BackupDiverged { kept: Some(_), .. } => Some(
            "a backup keeps no log: this report, with the entries before it, is the evidence; the machine runs on without this side",
        ),
        RunError::BackupDiverged { kept: None, .. } => Some(
            "a backup keeps no log, and the report is in no file: keep these lines; the machine runs on without this side",
        ),
        _ => None,
    }
}

/// True where the two sides are not of the same version, or not of the same build.
fn differs_in_build(why: &(dyn std::error::Error + 'static)) -> bool {
    let fields = [BUILD_FIELD, "software version", "log format version"];
    matches!(
        why.downcast_ref(),
        Some(HandshakeError::Differs { field, .. }) if fields.contains(&field.as_str())
    )
}

fn host_hint(error: &HostError) -> Option<&'static str> {
    match error {
        error if error.is_of_kvm_itself() => Some(
            "the lab needs no KVM: in Lockstep's sources, `make lab-demo` and `make lab-test` use Debian's in QEMU",
        ),
        HostError::Property { user, .. } if user == KERNEL_OPTION => Some(
            "`lockstep doctor` shows what this host offers; in Lockstep's sources, `make lab-linux` runs Linux guests on Debian's KVM in QEMU",
        ),
        HostError::Property { .. } => Some(
            "`lockstep doctor` shows what this host offers; --requalify measures it anew; without --clock and --window-exits less is needed",
        ),
        _ => None,
    }
}

/// Status of a network error: a link that cannot be attached is configured wrongly; one that fails
/// later is a failure.
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

fn snapshot_status(error: &SnapshotError) -> Status {
    match error {
        SnapshotError::Read(_) | SnapshotError::Missing { .. } => Status::Configuration,
        error if error.is_mismatch() => Status::Mismatch,
        _ => Status::DamagedLog,
    }
}

fn door_status(error: &DoorError) -> Status {
    match error {
        DoorError::Diverged(_) => Status::Divergence,
        DoorError::Fenced => Status::Fenced,
        DoorError::Log(error) => log_status(error),
        DoorError::Exhausted | DoorError::Part { .. } => Status::DamagedLog,
        // A live machine that is stopped has ended well; what comes here is a replay that has not
        // seen the end of its log.
        DoorError::Stopped | DoorError::Host { .. } | DoorError::WrongAnswer { .. } => Status::Failure,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_core::machine::divergence::Divergence;
    use lockstep_logging_channel::{ExecutionPoint, Sequence};
    use std::io::{Error, ErrorKind};

    fn closed() -> Error {
        ErrorKind::BrokenPipe.into()
    }

    #[test]
    fn a_host_that_runs_no_kernel_leads_to_the_lab() {
        let lacks = |user: &str| HostError::Property {
            property: "kernel instructions in ring 0".to_owned(),
            user: user.to_owned(),
            judgement: "no",
            seen: String::new(),
        };
        assert!(
            host_hint(&lacks(KERNEL_OPTION))
                .unwrap()
                .contains("make lab-linux")
        );
        assert!(!host_hint(&lacks("every guest")).unwrap().contains("lab-linux"));
    }

    #[test]
    fn what_fails_while_it_runs_is_no_configuration() {
        let attachment = "switch:/run/switch".to_owned();
        let socket = PathBuf::from("/run/switch");
        let failures = [
            RunError::Network(NetworkError::Closed {
                attachment: attachment.clone(),
            }),
            RunError::Network(NetworkError::Broken {
                attachment,
                source: closed(),
            }),
            RunError::Defect {
                what: "the vCPU thread ended without an outcome".to_owned(),
            },
        ];
        for failure in failures {
            assert_eq!(run_status(&failure), Status::Failure, "{failure}");
        }
        let switch = CommandError::Switch(SwitchError::Runtime { source: closed() });
        assert_eq!(switch.status(), Status::Failure, "{switch}");
        let absent = NetworkError::SwitchAbsent {
            socket,
            source: closed(),
        };
        assert_eq!(run_status(&RunError::Network(absent)), Status::Configuration);
    }

    #[test]
    fn a_side_of_another_build_is_told_which_one_it_needs() {
        let differs = |field: &str| {
            RunError::Peer(Box::new(HandshakeError::Differs {
                field: field.to_owned(),
                primary: None,
                backup: None,
            }))
        };
        for field in [BUILD_FIELD, "software version"] {
            let hint = run_hint(&differs(field)).unwrap();
            assert!(hint.contains("keeps the build"), "{hint}");
        }
        assert_eq!(run_hint(&differs("window in bytes")), None);
        assert_eq!(run_status(&differs(BUILD_FIELD)), Status::Mismatch);
    }

    #[test]
    fn a_backup_that_diverged_is_told_of_its_report_and_of_no_log() {
        let divergence = Divergence {
            sequence: Sequence(7),
            recorded_at: ExecutionPoint::default(),
            found_at: ExecutionPoint::default(),
            part: "registers".to_owned(),
            device: None,
            devices: Vec::new(),
            expected: "1".to_owned(),
            found: "2".to_owned(),
            before: Vec::new(),
        };
        let of_a_pair = |kept: Option<&str>| RunError::BackupDiverged {
            divergence: Box::new(divergence.clone()),
            kept: kept.map(PathBuf::from),
        };
        let offline = DoorError::Diverged(Box::new(divergence.clone()));
        let offline = RunError::Machine(MachineError::Door(offline));
        assert!(run_hint(&offline).unwrap().contains("log dump LOG"));
        for error in [of_a_pair(None), of_a_pair(Some("/shared/web/divergence-1"))] {
            assert_eq!(run_status(&error), Status::Divergence);
            assert!(!run_hint(&error).unwrap().contains("LOG"), "{error}");
        }
        let text = of_a_pair(Some("/shared/web/divergence-1")).to_string();
        assert!(
            text.ends_with("this report is kept as /shared/web/divergence-1"),
            "{text}"
        );
    }

    #[test]
    fn headlines_name_the_thing() {
        let log = PathBuf::from("/tmp/log");
        let headline = RunError::Log(LogError::Exists { path: log }).to_string();
        assert!(headline.contains("/tmp/log"), "{headline}");
        let door = DoorError::Log(LogError::CutOff {
            path: PathBuf::from("/tmp/log"),
            offset: 1,
            entries: 0,
            partial_bytes: 1,
        });
        let headline = RunError::Machine(MachineError::Door(door)).to_string();
        assert!(headline.contains("/tmp/log"), "{headline}");
    }
}
