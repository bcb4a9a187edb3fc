//! Boot protocols: the parts that they have in common.
//!
//! Page-table entries: Intel SDM volume 3A, 4.5. Accessed and dirty are set beforehand, so that
//! walking never writes.

pub mod linux;
pub mod small;

use super::cpu::EntryState;
use super::devices::Devices;
use super::memory::{Memory, PAGE_BYTES};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

/// Why the boot structures could not be written.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// Longer than there is room for.
    #[error("the guest command line has {bytes} bytes; {max} is the most")]
    CommandLine {
        /// Its length.
        bytes: usize,
        /// The greatest length.
        max: usize,
    },
    /// There is no room for the initial ramdisk.
    #[error(
        "the initial ramdisk has {bytes} bytes, and behind the kernel there is room for {room}; more memory helps"
    )]
    Initrd {
        /// Its length.
        bytes: u64,
        /// Bytes that there are.
        room: u64,
    },
    /// Guest memory ends before the zero page.
    #[error("guest memory does not hold the zero page")]
    ZeroPage,
    /// Guest memory ends before them.
    #[error("guest memory does not hold the boot structures")]
    Memory(#[from] GuestMemoryError),
}

/// Puts a guest into memory, again where it restarts itself.
pub trait Firmware: Send {
    /// Writes what the guest begins with into `memory`, which is all zeros, and gives the state in
    /// which it is entered.
    ///
    /// # Errors
    /// Description of what does not fit; never where the same has fitted before.
    fn boot(&self, memory: &Memory) -> Result<EntryState, String>;

    /// The devices, as they are when power comes on.
    ///
    /// # Errors
    /// Description; never for boards that have been made before.
    fn devices(&self) -> Result<Devices, String>;
}

/// Addresses of tables that map the first 4 GiB to where they are, in 2 MiB pages that every ring
/// may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PageTables {
    /// Of the top-level table: CR3.
    pub root: u64,
    /// Of the one below.
    pub pointers: u64,
    /// Of the first of four directories.
    pub directories: u64,
}

const DIRECTORIES: u64 = 4;
const ENTRIES: u64 = 512;
const LARGE_PAGE_BYTES: u64 = 2 << 20;
/// Present, writable, user, accessed, dirty.
const PAGE_FLAGS: u64 = 1 | 1 << 1 | 1 << 2 | 1 << 5 | 1 << 6;
const LARGE: u64 = 1 << 7;

impl PageTables {
    /// Writes them.
    ///
    /// # Errors
    /// Guest memory ends before them.
    pub fn write(&self, memory: &Memory) -> Result<(), GuestMemoryError> {
        let Self {
            root,
            pointers,
            directories,
        } = *self;
        write_words(memory, root, &[pointers | PAGE_FLAGS])?;
        for directory in 0..DIRECTORIES {
            let address = directories + directory * PAGE_BYTES;
            write_words(memory, pointers + directory * 8, &[address | PAGE_FLAGS])?;
            let first = directory * ENTRIES;
            let entries: Vec<u64> = (first..first + ENTRIES)
                .map(|page| (page * LARGE_PAGE_BYTES) | PAGE_FLAGS | LARGE)
                .collect();
            write_words(memory, address, &entries)?;
        }
        Ok(())
    }
}

fn write_words(memory: &Memory, address: u64, words: &[u64]) -> Result<(), GuestMemoryError> {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    memory.write_slice(&bytes, GuestAddress(address))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::memory;

    const TABLES: PageTables = small::PAGE_TABLES;

    fn words(address: u64, count: u64) -> Vec<u64> {
        let memory = memory::allocate(memory::MEMORY_BYTES_MIN).unwrap();
        TABLES.write(&memory).unwrap();
        (0..count)
            .map(|index| memory.read_obj(GuestAddress(address + 8 * index)).unwrap())
            .collect()
    }

    #[test]
    fn walking_the_page_tables_never_writes_to_them() {
        const ACCESSED_DIRTY: u64 = 1 << 5 | 1 << 6;
        let tables = [
            (TABLES.root, 1),
            (TABLES.pointers, 4),
            (TABLES.directories, DIRECTORIES * ENTRIES),
        ];
        let entries = tables
            .into_iter()
            .flat_map(|(address, count)| words(address, count));

        assert!(
            entries
                .into_iter()
                .all(|entry| entry & ACCESSED_DIRTY == ACCESSED_DIRTY)
        );
    }

    #[test]
    fn the_first_4_gib_are_where_they_are() {
        let pages = words(TABLES.directories, DIRECTORIES * ENTRIES);

        assert!(
            pages
                .iter()
                .zip(0..)
                .all(|(entry, page)| entry & !0xfff == page * LARGE_PAGE_BYTES)
        );
    }
}
