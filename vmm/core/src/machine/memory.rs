//! Guest memory: one region from 0, at most [`MEMORY_BYTES_MAX`].
//!
//! Every write through [`vm_memory`] marks its pages: what our own devices write is in no dirty log
//! of KVM's.

use crate::machine::page_set::PageSet;
use lockstep_logging_channel::Digest;
use vm_memory::bitmap::AtomicBitmap;
use vm_memory::{Address, Bytes, GuestAddress, GuestMemoryBackend, GuestMemoryMmap, GuestMemoryRegion};

/// Everything above is for devices.
pub const MEMORY_BYTES_MAX: u64 = 3 << 30;
/// Boot structures and the smallest image need this much.
pub const MEMORY_BYTES_MIN: u64 = 2 << 20;
/// Bytes of a page.
pub const PAGE_BYTES: u64 = 4096;

/// Guest memory as the machine and KVM share it.
pub type Memory = GuestMemoryMmap<AtomicBitmap>;

/// Why there is no guest memory.
#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    /// Size out of range or not whole pages.
    #[error(
        "guest memory of {bytes} bytes: it must be whole 4 KiB pages, {MEMORY_BYTES_MIN} to {MEMORY_BYTES_MAX} bytes"
    )]
    Size {
        /// Bytes asked for.
        bytes: u64,
    },
    /// The host gave none.
    #[error("the host cannot map {bytes} bytes of guest memory: {why}")]
    Map {
        /// Bytes asked for.
        bytes: u64,
        /// The host's answer.
        why: String,
    },
}

/// Maps zeroed guest memory of `bytes` bytes.
///
/// # Errors
/// [`MemoryError`].
pub fn allocate(bytes: u64) -> Result<Memory, MemoryError> {
    if !(MEMORY_BYTES_MIN..=MEMORY_BYTES_MAX).contains(&bytes) || !bytes.is_multiple_of(PAGE_BYTES) {
        return Err(MemoryError::Size { bytes });
    }
    Memory::from_ranges(&[(GuestAddress(0), bytes as usize)]).map_err(|why| MemoryError::Map {
        bytes,
        why: why.to_string(),
    })
}

/// Bytes of guest memory.
#[must_use]
pub fn size_bytes(memory: &Memory) -> u64 {
    memory.iter().map(|region| region.len()).sum()
}

/// Pages that this program has written since it was last asked, the guest's own writes left out.
#[must_use]
pub fn take_written(memory: &Memory) -> PageSet {
    let words = memory
        .iter()
        .next()
        .map(|region| (**region).bitmap().get_and_reset());
    PageSet::from_words(words.unwrap_or_default())
}

/// Digest of all guest memory.
///
/// # Errors
/// Address and reason, where memory cannot be read: nothing stands for what was not seen.
pub fn digest(memory: &Memory) -> Result<Digest, String> {
    let mut hasher = blake3::Hasher::new();
    let mut page = [0; PAGE_BYTES as usize];
    for region in memory.iter() {
        let start = region.start_addr().raw_value();
        for address in (start..start + region.len()).step_by(page.len()) {
            memory
                .read_slice(&mut page, GuestAddress(address))
                .map_err(|why| format!("at {address:#x}: {why}"))?;
            hasher.update(&page);
        }
    }
    Ok(Digest::from_hash(&hasher.finalize()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_marked_once() {
        let memory = allocate(MEMORY_BYTES_MIN).unwrap();
        memory
            .write_slice(&[1; 2], GuestAddress(3 * PAGE_BYTES - 1))
            .unwrap();
        memory
            .write_obj(1_u8, GuestAddress(MEMORY_BYTES_MIN - 1))
            .unwrap();
        memory.read_obj::<u8>(GuestAddress(0)).unwrap();

        let written: Vec<u64> = take_written(&memory).iter().collect();

        assert_eq!(written, [2, 3, MEMORY_BYTES_MIN / PAGE_BYTES - 1]);
        assert!(take_written(&memory).is_empty());
    }

    #[test]
    fn every_byte_counts() {
        let memory = allocate(MEMORY_BYTES_MIN).unwrap();
        let zeros = digest(&memory).unwrap();
        memory
            .write_obj(1_u8, GuestAddress(MEMORY_BYTES_MIN - 1))
            .unwrap();
        assert_ne!(digest(&memory).unwrap(), zeros);
    }

    #[test]
    fn a_page_that_cannot_be_read_whole_is_an_error_and_no_digest() {
        let bytes = (PAGE_BYTES + PAGE_BYTES / 2) as usize;
        let memory = Memory::from_ranges(&[(GuestAddress(0), bytes)]).unwrap();
        let why = digest(&memory).unwrap_err();
        assert!(why.contains("at 0x1000"), "{why}");
    }
}
