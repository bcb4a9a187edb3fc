//! Guest time on a live machine: it starts where the log left off, and never goes back.

use crate::replica::replayer::TimeFloor;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Frequency of the guest's time-stamp counter: one tick a nanosecond, on every host.
pub const TSC_KHZ: u32 = 1_000_000;

/// The clocks of a live machine.
#[derive(Clone, Debug)]
pub struct GuestTime {
    started: Instant,
    floor: TimeFloor,
}

impl GuestTime {
    /// Clocks that go on from `floor`.
    #[must_use]
    pub fn starting_at(floor: TimeFloor) -> Self {
        // One time line for both: a counter that was read later than the clock pulls the clock along.
        let monotonic_ns = floor.monotonic_ns.max(floor.tsc);
        Self {
            started: Instant::now(),
            floor: TimeFloor {
                monotonic_ns,
                ..floor
            },
        }
    }

    /// Guest monotonic time, in nanoseconds.
    #[must_use]
    pub fn monotonic_ns(&self) -> u64 {
        self.floor
            .monotonic_ns
            .saturating_add(self.started.elapsed().as_nanos() as u64)
    }

    /// The host's time at which guest time will be `monotonic_ns`.
    #[must_use]
    pub fn host_instant(&self, monotonic_ns: u64) -> Instant {
        let after_ns = monotonic_ns.saturating_sub(self.floor.monotonic_ns);
        self.started + std::time::Duration::from_nanos(after_ns)
    }

    /// Time-stamp counter.
    #[must_use]
    pub fn tsc(&self) -> u64 {
        self.monotonic_ns()
    }

    /// Wall time in nanoseconds since 1970, not before any that was given.
    pub fn wall_ns(&mut self) -> u64 {
        let host_ns = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos() as u64);
        self.floor.wall_ns = self.floor.wall_ns.max(host_ns);
        self.floor.wall_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_goes_on_from_the_floor() {
        let floor = TimeFloor {
            monotonic_ns: 1_000,
            tsc: 5_000,
            wall_ns: u64::MAX,
        };
        let mut time = GuestTime::starting_at(floor);
        assert!(time.monotonic_ns() >= 5_000);
        assert!(time.tsc() >= 5_000);
        assert_eq!(time.wall_ns(), u64::MAX);
    }
}
