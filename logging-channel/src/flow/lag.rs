//! How far behind the backup is, in entries and in time.

use std::collections::VecDeque;

use super::FlowError;
use crate::Sequence;

/// The most entries a backup may be allowed to lag. 8 bytes each are kept: 2 MiB.
pub const LAG_ENTRIES_MAX: usize = 256 * 1024;

/// How far behind a backup may be before the primary is to slow down.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LagLimits {
    /// Entries appended and not replayed; at most [`LAG_ENTRIES_MAX`].
    pub entries_max: usize,
    /// Age of the oldest entry that is not replayed, in nanoseconds.
    pub age_max_ns: u64,
}

/// Entries appended that the peer has not replayed yet, with the time at which each was appended.
///
/// The caller's clock must not go back; where it does, an age is 0.
#[derive(Clone, Debug)]
pub struct Lag {
    limits: LagLimits,
    /// Times of the entries that wait, oldest first. Entries beyond [`LAG_ENTRIES_MAX`] have none.
    appended_at_ns: VecDeque<u64>,
    /// Entries after those in `appended_at_ns`: their time was not kept.
    untimed: u64,
    next: Sequence,
}

impl Lag {
    /// A lag of nothing, whose first entry will be `next`.
    #[must_use]
    pub fn new(limits: LagLimits, next: Sequence) -> Self {
        let entries_max = limits.entries_max.min(LAG_ENTRIES_MAX);
        let limits = LagLimits {
            entries_max,
            ..limits
        };
        Self {
            limits,
            appended_at_ns: VecDeque::new(),
            untimed: 0,
            next,
        }
    }

    /// Counts the next entry, appended at `now_ns`.
    pub fn append(&mut self, now_ns: u64) {
        if self.untimed == 0 && self.appended_at_ns.len() < LAG_ENTRIES_MAX {
            self.appended_at_ns.push_back(now_ns);
        } else {
            self.untimed += 1;
        }
        self.next = self.next.next();
    }

    /// Takes the peer's word at `now_ns` that it has replayed everything up to `replayed`, and gives
    /// `sample` the lag of each entry that this is news of, in nanoseconds. An older word than the last
    /// changes nothing.
    ///
    /// # Errors
    /// [`FlowError::NeverAppended`]; nothing is changed.
    pub fn acknowledge(
        &mut self,
        replayed: Sequence,
        now_ns: u64,
        mut sample: impl FnMut(u64),
    ) -> Result<(), FlowError> {
        if replayed >= self.next {
            return Err(FlowError::NeverAppended {
                acknowledged: replayed,
                appended: self.next,
            });
        }
        let remaining = self.next.0 - replayed.0 - 1;
        while self.entries() > remaining {
            match self.appended_at_ns.pop_front() {
                Some(appended_at_ns) => sample(now_ns.saturating_sub(appended_at_ns)),
                None => self.untimed -= 1,
            }
        }
        Ok(())
    }

    /// Entries appended and not replayed.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.appended_at_ns.len() as u64 + self.untimed
    }

    /// Age at `now_ns` of the oldest entry that is not replayed, in nanoseconds; 0 where there is none.
    #[must_use]
    pub fn age_ns(&self, now_ns: u64) -> u64 {
        self.appended_at_ns
            .front()
            .map_or(0, |oldest| now_ns.saturating_sub(*oldest))
    }

    /// Whether at `now_ns` the backup is so far behind that the primary should slow down.
    #[must_use]
    pub fn is_too_long(&self, now_ns: u64) -> bool {
        self.entries() > self.limits.entries_max as u64 || self.age_ns(now_ns) > self.limits.age_max_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: LagLimits = LagLimits {
        entries_max: 3,
        age_max_ns: 1000,
    };

    fn lag_of(times_ns: &[u64]) -> Lag {
        let mut lag = Lag::new(LIMITS, Sequence(10));
        times_ns.iter().for_each(|time_ns| lag.append(*time_ns));
        lag
    }

    #[test]
    fn each_entry_gives_one_sample() {
        let mut lag = lag_of(&[100, 200, 300]);
        let mut samples = Vec::new();
        lag.acknowledge(Sequence(11), 500, |sample| samples.push(sample))
            .unwrap();
        lag.acknowledge(Sequence(10), 600, |sample| samples.push(sample))
            .unwrap();
        lag.acknowledge(Sequence(12), 900, |sample| samples.push(sample))
            .unwrap();
        assert_eq!(samples, [400, 300, 600]);
        assert_eq!((lag.entries(), lag.age_ns(2000)), (0, 0));
    }

    #[test]
    fn is_too_long_by_entries_or_by_age() {
        assert!(!lag_of(&[100, 100, 100]).is_too_long(1100));
        assert!(lag_of(&[100, 100, 100, 100]).is_too_long(100));
        assert!(lag_of(&[100]).is_too_long(1101));
    }

    #[test]
    fn a_clock_that_goes_back_gives_no_age() {
        assert_eq!(lag_of(&[100]).age_ns(50), 0);
    }

    #[test]
    fn what_was_never_appended_cannot_be_acknowledged() {
        let error = FlowError::NeverAppended {
            acknowledged: Sequence(11),
            appended: Sequence(11),
        };
        assert_eq!(lag_of(&[100]).acknowledge(Sequence(11), 200, |_| ()), Err(error));
    }

    #[test]
    fn memory_is_bounded_and_the_count_stays_right() {
        let mut lag = Lag::new(LIMITS, Sequence(0));
        let appended = LAG_ENTRIES_MAX as u64 + 10;
        (0..appended).for_each(|time_ns| lag.append(time_ns));
        assert_eq!(lag.entries(), appended);
        assert_eq!(lag.appended_at_ns.len(), LAG_ENTRIES_MAX);
        let mut samples = 0;
        lag.acknowledge(Sequence(appended - 1), appended, |_| samples += 1)
            .unwrap();
        assert_eq!((samples, lag.entries()), (LAG_ENTRIES_MAX, 0));
    }
}
