//! Time: asked for through ports, or read from the clock page, which costs no exit.

use crate::port;
use core::sync::atomic::{AtomicU64, Ordering};

/// Asks for monotonic time, and gives its low half.
pub const MONOTONIC_LOW: u16 = 0x508;
/// The high half of the same answer.
pub const MONOTONIC_HIGH: u16 = 0x50C;
const WALL_LOW: u16 = 0x510;
const WALL_HIGH: u16 = 0x514;
const CLOCK_PAGE: u16 = 0x518;

/// The page whose first 8 bytes the machine writes at every arriving event.
#[repr(C, align(4096))]
struct ClockPage {
    monotonic_ns: AtomicU64,
}

static PAGE: ClockPage = ClockPage {
    monotonic_ns: AtomicU64::new(0),
};

fn read(low: u16, high: u16) -> u64 {
    let low = port::read_u32(low);
    u64::from(low) | u64::from(port::read_u32(high)) << 32
}

/// Monotonic time in nanoseconds, asked of the machine.
#[must_use]
pub fn monotonic_ns() -> u64 {
    read(MONOTONIC_LOW, MONOTONIC_HIGH)
}

/// Wall time in nanoseconds since 1970, asked of the machine.
#[must_use]
pub fn wall_ns() -> u64 {
    read(WALL_LOW, WALL_HIGH)
}

/// Gives the machine the clock page, holding the time of now.
pub fn enable_page() {
    PAGE.monotonic_ns.store(monotonic_ns(), Ordering::Relaxed);
    port::write_u32(CLOCK_PAGE, page_address() as u32);
}

/// Address of the clock page.
#[must_use]
pub fn page_address() -> u64 {
    (&raw const PAGE).addr() as u64
}

/// Monotonic time in nanoseconds of the last event that arrived, from the clock page.
#[must_use]
pub fn page_ns() -> u64 {
    PAGE.monotonic_ns.load(Ordering::Relaxed)
}
