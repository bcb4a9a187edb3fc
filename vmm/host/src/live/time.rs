//! Guest time on a live machine, over the clocks of this host.

use lockstep_core::replica::cpu;
use lockstep_core::replica::replayer::TimeFloor;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Frequency of the guest's time-stamp counter: one tick a nanosecond, on every host.
pub const TSC_KHZ: u32 = 1_000_000;

/// The clocks of a live machine.
#[derive(Clone, Debug)]
pub struct GuestTime {
    started: Instant,
    /// Its host time is what has elapsed since `started`.
    guest: cpu::GuestTime,
}

impl GuestTime {
    /// Clocks that go on from `floor`.
    #[must_use]
    pub fn starting_at(floor: TimeFloor) -> Self {
        Self {
            started: Instant::now(),
            guest: cpu::GuestTime::starting_at(floor, 0),
        }
    }

    fn elapsed_ns(&self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    /// Guest monotonic time, in nanoseconds.
    #[must_use]
    pub fn monotonic_ns(&self) -> u64 {
        self.guest.monotonic_ns(self.elapsed_ns())
    }

    /// The host's time at which guest time will be `monotonic_ns`.
    #[must_use]
    pub fn host_instant(&self, monotonic_ns: u64) -> Instant {
        self.started + Duration::from_nanos(self.guest.host_ns(monotonic_ns))
    }

    /// Time-stamp counter.
    #[must_use]
    pub fn tsc(&self) -> u64 {
        self.guest.tsc(self.elapsed_ns())
    }

    /// Wall time in nanoseconds since 1970, not before any that was given.
    pub fn wall_ns(&mut self) -> u64 {
        let host_ns = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_nanos() as u64);
        let elapsed_ns = self.elapsed_ns();
        self.guest.wall_ns(elapsed_ns, host_ns)
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
