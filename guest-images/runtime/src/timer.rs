//! The 8254 interval timer, counter 0.

use crate::port;

const COUNTER_0: u16 = 0x40;
const CONTROL: u16 = 0x43;

/// Counter 0, low byte then high byte, mode 0: one interrupt when the count is over.
const ONE_SHOT: u8 = 0x30;
/// Counter 0, low byte then high byte, mode 2: an interrupt at every end of the count.
const PERIODIC: u8 = 0x34;
/// Counter 0, high byte only, mode 0.
const ONE_SHOT_HIGH: u8 = 0x20;
/// Counter 0, latch the count.
const LATCH: u8 = 0x00;

/// Counts in a second (8254 fed with 14.31818 MHz / 12).
pub const COUNTS_PER_SECOND: u64 = 1_193_182;
/// The longest one-shot: 65,535 counts, 54.9 ms.
pub const COUNT_MAX: u16 = u16::MAX;

/// The counts in `duration_ns`, rounded up, at least 1 and at most [`COUNT_MAX`].
#[must_use]
pub fn counts(duration_ns: u64) -> u16 {
    // Longer than any count can be: cut first, so that the product stays far below 2^64.
    let duration_ns = duration_ns.min(60_000_000);
    let counts = (duration_ns * COUNTS_PER_SECOND).div_ceil(1_000_000_000);
    counts.clamp(1, u64::from(COUNT_MAX)) as u16
}

fn start(mode: u8, count: u16) {
    let [low, high] = count.to_le_bytes();
    port::write_u8(CONTROL, mode);
    port::write_u8(COUNTER_0, low);
    port::write_u8(COUNTER_0, high);
}

/// One interrupt on line 0 after `count` counts. A second call replaces what is running.
pub fn one_shot(count: u16) {
    start(ONE_SHOT, count);
}

/// An interrupt on line 0 every `count` counts.
pub fn periodic(count: u16) {
    start(PERIODIC, count);
}

/// No more interrupts: a mode without a count does not run.
pub fn stop() {
    port::write_u8(CONTROL, ONE_SHOT);
}

/// Makes ready for [`restart_coarse`].
pub fn set_up_coarse() {
    port::write_u8(CONTROL, ONE_SHOT_HIGH);
}

/// One interrupt on line 0 after `count` times 256 counts (0.21 ms each), with a single port access.
pub fn restart_coarse(count: u8) {
    port::write_u8(COUNTER_0, count);
}

/// The count as it stands.
#[must_use]
pub fn read() -> u16 {
    port::write_u8(CONTROL, LATCH);
    u16::from_le_bytes([port::read_u8(COUNTER_0), port::read_u8(COUNTER_0)])
}
