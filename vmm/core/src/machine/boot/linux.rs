//! The 64-bit protocol of Linux: the zero page, the command line and the initial ramdisk
//! (Documentation/arch/x86/boot.rst, "64-bit Boot Protocol").
//!
//! ```text
//!   0x500 GDT   0x7000 zero page   0x8000..0x9000 first stack
//!   0x9000 PML4   0xa000 PDPT   0xb000..0xf000 four page directories   0x20000 command line
//!   0x9fc00..0x100000 reserved (ACPI tables)   1 MiB kernel …   … initial ramdisk, at the end of memory
//! ```

mod command_line;

pub use command_line::{Contradiction, DEFAULTS, complete};

use super::{BootError, PageTables, write_words};
use crate::machine::cpu::registers::Descriptors;
use crate::machine::cpu::{EntryState, Registers};
use crate::machine::image::linux::LoadedKernel;
use crate::machine::memory::{self, Memory, PAGE_BYTES};
use linux_loader::configurator::linux::LinuxBootConfigurator;
use linux_loader::configurator::{BootConfigurator, BootParams};
use linux_loader::loader::bootparam::{boot_e820_entry, boot_params};
use vm_memory::{ByteValued, Bytes, GuestAddress};

const GDT_ADDRESS: u64 = 0x500;
/// Flat descriptors where the protocol wants them: code at 0x10, data at 0x18.
const GDT: [u64; 4] = [0, 0, 0x00af_9b00_0000_ffff, 0x00cf_9300_0000_ffff];
const ZERO_PAGE_ADDRESS: u64 = 0x7000;
const STACK_TOP: u64 = 0x9000;
const PAGE_TABLES: PageTables = PageTables {
    root: 0x9000,
    pointers: 0xa000,
    directories: 0xb000,
};
const COMMAND_LINE_ADDRESS: u64 = 0x2_0000;
/// Longer than any kernel takes; its own limit is in its header.
const COMMAND_LINE_BYTES_MAX: usize = 4096;
/// First address that is not ordinary memory below 1 MiB.
const RESERVED_ADDRESS: u64 = 0x9_fc00;
/// First address behind what is reserved.
const HIGH_ADDRESS: u64 = 0x10_0000;
/// The initial ramdisk lies below: kernels name no higher limit.
const INITRD_END_MAX: u64 = 0x8000_0000;

/// Word at which Linux says how it restarts (arch/x86/kernel/reboot.c).
pub const RESTART_WORD_ADDRESS: u64 = 0x472;
/// Its value for a warm restart. By the default command line only a panic asks for one.
pub const WARM: u16 = 0x1234;

/// CR0: PE, MP, ET, NE, WP, AM, PG.
const CR0: u64 = 0x8005_0033;
/// CR4: PAE.
const CR4: u64 = 1 << 5;
/// EFER: LME, LMA.
const EFER: u64 = 1 << 8 | 1 << 10;

/// Type of a loader without a number of its own.
const LOADER_UNDEFINED: u8 = 0xff;
/// `loadflags`: the kernel is at 1 MiB or above.
const LOADED_HIGH: u8 = 1;
const E820_RAM: u32 = 1;
const E820_RESERVED: u32 = 2;

