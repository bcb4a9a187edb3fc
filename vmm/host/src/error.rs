//! Reasons why a machine cannot be run, alone or as one side of a pair.

use crate::disk::carrying::no_ring::NoRing;
use lockstep_core::machine::MachineError;
use lockstep_core::machine::boot::BootError;
use lockstep_core::machine::boot::linux::Contradiction;
use lockstep_core::machine::divergence::Divergence;
use lockstep_core::machine::image::ImageError;
use lockstep_core::machine::image::inspect::Type;
use lockstep_core::machine::memory::MemoryError;
use lockstep_core::replica::snapshot::SnapshotError;
use lockstep_kvm::HostError;
use lockstep_logging_channel::LogError;
use lockstep_network::NetworkError;
use lockstep_qualify::start::QualifyError;
use lockstep_shared_disk::image::ImageError as DiskImageError;
use std::error::Error;
use std::path::PathBuf;

/// What a file of a guest is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuestFile {
    /// An image of our own convention.
    Image,
    /// A kernel of Linux.
    Kernel,
    /// Its initial ramdisk.
    Initrd,
}

impl std::fmt::Display for GuestFile {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Image => "guest image",
            Self::Kernel => "kernel",
            Self::Initrd => "initial ramdisk",
        })
    }
}

/// Reason why a machine cannot be run, or did not run on.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// A setting is missing or wrong.
    #[error("{setting}: {why}")]
    Setting {
        /// Its name as on the command line.
        setting: String,
        /// The fault, and the way to correct it.
        why: String,
    },
    /// A file cannot be read or written.
    #[error("cannot {action} {}", path.display())]
    File {
        /// The action that was tried.
        action: &'static str,
        /// Its path.
        path: PathBuf,
        /// The system's answer.
        source: std::io::Error,
    },
    /// A file is of another kind than its place on the command line says.
    #[error("{} is not {wanted}: it is {}", path.display(), with_article(found.name()))]
    OtherType {
        /// Its path.
        path: PathBuf,
        /// The kind that was expected, with its article.
        wanted: &'static str,
        /// Its kind.
        found: Type,
    },
    /// A file of the guest cannot be used.
    #[error("{what} {} cannot be used", path.display())]
    Image {
        /// What the file is to be.
        what: GuestFile,
        /// Its path.
        path: PathBuf,
        /// The reason.
        source: ImageError,
    },
    /// A disk image cannot be used.
    #[error(transparent)]
    Disk(#[from] DiskImageError),
    /// The command line asks a kernel for what there is not.
    #[error("the machine cannot be built")]
    CommandLine(#[from] Contradiction),
    /// The machine cannot be built as configured.
    #[error("the machine cannot be built")]
    Memory(#[from] MemoryError),
    /// The machine cannot be built as configured.
    #[error("the machine cannot be built")]
    Boot(#[from] BootError),
    /// A disk cannot have the io_uring that was asked for.
    #[error("{name}: io_uring cannot carry its requests out")]
    NoIoUring {
        /// Its name.
        name: String,
        /// The reason.
        source: NoRing,
    },
    /// A backup has left the machine to its primary, because a disk fails.
    #[error("{disk} fails, and this side has left the machine to its primary: {why}")]
    DiskFails {
        /// Its name.
        disk: String,
        /// The host's error.
        why: String,
    },
    /// A machine has ended, and its disks may lack what its guest has written.
    #[error("what the guest has written to its disks may not be durable: the messages above name them")]
    NotDurable,
    /// The host lacks something.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The network attachment failed.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// The log failed.
    #[error(transparent)]
    Log(#[from] LogError),
    /// A snapshot of a recording cannot be used.
    #[error("snapshot {} cannot be used", path.display())]
    Snapshot {
        /// Its path.
        path: PathBuf,
        /// The reason.
        source: SnapshotError,
    },
    /// A file with the disks of a snapshot cannot be used.
    #[error("{}, with the disks of a snapshot, cannot be used", path.display())]
    SnapshotDisks {
        /// Its path.
        path: PathBuf,
        /// The reason.
        source: SnapshotError,
    },
    /// There is no snapshot at which a replay can begin.
    #[error("from: log {} has no snapshot{wanted}", log.display())]
    NoSnapshot {
        /// The log.
        log: PathBuf,
        /// The limit that was given, in words: empty where any snapshot would do.
        wanted: String,
    },
    /// A log does not have an entry.
    #[error("from: log {} has no entry {entry}: it has {entries}, counted from 0", log.display())]
    NoEntry {
        /// The log.
        log: PathBuf,
        /// The entry.
        entry: u64,
        /// Entries that it has.
        entries: u64,
    },
    /// The machine stopped.
    #[error(transparent)]
    Machine(#[from] MachineError),
    /// The replay of a backup differs from the log, and this side joins no more.
    #[error("divergence: {divergence}{}", kept_as(kept.as_ref()))]
    BackupDiverged {
        /// The report.
        divergence: Box<Divergence>,
        /// File in which it is kept.
        kept: Option<PathBuf>,
    },
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
    Channel(Box<dyn Error + Send + Sync>),
    /// The peer cannot be worked with.
    #[error(transparent)]
    Peer(Box<dyn Error + Send + Sync>),
    /// The machine that was joined is gone, and this side was not its backup yet.
    #[error(
        "the machine that this side was joining was lost before this side was its backup: it may not go on with it"
    )]
    NotArmed,
    /// In a switchover the machine has become the other side's.
    #[error("the machine was handed over to its other side, and this side was not started again")]
    SwitchedOver,
    /// A part of Lockstep itself failed.
    #[error("{what}: this is a defect of Lockstep")]
    Defect {
        /// The event.
        what: String,
    },
    /// Everything else.
    #[error("{what}")]
    Other {
        /// The action that failed.
        what: String,
        /// The reason.
        source: Box<dyn Error + Send + Sync>,
    },
}

fn with_article(name: &str) -> String {
    let article = if name.starts_with(['a', 'e', 'i', 'o']) {
        "an"
    } else {
        "a"
    };
    format!("{article} {name}")
}

fn kept_as(path: Option<&PathBuf>) -> String {
    path.map(|path| format!("\n  this report is kept as {}", path.display()))
        .unwrap_or_default()
}

impl RunError {
    /// A failure without a type of its own.
    pub fn other<E: Error + Send + Sync + 'static>(what: impl Into<String>) -> impl FnOnce(E) -> Self {
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
}

impl From<QualifyError> for RunError {
    fn from(why: QualifyError) -> Self {
        match why {
            QualifyError::Host(lacks) => Self::Host(lacks),
            QualifyError::Thread(source) => Self::other("cannot start the measuring thread")(source),
            QualifyError::NoFinding { .. } => Self::Defect {
                what: why.to_string(),
            },
        }
    }
}
