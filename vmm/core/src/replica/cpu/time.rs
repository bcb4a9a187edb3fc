//! Guest time on a live machine: it starts where the log left off, and does not go back.

use crate::replica::mutant::{self, Mutant};
use crate::replica::replayer::TimeFloor;

/// While the host's wall clock is behind the guest's, the guest's goes on so many times slower:
/// what waits for a time waits twice as long at most, and the two meet after twice what was between
/// them.
const BEHIND_SLOWER: u64 = 2;

/// The clocks of a live machine. Times of the host are given in: a clock that does not go back, and
/// a wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GuestTime {
    started_ns: u64,
    monotonic_ns: u64,
    wall: WallClock,
}

impl GuestTime {
    /// Clocks that go on from `floor`, when the host's shows `now_ns`.
    #[must_use]
    pub fn starting_at(floor: TimeFloor, now_ns: u64) -> Self {
        Self {
            started_ns: now_ns,
            // One time line for both: a counter that was read later than the clock pulls the clock
            // along.
            monotonic_ns: if mutant::is(Mutant::ForgetCounter) {
                floor.monotonic_ns
            } else {
                floor.monotonic_ns.max(floor.tsc)
            },
            wall: WallClock::starting_at(floor.wall_ns),
        }
    }

    fn elapsed_ns(&self, now_ns: u64) -> u64 {
        now_ns.saturating_sub(self.started_ns)
    }

    /// Guest monotonic time, in nanoseconds.
    #[must_use]
    pub fn monotonic_ns(&self, now_ns: u64) -> u64 {
        self.monotonic_ns.saturating_add(self.elapsed_ns(now_ns))
    }

    /// The host's time at which guest time will be `monotonic_ns`.
    #[must_use]
    pub fn host_ns(&self, monotonic_ns: u64) -> u64 {
        let after_ns = monotonic_ns.saturating_sub(self.monotonic_ns);
        self.started_ns.saturating_add(after_ns)
    }

    /// Time-stamp counter.
    #[must_use]
    pub fn tsc(&self, now_ns: u64) -> u64 {
        self.monotonic_ns(now_ns)
    }

    /// Wall time in nanoseconds since 1970, not before any that was given, where the host's shows
    /// `host_wall_ns`.
    pub fn wall_ns(&mut self, now_ns: u64, host_wall_ns: u64) -> u64 {
        let elapsed_ns = self.elapsed_ns(now_ns);
        self.wall.read(elapsed_ns, host_wall_ns)
    }
}

/// The guest's wall clock: the host's, or, where that is behind what the guest has been told, one
/// that goes on slower until they meet.
///
/// The host's is behind on a host whose clock differs from that of the host before, and when it is
/// set back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct WallClock {
    /// Reading at which the guest's clock was last seen to be the host's, or began; and the time
    /// that had elapsed then.
    from_ns: u64,
    from_elapsed_ns: u64,
}

impl WallClock {
    fn starting_at(from_ns: u64) -> Self {
        Self {
            from_ns,
            from_elapsed_ns: 0,
        }
    }

    /// Its reading when `elapsed_ns` have passed since it began and the host's shows `host_ns`.
    fn read(&mut self, elapsed_ns: u64, host_ns: u64) -> u64 {
        let since_ns = elapsed_ns.saturating_sub(self.from_elapsed_ns);
        let slower_ns = self.from_ns.saturating_add(since_ns / BEHIND_SLOWER);
        if host_ns < slower_ns && !mutant::is(Mutant::WallFollowsHost) {
            return slower_ns;
        }
        *self = Self {
            from_ns: host_ns,
            from_elapsed_ns: elapsed_ns,
        };
        host_ns
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
            wall_ns: 9_000,
        };
        let mut time = GuestTime::starting_at(floor, 70);
        assert_eq!((time.monotonic_ns(70), time.tsc(80)), (5_000, 5_010));
        assert_eq!(time.host_ns(5_010), 80);
        assert_eq!(time.wall_ns(80, 100), 9_005);
    }

    #[test]
    fn the_wall_clock_is_the_hosts_where_that_is_ahead() {
        let mut wall = WallClock::starting_at(500);
        assert_eq!(wall.read(0, 700), 700);
        assert_eq!(wall.read(10, 710), 710);
    }

    #[test]
    fn behind_a_host_that_is_behind_it_goes_on_at_half_the_speed_until_they_meet() {
        let mut wall = WallClock::starting_at(1_000);
        let host = |elapsed_ns: u64| 600 + elapsed_ns;

        let shown = [0, 100, 400, 800, 802, 900].map(|elapsed| wall.read(elapsed, host(elapsed)));

        assert_eq!(
            shown,
            [1_000, 1_050, 1_200, 1_400, 1_402, 1_500],
            "400 apart: they meet after 800"
        );
    }

    #[test]
    fn reading_it_often_does_not_stop_it() {
        let mut wall = WallClock::starting_at(1_000);
        let last = (0..=100).map(|elapsed| wall.read(elapsed, 0)).last();
        assert_eq!(last, Some(1_050));
    }

    #[test]
    fn a_host_whose_clock_is_set_back_slows_it_and_never_turns_it_back() {
        let mut wall = WallClock::starting_at(0);
        let mut latest = wall.read(100, 9_000);
        for (elapsed, host) in [
            (200, 9_100),
            (300, 2_000),
            (500, 2_200),
            (15_000, 16_700),
            (15_001, 5),
        ] {
            let shown = wall.read(elapsed, host);
            assert!(shown >= latest, "{shown} after {latest}");
            latest = shown;
        }
        assert_eq!(latest, 16_700);
    }
}
