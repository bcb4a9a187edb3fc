//! Why an image is refused.

/// Images live at or above this address; boot structures below.
pub const IMAGE_ADDRESS_MIN: u64 = 1 << 20;

/// Why an image cannot be run.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
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
    /// Neither an ELF file nor a Linux kernel of a kind that is known.
    #[error("it is neither a Linux bzImage nor an ELF file: it begins with {first}")]
    UnknownImage {
        /// Its first bytes, in hexadecimal.
        first: String,
    },
    /// A kernel for another processor.
    #[error("it is a Linux kernel for {architecture}, not for x86-64")]
    Architecture {
        /// Name of the architecture.
        architecture: &'static str,
    },
    /// A kernel that has no 64-bit entry.
    #[error("it is a 32-bit Linux kernel: its setup header does not offer a 64-bit entry")]
    Kernel32,
    /// A kernel that is too old.
    #[error(
        "its boot protocol is {}.{:02}: 2.12 (Linux 3.8) is the oldest that is supported",
        version >> 8, version & 0xff
    )]
    Protocol {
        /// Protocol version of the setup header.
        version: u16,
    },
    /// The setup header contradicts itself.
    #[error("its setup header is damaged: {why}")]
    SetupHeader {
        /// Description of the defect.
        why: &'static str,
    },
    /// The file ends too early.
    #[error("it is cut off: {what} ends at byte {needs}, and the file has {has}")]
    Truncated {
        /// Description of the missing part.
        what: &'static str,
        /// Bytes that the file should have.
        needs: u64,
        /// Bytes that it has.
        has: u64,
    },
    /// A payload that nobody here can decompress.
    #[error(
        "its payload is of an unknown kind: it begins with {first}; gzip, xz, zstd, LZ4 and ELF are known"
    )]
    Payload {
        /// Its first bytes, in hexadecimal.
        first: String,
    },
    /// A payload in a format that is known by name only.
    #[error("its payload is compressed with {format}; gzip, xz, zstd and LZ4 are supported")]
    PayloadFormat {
        /// Name of the format.
        format: &'static str,
    },
    /// Compressed bytes that are damaged.
    #[error("its {format} data cannot be decompressed: {why}")]
    Decompress {
        /// Name of the format.
        format: &'static str,
        /// Description of the defect.
        why: String,
    },
    /// A payload of another size than it declares.
    #[error("its payload declares {declared} bytes and decompresses to {found}")]
    PayloadSize {
        /// Size that the payload's last four bytes declare.
        declared: u64,
        /// Size that was found.
        found: u64,
    },
    /// A kernel without section headers: nothing says which of its bytes are instructions.
    #[error("its ELF file has no section headers for code: which bytes are instructions is not known")]
    NoSections,
    /// A kernel in whose entry text no return from interrupts was found.
    #[error("its entry code has no IRETQ: a program's RDTSC could not be answered")]
    NoInterruptReturn,
    /// A kernel that guest memory does not hold.
    #[error("it needs {needs} bytes of guest memory, and {limit} are the most it can have")]
    TooLarge {
        /// Bytes from address 0 to its end, or its decompressed size if that is larger.
        needs: u64,
        /// The limit.
        limit: u64,
    },
    /// An initial RAM disk that is damaged.
    #[error("the initrd is damaged at byte {at} of its archive {archive}: {why}")]
    Initrd {
        /// Ordinal of the archive, from 1: an initrd may be several in a row.
        archive: u64,
        /// Offset in that archive, decompressed.
        at: u64,
        /// Description of the defect.
        why: String,
    },
    /// A module whose instructions would not exit.
    #[error("the module has instructions that tell of the host, and modules are not rewritten: {sites}")]
    ModuleSites {
        /// Number of each kind.
        sites: String,
    },
    /// Modules in an initrd whose instructions would not exit, or that cannot be read.
    #[error(
        "the initrd has {} with instructions that tell of the host: {}{}",
        plural(*count, "kernel module"), modules.join(", "), more(*count, modules.len())
    )]
    Modules {
        /// Number of them.
        count: u64,
        /// Path and sites of the first ones.
        modules: Vec<String>,
    },
}

fn more(count: u64, named: usize) -> String {
    match count.saturating_sub(named as u64) {
        0 => String::new(),
        more => format!(", and {more} more"),
    }
}

fn plural(count: u64, noun: &str) -> String {
    let end = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{end}")
}

/// The first bytes of a file, for a person.
#[must_use]
pub fn first_bytes(bytes: &[u8]) -> String {
    /// As many as tell one format from another.
    const SHOWN: usize = 8;
    if bytes.is_empty() {
        return "nothing: it is empty".to_owned();
    }
    let shown: Vec<String> = bytes
        .iter()
        .take(SHOWN)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    shown.join(" ")
}
