//! Decisions after a replay that has differed from the log. Its side joins the machine again after
//! a rest, or gives up, because this guest cannot be replayed there. The holder has its machine
//! fall back to checkpoints, where that is allowed.

const SECOND_NS: u64 = 1_000_000_000;

/// Divergences within [`WITHIN_NS`] after which replays are given up. A host that is seldom wrong
/// costs an hour four rests and four transfers; five times in an hour is no accident.
pub const DIVERGENCES_MAX: usize = 5;

/// Time for which a divergence counts.
pub const WITHIN_NS: u64 = 3_600 * SECOND_NS;

/// Rest after a first divergence; doubled with each further one: 1, 2, 4 and 8 s.
pub const REST_NS_MIN: u64 = SECOND_NS;

/// Longest rest: a machine whose newcomers need long is not unprotected for hours.
pub const REST_NS_MAX: u64 = 60 * SECOND_NS;

/// Decision after a divergence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It joins the machine again.
    JoinAgain {
        /// After this long, in nanoseconds.
        rest_ns: u64,
    },
    /// It joins no more: this guest cannot be replayed there.
    GiveUp,
}

/// Decides after a divergence at `now_ns`. `earlier`: the times of those before it, on the same
/// clock. `joining_ns`: how long this side has been joining without having been armed: it rests as
/// long at least, so that it burdens its holder for half of the time at most. `falls_back`: the
/// machine is protected by checkpoints where replays are given up, and the first of them is not to
/// wait for long.
#[must_use]
pub fn decide(now_ns: u64, earlier: &[u64], joining_ns: u64, falls_back: bool) -> Decision {
    let before = recent(now_ns, earlier).count();
    let doubled = match before + 1 < DIVERGENCES_MAX {
        true => REST_NS_MIN << before,
        false if falls_back => REST_NS_MIN,
        false => return Decision::GiveUp,
    };
    Decision::JoinAgain {
        rest_ns: doubled.max(joining_ns).min(REST_NS_MAX),
    }
}

/// Divergences of the replays of one machine, as its holder counts them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counted {
    /// Times of the newest, at most [`DIVERGENCES_MAX`].
    at_ns: Vec<u64>,
}

impl Counted {
    /// Those at these times have been counted.
    #[must_use]
    pub fn since(at_ns: &[u64]) -> Self {
        let newest = at_ns.len().saturating_sub(DIVERGENCES_MAX);
        Self {
            at_ns: at_ns.get(newest..).unwrap_or_default().to_vec(),
        }
    }

    /// One more, at `now_ns`. True where replays are given up.
    pub fn one_more(&mut self, now_ns: u64) -> bool {
        let mut at_ns: Vec<_> = recent(now_ns, &self.at_ns).collect();
        at_ns.push(now_ns);
        *self = Self::since(&at_ns);
        self.at_ns.len() >= DIVERGENCES_MAX
    }
}

/// Those of the times `earlier` that still count at `now_ns`.
pub fn recent(now_ns: u64, earlier: &[u64]) -> impl Iterator<Item = u64> {
    let counts = move |at_ns: &u64| now_ns.saturating_sub(*at_ns) < WITHIN_NS;
    earlier.iter().copied().filter(counts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table() {
        let again = |seconds: u64| Decision::JoinAgain {
            rest_ns: seconds * SECOND_NS,
        };
        let table: &[(u64, &[u64], u64, Decision)] = &[
            // The first ones, with rests that grow.
            (10_000, &[], 0, again(1)),
            (10_000, &[9_000], 0, again(2)),
            (10_000, &[9_000, 9_900], 0, again(4)),
            (10_000, &[9_000, 9_900, 9_950], 0, again(8)),
            // One too many within an hour.
            (10_000, &[9_000, 9_900, 9_950, 9_980], 0, Decision::GiveUp),
            (10_000, &[6_401, 6_402, 6_403, 6_404], 0, Decision::GiveUp),
            // Those of more than an hour ago do not count.
            (10_000, &[6_400, 6_402, 6_403, 6_404], 0, again(8)),
            (10_000, &[1, 2, 3, 4, 5, 6], 0, again(1)),
            // Whoever has burdened its holder for long rests as long, within bounds.
            (10_000, &[], 20, again(20)),
            (10_000, &[9_000, 9_900], 3, again(4)),
            (10_000, &[], 7_200, again(60)),
            (10_000, &[9_000, 9_900, 9_950, 9_980], 7_200, Decision::GiveUp),
            // Times that cannot be count: nothing is made better by a clock that was set back.
            (10, &[11, 12, 13, 14], 0, Decision::GiveUp),
        ];
        for (now, earlier, joining, expected) in table {
            let earlier: Vec<_> = earlier.iter().map(|seconds| seconds * SECOND_NS).collect();
            let decided = |falls_back| decide(now * SECOND_NS, &earlier, joining * SECOND_NS, falls_back);
            assert_eq!(
                decided(false),
                *expected,
                "at {now} after {earlier:?}, joining {joining}"
            );
            // Where it falls back it never gives up, and rests for as long before.
            let expected = match expected {
                Decision::GiveUp => again((*joining).clamp(1, 60)),
                again => *again,
            };
            assert_eq!(decided(true), expected, "at {now} after {earlier:?}");
        }
    }

    #[test]
    fn a_holder_counts_those_of_an_hour() {
        let mut counted = Counted::default();
        let given_up = |counted: &mut Counted, at: u64| counted.one_more(at * SECOND_NS);
        for at in [1_000, 1_001, 1_002, 1_003] {
            assert!(!given_up(&mut counted, at), "{at}");
        }
        let after_an_hour = 1_001 + 3_600;
        assert!(
            !given_up(&mut counted, after_an_hour),
            "the first two do not count"
        );
        assert!(!given_up(&mut counted, after_an_hour));
        assert!(given_up(&mut counted, after_an_hour));
        assert!(given_up(&mut counted, after_an_hour), "and it is bounded");
        assert_eq!(counted.at_ns.len(), DIVERGENCES_MAX);
    }

    #[test]
    fn what_a_side_has_counted_as_a_backup_goes_on_where_it_holds_the_machine() {
        let before: Vec<u64> = (1..=7).map(|second| second * SECOND_NS).collect();
        assert!(Counted::since(&before[..4]).one_more(8 * SECOND_NS));
        assert!(!Counted::since(&before[..3]).one_more(8 * SECOND_NS));
        assert_eq!(Counted::since(&before).at_ns.len(), DIVERGENCES_MAX);
    }
}
