//! The clocks that processes of one host have in common.

use nix::time::{ClockId, clock_gettime};

fn read_ns(clock: ClockId) -> u64 {
    let time = clock_gettime(clock).expect("a clock that always exists");
    time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64
}

/// That of reports, stop points and histories.
#[must_use]
pub fn monotonic_ns() -> u64 {
    read_ns(ClockId::CLOCK_MONOTONIC)
}

/// That of captures, which tell time by microseconds.
#[must_use]
pub fn wall_us() -> u64 {
    read_ns(ClockId::CLOCK_REALTIME) / 1_000
}
