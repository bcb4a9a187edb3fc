//! Decision of a side whose replay has differed from the log: it joins the machine again after a rest,
//! or gives up, because this guest cannot be replayed there.

const SECOND_NS: u64 = 1_000_000_000;

/// Divergences within [`WITHIN_NS`] after which a side gives up. A host that is seldom wrong costs
/// an hour four rests and four transfers; five times in an hour is no accident.
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
/// long at least, so that it burdens its holder for half of the time at most.
#[must_use]
pub fn decide(now_ns: u64, earlier: &[u64], joining_ns: u64) -> Decision {
    let before = recent(now_ns, earlier).count();
    if before + 1 >= DIVERGENCES_MAX {
        return Decision::GiveUp;
    }
    let rest_ns = (REST_NS_MIN << before).max(joining_ns).min(REST_NS_MAX);
    Decision::JoinAgain { rest_ns }
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
            let found = decide(now * SECOND_NS, &earlier, joining * SECOND_NS);
            assert_eq!(found, *expected, "at {now} after {earlier:?}, joining {joining}");
        }
    }
}
