//! The protocol of guests that were written for Lockstep: page tables, descriptor table, boot
//! information (docs/guest-interface.md).
//!
//! ```text
//!   0x1000 GDT   0x2000 PML4   0x3000 PDPT   0x4000..0x8000 four page directories
//!   0x8000 boot information    0x9000 command line    0xa000..0xb000 first stack
//! ```

use super::{BootError, PageTables, write_words};
use crate::machine::cpu::registers::Descriptors;
use crate::machine::cpu::{EntryState, Registers};
use crate::machine::memory::{self, Memory};
use vm_memory::{Bytes, GuestAddress};

/// Address of the descriptor table.
pub const GDT_ADDRESS: u64 = 0x1000;
/// Flat descriptors: null, 64-bit code, data.
pub const GDT: [u64; 3] = [0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff];
/// Its page tables.
pub const PAGE_TABLES: PageTables = PageTables {
    root: 0x2000,
    pointers: 0x3000,
    directories: 0x4000,
};
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

const COMMAND_LINE_ADDRESS: u64 = 0x9000;
/// The longest command line: one page.
pub const COMMAND_LINE_BYTES_MAX: usize = 4096;
const MAGIC: u64 = u64::from_le_bytes(*b"LOCKSTEP");
const VERSION: u32 = 1;

/// Writes the boot structures.
///
/// # Errors
/// [`BootError`].
pub fn write(memory: &Memory, command_line: &str, tsc_khz: u32) -> Result<(), BootError> {
    if command_line.len() > COMMAND_LINE_BYTES_MAX {
        return Err(BootError::CommandLine {
            bytes: command_line.len(),
            max: COMMAND_LINE_BYTES_MAX,
        });
    }
    write_words(memory, GDT_ADDRESS, &GDT)?;
    PAGE_TABLES.write(memory)?;
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

/// State in which an image is entered at `entry`.
#[must_use]
pub fn entry_state(entry: u64) -> EntryState {
    EntryState {
        registers: Registers {
            rip: entry,
            rsp: STACK_TOP,
            rdi: INFORMATION_ADDRESS,
            rflags: 1 << 1,
            ..Registers::default()
        },
        descriptors: Descriptors {
            address: GDT_ADDRESS,
            limit: (size_of_val(&GDT) - 1) as u16,
            code: 0x08,
            data: 0x10,
        },
        control: [CR0, 0, PAGE_TABLES.root, CR4, EFER],
    }
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
        assert!(matches!(refused, Err(BootError::CommandLine { bytes: 4097, .. })));
    }
}
