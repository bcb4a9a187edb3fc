//! The clocks of a replica process.

use nix::time::{ClockId, clock_gettime};

fn read(clock: ClockId) -> u64 {
    // These clocks always exist; a zero would only make the peer look alive for longer than it is.
    clock_gettime(clock).map_or(0, |time| {
        u64::try_from(time.tv_sec()).unwrap_or(0) * 1_000_000_000 + u64::try_from(time.tv_nsec()).unwrap_or(0)
    })
}

/// The role machine's clock: runs on while the host sleeps. In nanoseconds.
#[must_use]
pub fn role_ns() -> u64 {
    read(ClockId::CLOCK_BOOTTIME)
}

/// The clock of reports, which other processes on the host can compare with. In nanoseconds.
#[must_use]
pub fn monotonic_ns() -> u64 {
    read(ClockId::CLOCK_MONOTONIC)
}
