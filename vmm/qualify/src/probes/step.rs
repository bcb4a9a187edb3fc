//! Single steps: each is to execute one instruction, and nothing of it is to reach the guest.

use super::{Effort, tally};
use crate::bench::{Bench, ProbeError, Reached, Ring, Setup, Subject, describe, loop_position, start};
use crate::finding::{Finding, Judgement, Property};
use crate::programs;

/// One row of steps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Steps that were right.
    pub right: u64,
    /// What came instead of the next.
    pub wrong: Option<String>,
}

/// Rows of steps in one ring, every other one disturbed by kicks.
///
/// # Errors
/// [`ProbeError`].
pub fn observe(bench: &dyn Bench, ring: Ring, effort: &Effort) -> Result<Vec<Run>, ProbeError> {
    let mut subject = bench.subject(&Setup::new(programs::count(), ring))?;
    let mut runs = Vec::new();
    for disturbance in [None, Some(1)] {
        subject.disturb(disturbance);
        runs.push(one(subject.as_mut(), effort.steps)?);
    }
    Ok(runs)
}

fn one(subject: &mut dyn Subject, steps: u64) -> Result<Run, ProbeError> {
    start(subject, |registers| registers.rcx = steps)?;
    for right in 0..steps {
        let wrong = match subject.step()? {
            Reached::Stop => match loop_position(&subject.registers()?, steps) {
                Some(position) if position == right + 1 => continue,
                Some(position) => format!("step {} came to instruction {position}", right + 1),
                None => format!(
                    "step {} came to {:#x}, out of the guest's way",
                    right + 1,
                    subject.registers()?.rip
                ),
            },
            Reached::Exit(exit) => format!("step {} came to {}", right + 1, describe(&exit)),
        };
        return Ok(Run {
            right,
            wrong: Some(wrong),
        });
    }
    Ok(Run {
        right: steps,
        wrong: None,
    })
}

/// What the rows come to.
#[must_use]
pub fn judge(ring: Ring, runs: &[Run]) -> Finding {
    let exact = !runs.is_empty() && runs.iter().all(|run| run.wrong.is_none());
    let steps: u64 = runs.iter().map(|run| run.right).sum();
    Finding {
        property: Property::SingleStep(ring),
        judgement: if exact { Judgement::Yes } else { Judgement::Wrong },
        tried: "a counting loop in steps, alone and under kicks".to_owned(),
        seen: match exact {
            true => format!("{steps} steps of one instruction each"),
            false => tally(runs.iter().filter_map(|run| run.wrong.clone())),
        },
        follows: match exact {
            true => format!("a clock can step through {ring}"),
            false => format!("nothing may be stepped in {ring}"),
        },
    }
}
