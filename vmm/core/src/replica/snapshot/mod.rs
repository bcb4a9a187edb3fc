//! A snapshot of a recording: a file from which a replay can begin (docs/saved-state.md).
//!
//! ```text
//!   header, 128 bytes | frame, frame, …        frame: length u32 | record of a transfer
//! ```
//!
//! The records are those by which a running machine is sent to a newcomer
//! ([`transfer`](super::transfer)). The header is written last: it has the length and the digest of
//! all frames, so a file without it is not a snapshot. What the machine's disks had then is in a file
//! of its own ([`DisksHeader`]). Whatever a file contains, reading it neither
//! panics nor allocates more than the machine's memory and what the transfer's receiver allows.

mod disks;
mod error;
mod header;
mod reader;
mod state;
#[cfg(test)]
mod tests;
mod writer;

pub use disks::{
    Before, DISK_BLOCK_BYTES, DISKS_HEADER_BYTES, DISKS_VERSION, DiskBlock, DisksHeader, DisksWriter, Found,
    read_bytes, read_disks_header, scan,
};
pub use error::SnapshotError;
pub use header::{HEADER_BYTES, Header, Place};
pub use reader::{Recording, read, read_header};
pub use state::{Boundary, difference, from_the_snapshot};
pub use writer::Writer;

use lockstep_logging_channel::{Digest, Environment};

/// Version of the format. It is raised with the transfer's, whose records the file carries.
pub const VERSION: u16 = 1;
const MAGIC: [u8; 4] = *b"LSNP";
/// Bytes of a frame before its record.
const LENGTH_BYTES: usize = 4;

/// Digest of everything in `environment` that a replay compares: the machine of a recording.
#[must_use]
pub fn machine_digest(environment: &Environment) -> Digest {
    let mut hasher = blake3::Hasher::new();
    for field in &environment.compared {
        for text in [&field.name, &field.value] {
            hasher.update(&(text.len() as u64).to_le_bytes());
            hasher.update(text.as_bytes());
        }
    }
    Digest::from_hash(&hasher.finalize())
}
