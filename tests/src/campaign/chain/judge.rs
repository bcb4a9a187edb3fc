//! Judgement of a chain: one machine, one speaker a generation, no output without its
//! acknowledgement from arming on, and clients that saw one history over all generations.

use super::plan::Plan;
use super::wire;
use crate::campaign::course::Standing;
use crate::campaign::evidence::Evidence;
use crate::campaign::outcome::{Outcome, judge_clients, judge_processes};
use crate::campaign::web::Claimed;
use std::time::Duration;

/// Observations while a chain ran.
#[derive(Debug, Default)]
pub struct Course {
    /// Everything that did not go as it must.
    pub failures: Vec<String>,
    /// Generations that came about by themselves: a side was given up though nothing was done to
    /// it, because the host was too busy.
    pub early: bool,
    /// The machine is gone, for the same reason: the side that was struck had just been left alone.
    pub gone: bool,
    /// Frames that an old machine may say too late.
    pub late_allowed: u64,
    /// Points that were met, of those that were planned.
    pub met: usize,
    /// Points that were planned.
    pub planned: usize,
}

/// Judges a chain. `claims`: those of the store at its end.
#[must_use]
pub fn judge(
    plan: &Plan,
    course: Course,
    standing: Option<Standing>,
    claims: &[Claimed],
    evidence: &Evidence,
    took: Duration,
) -> Outcome {
    let serves = matches!(standing, Some(Standing::Healed(_)));
    let mut outcome = Outcome {
        met: course.met > 0 || course.planned == 0 || !course.failures.is_empty(),
        standing,
        failures: course.failures,
        early: course.early,
        took,
        ..Outcome::failed(plan.title(), "")
    };
    judge_clients(evidence, serves, &mut outcome);
    judge_processes(evidence, &mut outcome);
    outcome.failures.extend(two_machines(claims));
    let findings = wire::check(&evidence.frames, &evidence.wires);
    outcome.frames = findings.frames;
    outcome.late = findings.late;
    outcome.failures.extend(findings.complaints);
    if findings.late > course.late_allowed {
        outcome.failures.push(format!(
            "{} frames of old machines after newer ones had begun",
            findings.late
        ));
    }
    outcome
}

/// A chain is one machine: its claims name no other, and none of them is missing.
fn two_machines(claims: &[Claimed]) -> Vec<String> {
    let Some(first) = claims.first() else {
        return vec!["nobody has claimed the machine".to_owned()];
    };
    let mut complaints = Vec::new();
    for (expected, claim) in (1..).zip(claims) {
        if claim.generation != expected {
            complaints.push(format!(
                "generation {expected} is missing: {} came after the one before",
                claim.generation
            ));
        }
        if claim.machine != first.machine {
            complaints.push(format!(
                "generation {} is of machine {}, and the chain is of {}",
                claim.generation, claim.machine, first.machine
            ));
        }
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(generation: u32, machine: &str) -> Claimed {
        Claimed {
            generation,
            machine: machine.to_owned(),
            process: 1,
        }
    }

    #[test]
    fn a_second_machine_and_a_generation_left_out_are_found() {
        assert_eq!(
            two_machines(&[claim(1, "a"), claim(2, "a")]),
            Vec::<String>::new()
        );
        assert!(two_machines(&[claim(1, "a"), claim(2, "b")])[0].contains("machine b"));
        assert!(two_machines(&[claim(1, "a"), claim(3, "a")])[0].contains("2 is missing"));
        assert_eq!(two_machines(&[]).len(), 1);
    }
}
