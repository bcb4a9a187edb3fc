//! Why a saved state is refused.

use crate::machine::cpu::CpuError;
use crate::machine::devices::saved::DeviceError;
use crate::machine::memory::MemoryError;
use lockstep_logging_channel::DeviceId;

/// Why a saved state is refused. Nothing is built from a refused one.
#[derive(Debug, thiserror::Error)]
pub enum SavedError {
    /// Something else.
    #[error("this is not a saved state: it begins with other bytes")]
    Foreign,
    /// Of another release.
    #[error("the saved state has format version {found}; this program reads version {known}")]
    Version {
        /// Its version.
        found: u16,
        /// The one that is read here.
        known: u16,
    },
    /// Not all of it is there.
    #[error("the saved state was cut short: it ends in its {section}")]
    Cut {
        /// Name of the section in which it ends.
        section: &'static str,
    },
    /// Bytes were changed.
    #[error("the saved state is damaged in its {section}: the digest does not match")]
    Damaged {
        /// Name of the damaged section.
        section: &'static str,
    },
    /// A section that this program does not know.
    #[error("the saved state has a section of kind {kind}, which this program does not know")]
    UnknownSection {
        /// Its kind.
        kind: u16,
    },
    /// A section where it cannot be.
    #[error("the saved state has its {section} in the wrong place")]
    Order {
        /// Which.
        section: &'static str,
    },
    /// A section of a length that it cannot have.
    #[error("the saved state has {bytes} bytes in its {section}, which has {bytes_max} at most")]
    Length {
        /// Which.
        section: &'static str,
        /// Its length.
        bytes: u64,
        /// The greatest length.
        bytes_max: u64,
    },
    /// A section that has no such form.
    #[error("the {section} of the saved state cannot be decoded")]
    Malformed {
        /// Which.
        section: &'static str,
    },
    /// A change of a disk that cannot be made.
    #[error("{device} is no disk of this machine's own that can be changed so")]
    Change {
        /// The device.
        device: DeviceId,
    },
    /// Of a machine of another size.
    #[error("the saved state is of a machine with {found} bytes of memory; this one has {expected}")]
    MemorySize {
        /// Bytes of the saved machine.
        found: u64,
        /// Bytes of this one.
        expected: u64,
    },
    /// A page that is not in the memory, or not in its turn.
    #[error("the saved state has memory page {index}, which is out of range or out of order")]
    Page {
        /// Its ordinal.
        index: u64,
    },
    /// A rewritten instruction that cannot be.
    #[error("the saved state has a rewritten instruction at {address:#x} that cannot be one")]
    Site {
        /// Its address.
        address: u64,
    },
    /// A position that cannot be.
    #[error("the saved state is at a position that cannot be: {why}")]
    Position {
        /// The reason.
        why: &'static str,
    },
    /// A device.
    #[error("a device of the saved state cannot be restored")]
    Device(#[from] DeviceError),
    /// The vCPU.
    #[error("the vCPU of the saved state cannot be restored")]
    Cpu(#[from] CpuError),
    /// No memory.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The source failed.
    #[error("the saved state cannot be read")]
    Read(#[source] std::io::Error),
}
