//! Why a snapshot is refused.

use crate::replica::transfer::TransferError;

/// Why a snapshot is refused. Nothing is built from a refused one.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// Something else.
    #[error("it is not a snapshot: it begins with other bytes")]
    Foreign,
    /// Something else, where the disks of a snapshot are wanted.
    #[error("it does not have the disks of a snapshot: it begins with other bytes")]
    ForeignDisks,
    /// The disks of a snapshot are not there.
    #[error("it is missing: the snapshot that begins with entry {needed_by} needs what it has of the disks")]
    Missing {
        /// First entry of the snapshot that needs it.
        needed_by: u64,
    },
    /// The disks before those of a later snapshot are others.
    #[error("it is not the file after which that of the snapshot of entry {needed_by} was written")]
    OtherBefore {
        /// First entry of the later snapshot.
        needed_by: u64,
    },
    /// A block that is not on the machine's disks.
    #[error("it is damaged: the machine has no block {block} on a disk {disk}")]
    NoSuchBlock {
        /// Place of the disk.
        disk: u8,
        /// Number of the block.
        block: u64,
    },
    /// Of a later release.
    #[error("it has format version {found}; this program reads version {known}")]
    Version {
        /// Its version.
        found: u16,
        /// The one that is read here.
        known: u16,
    },
    /// Not all of it is there.
    #[error("it was cut short: it ends in its {part}")]
    Cut {
        /// The part in which it ends.
        part: &'static str,
    },
    /// Bytes were changed.
    #[error("it is damaged: the digest of its {part} does not match")]
    Damaged {
        /// The damaged part.
        part: &'static str,
    },
    /// A field of the header that has another value in the machine.
    #[error("it is damaged: its {field} is {header} in its header and {machine} in its machine")]
    Contradiction {
        /// The field.
        field: &'static str,
        /// Its value in the header.
        header: u64,
        /// Its value in the machine.
        machine: u64,
    },
    /// Under the name of another.
    #[error("its name is that of another snapshot: it begins with entry {entry}")]
    Misnamed {
        /// Its first entry.
        entry: u64,
    },
    /// A frame of a length that it cannot have.
    #[error("it is damaged: a frame has {bytes} bytes where {bytes_max} are possible")]
    Frame {
        /// Its length.
        bytes: u64,
        /// The greatest length.
        bytes_max: u64,
    },
    /// More bytes than the header says.
    #[error("it is damaged: it goes on behind its end")]
    BehindEnd,
    /// The machine in it.
    #[error("it is damaged: its machine is refused")]
    Machine(#[from] TransferError),
    /// Of another recording.
    #[error("it is of another recording: {found}, not {expected}")]
    OtherRecording {
        /// Name of its recording.
        found: String,
        /// Name of the recording to be replayed.
        expected: String,
    },
    /// Of another machine under the name of this recording.
    #[error("it is of another machine: its environment differs from the recording's")]
    OtherMachine,
    /// Of a machine of another size.
    #[error("it is of a machine with {found} bytes of memory; this one has {expected}")]
    MemorySize {
        /// Bytes of its machine.
        found: u64,
        /// Bytes of this machine.
        expected: u64,
    },
    /// The source failed.
    #[error("it cannot be read")]
    Read(#[source] std::io::Error),
}

impl SnapshotError {
    /// True where the file may be sound, and does not belong here.
    #[must_use]
    pub fn is_mismatch(&self) -> bool {
        matches!(
            self,
            Self::Version { .. } | Self::OtherRecording { .. } | Self::OtherMachine | Self::MemorySize { .. }
        )
    }
}
