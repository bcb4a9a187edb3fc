//! Why an image is refused.

/// Images live at or above this address; boot structures below.
pub const IMAGE_ADDRESS_MIN: u64 = 1 << 20;

/// Why an image cannot be run.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum ImageError {
    /// Not an ELF64 file at all, or a damaged one.
    #[error("it is not a 64-bit ELF image: {why}")]
    NotElf {
        /// Description of the defect.
        why: String,
    },
    /// Built for something else.
    #[error("it is built for ELF machine {machine}, not for x86-64 (62)")]
    Machine {
        /// `e_machine`.
        machine: u16,
    },
    /// A shared object or a relocatable file.
    #[error("it is of ELF type {kind}, not a statically linked executable (2)")]
    Kind {
        /// `e_type`.
        kind: u16,
    },
    /// A segment lies outside guest memory.
    #[error(
        "its segment at {start:#x} to {end:#x} does not fit: guest memory for images is {IMAGE_ADDRESS_MIN:#x} to {limit:#x}"
    )]
    Segment {
        /// First address.
        start: u64,
        /// Address after the last.
        end: u64,
        /// Size of guest memory, in bytes.
        limit: u64,
    },
    /// Two segments claim the same memory.
    #[error("its segments overlap at {address:#x}")]
    Overlap {
        /// First address that both have.
        address: u64,
    },
    /// The entry is in no executable segment.
    #[error("its entry {entry:#x} is in no executable segment, or declared to be data")]
    Entry {
        /// `e_entry`.
        entry: u64,
    },
    /// An instruction that must be rewritten cannot be.
    #[error("its instruction at {address:#x} ({instruction}) cannot be rewritten to exit: {why}")]
    Rewrite {
        /// Its address.
        address: u64,
        /// Description of the instruction.
        instruction: String,
        /// Why it cannot.
        why: &'static str,
    },
}
