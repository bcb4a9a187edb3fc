//! The state a guest is entered in: page tables, descriptor table, boot information
//! (docs/guest-interface.md).
//!
//! ```text
//!   0x1000 GDT   0x2000 PML4   0x3000 PDPT   0x4000..0x8000 four page directories
//!   0x8000 boot information    0x9000 command line    0xa000..0xb000 first stack
//! ```
//!
//! Page-table entries: Intel SDM volume 3A, 4.5. Accessed and dirty are set beforehand, so that
//! walking never writes.

use super::memory::{self, Memory, PAGE_BYTES};
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

/// Address of the descriptor table.
pub const GDT_ADDRESS: u64 = 0x1000;
/// Flat descriptors: null, 64-bit code, data.
pub const GDT: [u64; 3] = [0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff];
/// Address of the top-level page table: CR3.
pub const PAGE_TABLE_ADDRESS: u64 = 0x2000;
/// Top of the first stack.
pub const STACK_TOP: u64 = 0xb000;
/// Address of the boot information: RDI at entry.
pub const INFORMATION_ADDRESS: u64 = 0x8000;
/// CR0: PE, MP, ET, NE, WP, PG.
pub const CR0: u64 = 1 | 1 << 1 | 1 << 4 | 1 << 5 | 1 << 16 | 1 << 31;
/// CR4: PAE, OSFXSR, OSXMMEXCPT.
pub const CR4: u64 = 1 << 5 | 1 << 9 | 1 << 10;
/// EFER: SCE, LME, LMA.
pub const EFER: u64 = 1 | 1 << 8 | 1 << 10;

const POINTER_TABLE_ADDRESS: u64 = 0x3000;
const DIRECTORY_ADDRESS: u64 = 0x4000;
const DIRECTORIES: u64 = 4;
const ENTRIES: u64 = 512;
const LARGE_PAGE_BYTES: u64 = 2 << 20;
const COMMAND_LINE_ADDRESS: u64 = 0x9000;
/// The longest command line: one page.
pub const COMMAND_LINE_BYTES_MAX: usize = 4096;
/// Present, writable, user, accessed, dirty.
const PAGE_FLAGS: u64 = 1 | 1 << 1 | 1 << 2 | 1 << 5 | 1 << 6;
const LARGE: u64 = 1 << 7;
const MAGIC: u64 = u64::from_le_bytes(*b"LOCKSTEP");
const VERSION: u32 = 1;

/// Why the boot structures could not be written.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// Longer than its page.
    #[error("the guest command line has {bytes} bytes; {COMMAND_LINE_BYTES_MAX} is the most")]
    CommandLine {
        /// Its length.
        bytes: usize,
    },
    /// Guest memory ends before them.
    #[error("guest memory does not hold the boot structures")]
    Memory(#[from] GuestMemoryError),
}

/// Writes the boot structures.
///
/// # Errors
/// [`BootError`].
pub fn write(memory: &Memory, command_line: &str, tsc_khz: u32) -> Result<(), BootError> {
    if command_line.len() > COMMAND_LINE_BYTES_MAX {
        return Err(BootError::CommandLine {
            bytes: command_line.len(),
        });
    }
    write_words(memory, GDT_ADDRESS, &GDT)?;
    write_page_tables(memory)?;
    memory.write_slice(command_line.as_bytes(), GuestAddress(COMMAND_LINE_ADDRESS))?;
    let information = [
        MAGIC,
        u64::from(VERSION) | u64::from(tsc_khz) << 32,
        memory::size_bytes(memory),
        COMMAND_LINE_ADDRESS,
        command_line.len() as u64,
    ];
    write_words(memory, INFORMATION_ADDRESS, &information)?;
    Ok(())
}

fn write_page_tables(memory: &Memory) -> Result<(), GuestMemoryError> {
    write_words(memory, PAGE_TABLE_ADDRESS, &[POINTER_TABLE_ADDRESS | PAGE_FLAGS])?;
    for directory in 0..DIRECTORIES {
        let address = DIRECTORY_ADDRESS + directory * PAGE_BYTES;
        write_words(
            memory,
            POINTER_TABLE_ADDRESS + directory * 8,
            &[address | PAGE_FLAGS],
        )?;
        let first = directory * ENTRIES;
        let entries: Vec<u64> = (first..first + ENTRIES)
            .map(|page| (page * LARGE_PAGE_BYTES) | PAGE_FLAGS | LARGE)
            .collect();
        write_words(memory, address, &entries)?;
    }
    Ok(())
}

fn write_words(memory: &Memory, address: u64, words: &[u64]) -> Result<(), GuestMemoryError> {
    let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    memory.write_slice(&bytes, GuestAddress(address))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(memory: &Memory, address: u64, count: u64) -> Vec<u64> {
        (0..count)
            .map(|index| memory.read_obj(GuestAddress(address + 8 * index)).unwrap())
            .collect()
    }

    fn booted() -> Memory {
        let memory = memory::allocate(memory::MEMORY_BYTES_MIN).unwrap();
        write(&memory, "a b", 1_000_000).unwrap();
        memory
    }

    #[test]
    fn walking_the_page_tables_never_writes_to_them() {
        const ACCESSED_DIRTY: u64 = 1 << 5 | 1 << 6;
        let memory = booted();
        let tables = [
            (PAGE_TABLE_ADDRESS, 1),
            (POINTER_TABLE_ADDRESS, 4),
            (DIRECTORY_ADDRESS, DIRECTORIES * ENTRIES),
        ];
        let entries = tables
            .into_iter()
            .flat_map(|(address, count)| words(&memory, address, count));

        assert!(
            entries
                .into_iter()
                .all(|entry| entry & ACCESSED_DIRTY == ACCESSED_DIRTY)
        );
    }

    #[test]
    fn the_first_4_gib_are_where_they_are() {
        let memory = booted();
        let pages = words(&memory, DIRECTORY_ADDRESS, DIRECTORIES * ENTRIES);

        assert!(
            pages
                .iter()
                .zip(0..)
                .all(|(entry, page)| entry & !0xfff == page * LARGE_PAGE_BYTES)
        );
    }

    #[test]
    fn the_boot_information_says_where_the_command_line_is() {
        let memory = booted();

        let [magic, version, memory_bytes, text, text_bytes] =
            words(&memory, INFORMATION_ADDRESS, 5).try_into().unwrap();
        assert_eq!((magic.to_le_bytes(), version & 0xffff_ffff), (*b"LOCKSTEP", 1));
        assert_eq!(
            (version >> 32, memory_bytes),
            (1_000_000, memory::MEMORY_BYTES_MIN)
        );
        assert_eq!(words(&memory, text, 1), [u64::from_le_bytes(*b"a b\0\0\0\0\0")]);
        assert_eq!(text_bytes, 3);
    }

    #[test]
    fn a_command_line_longer_than_its_page_is_refused() {
        let memory = memory::allocate(memory::MEMORY_BYTES_MIN).unwrap();

        assert!(write(&memory, &"x".repeat(COMMAND_LINE_BYTES_MAX), 0).is_ok());
        let refused = write(&memory, &"x".repeat(COMMAND_LINE_BYTES_MAX + 1), 0);
        assert!(matches!(refused, Err(BootError::CommandLine { bytes: 4097 })));
    }
}
