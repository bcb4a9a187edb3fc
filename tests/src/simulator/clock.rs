//! A side's clock: it has a speed of its own, and may jump ahead.

/// Parts in a million.
const MILLION: i128 = 1_000_000;

/// A clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    /// Parts in a million by which it is faster than virtual time.
    ppm: i64,
    /// What it is ahead: where it started, and its jumps.
    ahead_ns: u64,
}

impl Clock {
    /// A clock that shows `start_ns` at virtual time 0.
    #[must_use]
    pub fn new(ppm: i64, start_ns: u64) -> Self {
        Self {
            ppm,
            ahead_ns: start_ns,
        }
    }

    /// What it shows at virtual time `at_ns`.
    #[must_use]
    pub fn read(&self, at_ns: u64) -> u64 {
        let scaled = i128::from(at_ns) * (MILLION + i128::from(self.ppm)) / MILLION;
        self.ahead_ns + scaled as u64
    }

    /// A virtual time at which it shows at least `shown_ns`, if it does not jump before: the first or the one
    /// after.
    #[must_use]
    pub fn when(&self, shown_ns: u64) -> u64 {
        let scaled = i128::from(shown_ns.saturating_sub(self.ahead_ns));
        (scaled * MILLION / (MILLION + i128::from(self.ppm))) as u64 + 1
    }

    /// It jumps ahead.
    pub fn jump(&mut self, by_ns: u64) {
        self.ahead_ns += by_ns;
    }
}
