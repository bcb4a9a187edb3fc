//! The disks of a snapshot: a file with the blocks that were written since the snapshot before
//! (docs/saved-state.md).
//!
//! ```text
//!   header, 128 bytes | record, record, …      record: head, 32 bytes | bytes of the block
//! ```
//!
//! A file names the one before it by its entry and the digest of its header, so what is read is what
//! was written, back to the beginning of the recording. What no file has is as it was in the base.
//! The header is written last, and has a digest of all heads; a head has one of its bytes. So what is
//! not needed, because a later file or a later record has the same block, is not read.
//!
//! Reading a file neither panics nor allocates more than an entry of a map for each of its records,
//! and the bytes of one block.

mod header;
mod reader;
#[cfg(test)]
mod tests;
mod writer;

pub use header::{Before, DISKS_HEADER_BYTES, DisksHeader};
pub use reader::{Found, read_bytes, read_disks_header, scan};
pub use writer::DisksWriter;

use super::SnapshotError;
use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Version of the format.
pub const DISKS_VERSION: u16 = 1;
const MAGIC: [u8; 4] = *b"LSDK";
/// Bytes of a head.
const HEAD_BYTES: usize = 32;
/// Bytes of a block. The last one of a disk may be shorter.
pub const DISK_BLOCK_BYTES: u64 = 64 << 10;

/// A block of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DiskBlock {
    /// Place of the disk among those of the machine.
    pub disk: u8,
    /// Number of the block.
    pub block: u64,
}

impl DiskBlock {
    /// Bytes that it has on a disk of `size_bytes`; none where it is not there.
    #[must_use]
    pub fn length_on(self, size_bytes: u64) -> Option<u64> {
        let first = self.block.checked_mul(DISK_BLOCK_BYTES)?;
        let left = size_bytes.checked_sub(first).filter(|left| *left > 0)?;
        Some(left.min(DISK_BLOCK_BYTES))
    }
}

/// What is before the bytes of a block, in a file.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RawHead {
    disk: u8,
    reserved: [u8; 3],
    /// Bytes that follow; none where all of the block are zeros.
    length: U32,
    block: U64,
    digest: [u8; 16],
}

const _: () = assert!(size_of::<RawHead>() == HEAD_BYTES);