/// Writes the boot structures and the initial ramdisk, which may be empty, and gives the state in
/// which `kernel` is entered. ACPI's root is at `acpi_address`.
///
/// # Errors
/// [`BootError`].
pub fn write(
    memory: &Memory,
    kernel: &LoadedKernel,
    initrd: &[u8],
    command_line: &str,
    acpi_address: u64,
) -> Result<EntryState, BootError> {
    let mut parameters = boot_params::default();
    let header = parameters.hdr.as_mut_slice();
    for (to, from) in header.iter_mut().zip(&kernel.setup_header) {
        *to = *from;
    }
    let max = match parameters.hdr.cmdline_size as usize {
        0 => COMMAND_LINE_BYTES_MAX - 1,
        limit => limit.min(COMMAND_LINE_BYTES_MAX - 1),
    };
    let bytes = command_line.len();
    if bytes > max {
        return Err(BootError::CommandLine { bytes, max });
    }
    write_words(memory, GDT_ADDRESS, &GDT)?;
    PAGE_TABLES.write(memory)?;
    let terminated = [command_line.as_bytes(), &[0]].concat();
    memory.write_slice(&terminated, GuestAddress(COMMAND_LINE_ADDRESS))?;
    let initrd_address = place_initrd(memory, kernel, initrd)?;
    memory.write_slice(initrd, GuestAddress(initrd_address))?;
    parameters.hdr.type_of_loader = LOADER_UNDEFINED;
    parameters.hdr.loadflags |= LOADED_HIGH;
    parameters.hdr.cmd_line_ptr = COMMAND_LINE_ADDRESS as u32;
    if !initrd.is_empty() {
        parameters.hdr.ramdisk_image = initrd_address as u32;
        parameters.hdr.ramdisk_size = initrd.len() as u32;
    }
    parameters.acpi_rsdp_addr = acpi_address;
    let ranges = [
        (0, RESERVED_ADDRESS, E820_RAM),
        (RESERVED_ADDRESS, HIGH_ADDRESS, E820_RESERVED),
        (HIGH_ADDRESS, memory::size_bytes(memory), E820_RAM),
    ];
    parameters.e820_entries = ranges.len() as u8;
    for (entry, (from, to, r#type)) in parameters.e820_table.iter_mut().zip(ranges) {
        *entry = boot_e820_entry {
            addr: from,
            size: to - from,
            r#type,
        };
    }
    let parameters = BootParams::new(&parameters, GuestAddress(ZERO_PAGE_ADDRESS));
    LinuxBootConfigurator::write_bootparams(&parameters, memory).map_err(|_| BootError::ZeroPage)?;
    Ok(entry_state(kernel.entry))
}

/// Address of an initial ramdisk at the end of memory, as far as kernels reach.
fn place_initrd(memory: &Memory, kernel: &LoadedKernel, initrd: &[u8]) -> Result<u64, BootError> {
    let bytes = initrd.len() as u64;
    let end = memory::size_bytes(memory).min(INITRD_END_MAX);
    let address = end.saturating_sub(bytes) / PAGE_BYTES * PAGE_BYTES;
    if bytes > end || address < kernel.end {
        return Err(BootError::Initrd {
            bytes,
            room: end.saturating_sub(kernel.end),
        });
    }
    Ok(address)
}

fn entry_state(entry: u64) -> EntryState {
    EntryState {
        registers: Registers {
            rip: entry,
            rsp: STACK_TOP,
            rsi: ZERO_PAGE_ADDRESS,
            rflags: 1 << 1,
            ..Registers::default()
        },
        descriptors: Descriptors {
            address: GDT_ADDRESS,
            limit: (size_of_val(&GDT) - 1) as u16,
            code: 0x10,
            data: 0x18,
        },
        control: [CR0, 0, PAGE_TABLES.root, CR4, EFER],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MEMORY_BYTES: u64 = 8 << 20;

    fn kernel() -> LoadedKernel {
        LoadedKernel {
            entry: 0x20_0000,
            setup_header: vec![0; 0x70],
            end: 0x40_0000,
            ..LoadedKernel::default()
        }
    }

    fn written(initrd: &[u8], command_line: &str) -> Result<(Memory, EntryState), BootError> {
        let memory = memory::allocate(MEMORY_BYTES).unwrap();
        let state = write(&memory, &kernel(), initrd, command_line, 0xe_0000)?;
        Ok((memory, state))
    }

    fn word<T: ByteValued>(memory: &Memory, address: u64) -> T {
        memory.read_obj(GuestAddress(address)).unwrap()
    }

    #[test]
    fn the_zero_page_leads_to_command_line_ramdisk_and_tables() {
        let (memory, state) = written(b"ramdisk", "a=b").unwrap();
        let at = |offset| ZERO_PAGE_ADDRESS + offset;
        assert_eq!(state.registers.rsi, ZERO_PAGE_ADDRESS);
        let line: u32 = word(&memory, at(0x228));
        assert_eq!(word::<[u8; 4]>(&memory, line.into()), *b"a=b\0");
        let (ramdisk, bytes): (u32, u32) = (word(&memory, at(0x218)), word(&memory, at(0x21c)));
        assert_eq!(
            (bytes, word::<[u8; 7]>(&memory, ramdisk.into())),
            (7, *b"ramdisk")
        );
        assert_eq!(word::<u64>(&memory, at(0x70)), 0xe_0000);
        // Memory as the kernel is to know it: address, size, type.
        assert_eq!(word::<u8>(&memory, at(0x1e8)), 3);
        let last = at(0x2d0 + 2 * 20);
        assert_eq!(
            word::<[u64; 2]>(&memory, last),
            [HIGH_ADDRESS, MEMORY_BYTES - HIGH_ADDRESS]
        );
    }

    #[test]
    fn a_ramdisk_that_would_lie_on_the_kernel_is_refused_with_the_room() {
        let room = MEMORY_BYTES - kernel().end;
        assert!(written(&vec![1; room as usize], "").is_ok());
        let why = written(&vec![1; room as usize + 1], "").unwrap_err().to_string();
        assert!(why.contains(&room.to_string()), "{why}");
    }

    #[test]
    fn a_command_line_is_as_long_as_the_kernel_says() {
        let memory = memory::allocate(MEMORY_BYTES).unwrap();
        let mut kernel = kernel();
        // `cmdline_size` is at 0x238.
        kernel.setup_header[0x238 - 0x1f1..][..4].copy_from_slice(&5_u32.to_le_bytes());
        assert!(write(&memory, &kernel, &[], "12345", 0).is_ok());
        let refused = write(&memory, &kernel, &[], "123456", 0);
        assert!(matches!(
            refused,
            Err(BootError::CommandLine { bytes: 6, max: 5 })
        ));
    }
}
