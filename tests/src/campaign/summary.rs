//! Many rounds in one table, and in one JSON object.

use super::course::Standing;
use super::outcome::{Noticed, Outcome, Times};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

/// Columns of the table of faults, and the points that each counts.
const COLUMNS: [(&str, &[&str]); 9] = [
    ("time", &["time"]),
    (
        "of its own",
        &["chain", "starts", "switchover", "diverging", "replay"],
    ),
    ("log entry", &["log-entry"]),
    ("send", &["before-send", "after-send"]),
    ("acknowledge", &["before-acknowledge", "after-acknowledge"]),
    ("release", &["before-release", "after-release"]),
    (
        "common point",
        &[
            "part-sent",
            "common-point-sent",
            "common-point-acknowledged",
            "common-point-received",
            "common-point-met",
        ],
    ),
    ("claim", &["before-claim", "claim-linked", "after-claim"]),
    (
        "go live",
        &[
            "before-announce",
            "after-announce",
            "going-live",
            "live",
            "output-alone",
        ],
    ),
];

/// Everything that is counted.
#[derive(Debug, Default)]
pub struct Summary {
    outcomes: Vec<Outcome>,
}

/// The values below which so many of 100 lie.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Spread {
    /// How many there are.
    pub count: usize,
    /// The median, in milliseconds.
    pub p50_ms: f64,
    /// In milliseconds.
    pub p90_ms: f64,
    /// In milliseconds.
    pub p99_ms: f64,
    /// In milliseconds.
    pub max_ms: f64,
}

impl Spread {
    /// Of these times, if there are any. Nearest rank.
    #[must_use]
    pub fn of(mut ns: Vec<u64>) -> Option<Self> {
        ns.sort_unstable();
        let last = *ns.last()?;
        let at = |hundredths: usize| ns[(ns.len() * hundredths).div_ceil(100).max(1) - 1] as f64 / 1e6;
        Some(Self {
            count: ns.len(),
            p50_ms: at(50),
            p90_ms: at(90),
            p99_ms: at(99),
            max_ms: last as f64 / 1e6,
        })
    }

    fn to_json(self) -> Value {
        json!({
            "count": self.count,
            "p50_ms": self.p50_ms,
            "p90_ms": self.p90_ms,
            "p99_ms": self.p99_ms,
            "max_ms": self.max_ms,
        })
    }
}

/// A time of a failover, in nanoseconds.
pub type Measure = fn(&Times) -> u64;

/// What is measured of a failover.
pub const MEASURES: [(&str, Measure); 3] = [
    ("noticed", |times| times.noticed_ns),
    ("live", |times| times.live_ns),
    ("client gap", |times| times.gap_ns),
];

/// The two ways in which a loss is noticed.
pub const WAYS: [(&str, Noticed); 2] = [
    ("closed connection", Noticed::Closed),
    ("silence", Noticed::Silence),
];

impl Summary {
    /// Counts a round.
    pub fn add(&mut self, outcome: Outcome) {
        self.outcomes.push(outcome);
    }

    /// Rounds in which a promise was broken.
    #[must_use]
    pub fn failed(&self) -> usize {
        self.count(|outcome| !outcome.failures.is_empty())
    }

    /// Rounds so far.
    #[must_use]
    pub fn rounds(&self) -> usize {
        self.outcomes.len()
    }

    fn count(&self, is: impl Fn(&Outcome) -> bool) -> usize {
        self.outcomes.iter().filter(|outcome| is(outcome)).count()
    }

    fn sum(&self, of: impl Fn(&Outcome) -> u64) -> u64 {
        self.outcomes.iter().map(of).sum()
    }

    /// One measure of the failovers that were noticed in one way, in nanoseconds. Those that the
    /// plan itself held up are left out.
    #[must_use]
    pub fn times(&self, how: Noticed, measure: Measure) -> Vec<u64> {
        let times = self.outcomes.iter().filter_map(|outcome| outcome.times.as_ref());
        times
            .filter(|times| times.how == how && !times.hindered)
            .map(measure)
            .collect()
    }

