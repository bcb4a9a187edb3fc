//! Port input and output from ring 3.
#![allow(unsafe_code)]

use core::arch::asm;

/// Reads the byte at `port`.
#[must_use]
pub fn read_u8(port: u16) -> u8 {
    let value: u8;
    // SAFETY: ports reach devices, and no device of this machine changes the guest's memory by being read.
    unsafe { asm!("in al, dx", in("dx") port, out("al") value, options(nostack, preserves_flags)) };
    value
}

/// Reads the four bytes at `port`.
#[must_use]
pub fn read_u32(port: u16) -> u32 {
    let value: u32;
    // SAFETY: as in `read_u8`.
    unsafe { asm!("in eax, dx", in("dx") port, out("eax") value, options(nostack, preserves_flags)) };
    value
}

/// Writes a byte to `port`.
pub fn write_u8(port: u16, value: u8) {
    // SAFETY: no device of this machine changes memory that the program did not hand to it.
    unsafe { asm!("out dx, al", in("dx") port, in("al") value, options(nostack, preserves_flags)) };
}

/// Writes four bytes to `port`.
pub fn write_u32(port: u16, value: u32) {
    // SAFETY: as in `write_u8`.
    unsafe { asm!("out dx, eax", in("dx") port, in("eax") value, options(nostack, preserves_flags)) };
}
