//! The first Rust code of a guest: boot information, heap, tables, then the guest's own program.
#![allow(unsafe_code)]

use crate::command_line::CommandLine;
use crate::{interrupts, memory, power};

/// "LOCKSTEP", little-endian.
const MAGIC: u64 = 0x5045_5453_4b43_4f4c;
const VERSION: u32 = 1;

/// Boot information as the loader wrote it.
#[repr(C)]
pub(crate) struct BootInformation {
    magic: u64,
    version: u32,
    tsc_khz: u32,
    memory_bytes: u64,
    command_line: u64,
    command_line_bytes: u64,
}

/// The machine as the program finds it.
#[derive(Debug)]
pub struct Machine {
    /// Frequency of the time-stamp counter, in kHz.
    pub tsc_khz: u32,
    /// RAM, from address 0, in bytes.
    pub memory_bytes: u64,
    /// What the machine was told to tell the guest.
    pub command_line: CommandLine<'static>,
}

unsafe extern "Rust" {
    fn guest_main(machine: &Machine) -> u32;
}

/// Entered from the shim in ring 3, once, on the ring-3 stack.
pub(crate) unsafe extern "C" fn start(information: &'static BootInformation) -> ! {
    if information.magic != MAGIC || information.version != VERSION {
        power::off(power::STATUS_NO_BOOT_INFORMATION);
    }
    memory::claim_heap(information.memory_bytes);
    interrupts::install();
    // SAFETY: the loader put this many bytes there, below the image, where nothing is written.
    let command_line = unsafe {
        core::slice::from_raw_parts(
            information.command_line as *const u8,
            information.command_line_bytes as usize,
        )
    };
    let machine = Machine {
        tsc_khz: information.tsc_khz,
        memory_bytes: information.memory_bytes,
        command_line: CommandLine::new(core::str::from_utf8(command_line).unwrap_or_default()),
    };
    // SAFETY: defined by `guest!` in the image's program, with this signature.
    let status = unsafe { guest_main(&machine) };
    power::off(status)
}