    /// What is counted, by the names that JSON and table have in common.
    fn counters(&self) -> [(&'static str, u64); 18] {
        let standing = |wanted: fn(&Standing) -> bool| {
            self.count(|outcome| outcome.standing.as_ref().is_some_and(wanted)) as u64
        };
        [
            ("rounds", self.rounds() as u64),
            ("failed", self.failed() as u64),
            (
                "points not met",
                self.sum(|outcome| outcome.points.missed() as u64),
            ),
            (
                "one side went on",
                standing(|standing| matches!(standing, Standing::Alone(_))),
            ),
            (
                "still protected",
                standing(|standing| *standing == Standing::Protected),
            ),
            (
                "healed, and struck again",
                standing(|standing| matches!(standing, Standing::Healed(_))),
            ),
            ("generations of these", self.sum(Outcome::healed_generations)),
            ("nobody left", standing(|standing| *standing == Standing::Down)),
            (
                "given up before the fault",
                self.count(|outcome| outcome.early) as u64,
            ),
            (
                "acknowledged operations",
                self.sum(|outcome| outcome.acknowledged),
            ),
            ("lost", self.sum(|outcome| outcome.lost)),
            ("wrong", self.sum(|outcome| outcome.wrong)),
            ("broken connections", self.sum(|outcome| outcome.broken)),
            ("divergences", self.sum(|outcome| outcome.divergences)),
            ("fenced", self.sum(|outcome| outcome.fenced)),
            ("frames held against the log", self.sum(|outcome| outcome.frames)),
            ("late frames, dropped", self.sum(|outcome| outcome.late)),
            (
                "rounds with late frames",
                self.count(|outcome| outcome.late > 0) as u64,
            ),
        ]
    }

    fn by(&self, name: impl Fn(&Outcome) -> String) -> BTreeMap<String, u64> {
        let mut counted = BTreeMap::new();
        for outcome in &self.outcomes {
            *counted.entry(name(outcome)).or_default() += 1;
        }
        counted
    }

    /// Everything, for programs. `about`: what the caller knows of the run.
    #[must_use]
    pub fn to_json(&self, about: Value) -> Value {
        let counters: serde_json::Map<String, Value> = self
            .counters()
            .iter()
            .map(|(name, value)| (name.replace(", ", " ").replace(' ', "_"), json!(value)))
            .collect();
        let mut spreads = serde_json::Map::new();
        for (measure, of) in MEASURES {
            for (way, how) in WAYS {
                let spread = Spread::of(self.times(how, of)).map(Spread::to_json);
                spreads.insert(format!("{measure} by {way}").replace(' ', "_"), json!(spread));
            }
        }
        json!({
            "about": about,
            "counters": counters,
            "times": spreads,
            "by_fault": self.by(|outcome| outcome.title.fault.clone()),
            "by_point": self.by(|outcome| outcome.title.point.clone()),
            "by_kind": self.by(|outcome| outcome.title.kind.clone()),
            "rounds": self.outcomes.iter().map(Outcome::to_json).collect::<Vec<_>>(),
        })
    }

    /// Everything but the single rounds, for people.
    #[must_use]
    pub fn table(&self, took: Duration) -> String {
        let mut text = self.table_of_faults();
        for (name, value) in self.counters() {
            let _ = writeln!(text, "{name:<28} {value:>9}");
        }
        let minutes = took.as_secs_f64() / 60.0;
        let _ = writeln!(
            text,
            "{:<28} {:>9.1}",
            "rounds a minute",
            self.rounds() as f64 / minutes.max(1e-9)
        );
        let _ = writeln!(
            text,
            "\n{:<32} {:>6} {:>9} {:>9} {:>9} {:>9}",
            "after the fault, in ms", "count", "p50", "p90", "p99", "max"
        );
        for (measure, of) in MEASURES {
            for (way, how) in WAYS {
                let Some(spread) = Spread::of(self.times(how, of)) else {
                    continue;
                };
                let _ = writeln!(
                    text,
                    "{:<32} {:>6} {:>9.1} {:>9.1} {:>9.1} {:>9.1}",
                    format!("{measure}, by {way}"),
                    spread.count,
                    spread.p50_ms,
                    spread.p90_ms,
                    spread.p99_ms,
                    spread.max_ms
                );
            }
        }
        text
    }

    fn table_of_faults(&self) -> String {
        let mut rows: BTreeMap<String, [u64; COLUMNS.len()]> = BTreeMap::new();
        for outcome in &self.outcomes {
            let column = COLUMNS
                .iter()
                .position(|(_, steps)| steps.contains(&outcome.title.step));
            let row = rows.entry(outcome.title.fault.clone()).or_default();
            if let Some(column) = column {
                row[column] += 1;
            }
        }
        let mut text = format!("{:<34}", "rounds by fault and point");
        for (name, _) in COLUMNS {
            let _ = write!(text, " {name:>12}");
        }
        text.push('\n');
        for (fault, row) in rows {
            let _ = write!(text, "{fault:<34}");
            for count in row {
                let count = if count == 0 {
                    "-".to_owned()
                } else {
                    count.to_string()
                };
                let _ = write!(text, " {count:>12}");
            }
            text.push('\n');
        }
        text.push('\n');
        text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaign::outcome::Points;
    use crate::campaign::plan::Plan;

    #[test]
    fn a_spread_takes_the_nearest_rank() {
        let spread = Spread::of((1..=200).map(|ms| ms * 1_000_000).collect()).unwrap();
        assert_eq!(
            (spread.p50_ms, spread.p90_ms, spread.p99_ms, spread.max_ms),
            (100.0, 180.0, 198.0, 200.0)
        );
        assert_eq!(Spread::of(vec![5_000_000]).unwrap().p50_ms, 5.0);
        assert_eq!(Spread::of(Vec::new()), None);
    }

    #[test]
    fn every_step_has_a_column() {
        for kind in crate::campaign::kind::Kind::all() {
            let step = kind.place.step().map_or("time", |(_, step)| step);
            assert!(COLUMNS.iter().any(|(_, steps)| steps.contains(&step)), "{kind}");
        }
    }

    #[test]
    fn a_failed_round_is_counted_in_table_and_json() {
        let mut summary = Summary::default();
        let plan = Plan::draw(1, 2, None);
        summary.add(Outcome {
            lost: 3,
            points: Points { planned: 6, met: 4 },
            ..Outcome::failed(plan.title(), "three writes are gone")
        });
        let json = summary.to_json(json!({}));
        assert_eq!((summary.failed(), &json["counters"]["lost"]), (1, &json!(3)));
        assert_eq!(json["rounds"][0]["failures"][0], "three writes are gone");
        assert_eq!(json["counters"]["points_not_met"], 2);
        assert_eq!(json["rounds"][0]["met"], false);
        assert_eq!(json["by_kind"][plan.kind.to_string()], 1);
        assert!(
            summary
                .table(Duration::from_secs(60))
                .contains(&plan.kind.fault.to_string())
        );
    }
}
