//! Ends of a guest: power off, panic, fault.
#![allow(unsafe_code)]

use crate::{port, println};

const POWER_PORT: u16 = 0xF4;

/// Exit status of a guest that panicked.
pub const STATUS_PANIC: u32 = 101;
/// Exit status of a guest in which an exception happened.
pub const STATUS_FAULT: u32 = 102;
/// Exit status of a guest that found no boot information it understands.
pub const STATUS_NO_BOOT_INFORMATION: u32 = 103;

/// Powers the machine off with `status`.
pub fn off(status: u32) -> ! {
    loop {
        port::write_u32(POWER_PORT, status);
    }
}

/// Where the shim goes on after an exception. Nothing is resumed.
pub(crate) extern "C" fn fault(vector: u64, error: u64, instruction: u64, address: u64) -> ! {
    println!("fault: exception {vector}, error {error:#x}, at {instruction:#x}, address {address:#x}");
    off(STATUS_FAULT)
}

#[cfg(not(test))]
#[panic_handler]
fn panic(information: &core::panic::PanicInfo<'_>) -> ! {
    println!("{information}");
    off(STATUS_PANIC)
}
