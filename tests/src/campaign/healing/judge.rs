//! Judgement of a machine that heals: one machine, one speaker a generation, no output without its
//! acknowledgement from arming on, and clients that saw one history over all generations.

use super::wire;
use crate::campaign::course::Standing;
use crate::campaign::evidence::Evidence;
use crate::campaign::outcome::{Outcome, Points, judge_clients, judge_processes};
use crate::campaign::plan::Title;
use crate::campaign::web::Claimed;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

/// Observations while a round ran.
#[derive(Debug, Default)]
pub struct Course {
    /// Everything that did not go as it must.
    pub failures: Vec<String>,
    /// Generations that came about by themselves: a side was given up though nothing was done to
    /// it, because the host was too busy.
    pub early: bool,
    /// The machine is gone, for the same reason: the side that was struck had just been left alone.
    pub gone: bool,
    /// Frames that the old machine may say too late, of each generation in which it was stopped or
    /// deceived.
    pub late_allowed: BTreeMap<u32, u64>,
    /// Generations in which an armed holder had answered every client when it or its backup was
    /// struck.
    pub struck: BTreeSet<u32>,
    /// The last generation of the machine, where it is gone: what was claimed later is another.
    pub last_generation: Option<u32>,
    /// Divergences that the plan has made.
    pub divergences: u64,
    /// Points that were met, where a process passes its own more than once.
    pub points_met: Option<usize>,
    /// Points of the plan.
    pub points: Points,
}

/// Judges a round. `claims`: those of the store at its end.
#[must_use]
pub fn judge(
    title: Title,
    course: Course,
    standing: Option<Standing>,
    claims: &[Claimed],
    evidence: &Evidence,
    took: Duration,
) -> Outcome {
    let serves = matches!(standing, Some(Standing::Healed(_)));
    let mut outcome = Outcome {
        points: course.points,
        standing,
        failures: course.failures,
        early: course.early,
        took,
        ..Outcome::failed(title, "")
    };
    judge_clients(evidence, serves, &mut outcome);
    judge_processes(evidence, course.divergences, &mut outcome);
    let is_of_the_machine =
        |claim: &&Claimed| course.last_generation.is_none_or(|last| claim.generation <= last);
    let claims: Vec<Claimed> = claims.iter().filter(is_of_the_machine).cloned().collect();
    outcome.failures.extend(two_machines(&claims));
    let found = wire::check(&evidence.frames, &evidence.wires);
    outcome.frames = found.frames.values().sum();
    outcome.late = found.late.values().sum();
    outcome.failures.extend(late(&found.late, &course.late_allowed));
    outcome.failures.extend(unseen(&found.frames, &course.struck));
    outcome.failures.extend(found.complaints);
    outcome
}

/// Frames of old machines, beyond what each generation is allowed.
fn late(late: &BTreeMap<u32, u64>, allowed: &BTreeMap<u32, u64>) -> Vec<String> {
    late.iter()
        .filter(|(generation, count)| *count > allowed.get(generation).unwrap_or(&0))
        .map(|(generation, count)| {
            format!("{count} frames of the machine of generation {generation} after a newer one had begun")
        })
        .collect()
}

/// Generations that were struck and of which the check of the Output Rule has seen no frame: it
/// ought to have seen the answers before, at least.
fn unseen(frames: &BTreeMap<u32, u64>, struck: &BTreeSet<u32>) -> Vec<String> {
    let mut complaints: Vec<String> = struck
        .iter()
        .filter(|generation| !frames.contains_key(generation))
        .map(|generation| {
            format!("no frame of generation {generation} was held against the log of its backup")
        })
        .collect();
    if frames.is_empty() {
        complaints.push("no frame of the machine was held against a log".to_owned());
    }
    complaints
}

/// It is one machine: its claims name no other, and none of them is missing.
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
                "generation {} is of machine {}, and the first is of {}",
                claim.generation, claim.machine, first.machine
            ));
        }
    }
    complaints
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaign::fixtures::claim;

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

    #[test]
    fn late_frames_are_allowed_in_their_generation_only() {
        let allowed = [(2, 1), (3, u64::MAX)].into();
        assert_eq!(late(&[(2, 1), (3, 9)].into(), &allowed), Vec::<String>::new());
        let found = late(&[(2, 2), (3, 9), (4, 1)].into(), &allowed);
        assert_eq!(found.len(), 2, "{found:?}");
        assert!(found[0].contains("generation 2") && found[1].contains("generation 4"));
    }

    #[test]
    fn a_generation_whose_frames_were_not_looked_up_is_found() {
        assert_eq!(unseen(&[(1, 3)].into(), &[1].into()), Vec::<String>::new());
        assert!(unseen(&[(1, 3)].into(), &[1, 2].into())[0].contains("generation 2"));
        assert_eq!(unseen(&BTreeMap::new(), &BTreeSet::new()).len(), 1);
    }
}
