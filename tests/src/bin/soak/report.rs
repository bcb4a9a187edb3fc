//! The sum of all rounds, as a table and as JSON.

use super::round::CameTo;
use super::workload::Workload;
use lockstep_tests::harness::process::is_installed;
use serde_json::{Value, json};
use std::fmt;
use std::time::Duration;

/// The sum of a workload's rounds.
#[derive(Clone, Debug, Default)]
pub struct Row {
    name: String,
    rounds: u64,
    divergences: u64,
    sum: CameTo,
}

/// All workloads.
pub struct Report(Vec<Row>);

impl Report {
    /// Nothing yet.
    pub fn new(workloads: &[Workload]) -> Self {
        let row = |workload: &Workload| Row {
            name: workload.to_string(),
            ..Row::default()
        };
        Self(workloads.iter().map(row).collect())
    }

    /// Adds a round of the workload at `index`.
    pub fn add(&mut self, index: usize, round: CameTo) {
        self.0[index].add(round);
    }

    /// Rounds whose replay differed.
    pub fn divergences(&self) -> u64 {
        self.0.iter().map(|row| row.divergences).sum()
    }

    /// All rounds together.
    pub fn total(&self) -> Row {
        let mut total = Row {
            name: "all".to_owned(),
            ..Row::default()
        };
        for row in &self.0 {
            total.rounds += row.rounds;
            total.divergences += row.divergences;
            total.sum = sum(&total.sum, &row.sum);
        }
        total
    }

    /// Everything, with the time it took.
    pub fn to_json(&self, elapsed: Duration) -> Value {
        json!({
            "seconds": elapsed.as_secs_f64(),
            "redis_benchmark": is_installed("redis-benchmark"),
            "workloads": self.0.iter().map(Row::to_json).collect::<Vec<_>>(),
            "all": self.total().to_json(),
        })
    }
}

fn sum(left: &CameTo, right: &CameTo) -> CameTo {
    CameTo {
        entries: left.entries + right.entries,
        events: left.events + right.events,
        exact: left.exact + right.exact,
        common_points: left.common_points + right.common_points,
        outputs: left.outputs + right.outputs,
        exits: left.exits + right.exits,
        acknowledged: left.acknowledged + right.acknowledged,
        strikes: left.strikes + right.strikes,
        recorded: left.recorded + right.recorded,
        replayed: left.replayed + right.replayed,
        difference: None,
    }
}

impl Row {
    /// Events.
    pub fn events(&self) -> u64 {
        self.sum.events
    }

    /// Common points.
    pub fn common_points(&self) -> u64 {
        self.sum.common_points
    }

    fn add(&mut self, round: CameTo) {
        self.rounds += 1;
        self.divergences += u64::from(round.difference.is_some());
        self.sum = sum(&self.sum, &round);
    }

    fn to_json(&self) -> Value {
        json!({
            "workload": self.name,
            "rounds": self.rounds,
            "entries": self.sum.entries,
            "events": self.sum.events,
            "landed_exactly": self.sum.exact,
            "common_points": self.sum.common_points,
            "exits": self.sum.exits,
            "outputs": self.sum.outputs,
            "writes_acknowledged": self.sum.acknowledged,
            "sides_killed": self.sum.strikes,
            "recorded_seconds": self.sum.recorded.as_secs_f64(),
            "replayed_seconds": self.sum.replayed.as_secs_f64(),
            "divergences": self.divergences,
        })
    }
}

impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            formatter,
            "{:30} {:>6} {:>9} {:>9} {:>14} {:>13} {:>11} {:>9} {:>9} {:>12} {:>10} {:>10} {:>11}",
            "workload",
            "rounds",
            "entries",
            "events",
            "landed exactly",
            "common points",
            "exits",
            "outputs",
            "writes",
            "sides killed",
            "recorded s",
            "replayed s",
            "divergences"
        )?;
        for row in self.0.iter().chain([&self.total()]) {
            writeln!(
                formatter,
                "{:30} {:6} {:9} {:9} {:14} {:13} {:11} {:9} {:9} {:12} {:10.1} {:10.1} {:11}",
                row.name,
                row.rounds,
                row.sum.entries,
                row.sum.events,
                row.sum.exact,
                row.sum.common_points,
                row.sum.exits,
                row.sum.outputs,
                row.sum.acknowledged,
                row.sum.strikes,
                row.sum.recorded.as_secs_f64(),
                row.sum.replayed.as_secs_f64(),
                row.divergences
            )?;
        }
        Ok(())
    }
}
