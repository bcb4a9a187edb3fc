//! Hardware breakpoints: two in a loop, met in turn.

use super::{Effort, tally};
use crate::bench::{Bench, ProbeError, Reached, Ring, Setup, Subject, describe, loop_position, start};
use crate::finding::{Finding, Judgement, Property};
use crate::programs;
use lockstep_core::machine::cpu::Exit;

/// Bytes from the loop's first instruction to its second.
const SECOND: u64 = 3;

/// Where a run to the breakpoint stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Came {
    /// Where the breakpoint is, after as many instructions as it takes to get there.
    Right,
    /// The guest ran past it to its end.
    Never,
    /// Elsewhere.
    Otherwise(String),
}

/// Runs in one ring, every other pass disturbed by kicks.
///
/// # Errors
/// [`ProbeError`].
pub fn observe(bench: &dyn Bench, ring: Ring, effort: &Effort) -> Result<Vec<Came>, ProbeError> {
    let mut subject = bench.subject(&Setup::new(programs::count(), ring))?;
    let mut runs = Vec::new();
    for disturbance in [None, Some(2)] {
        subject.disturb(disturbance);
        pass(subject.as_mut(), u64::from(effort.rounds), &mut runs)?;
    }
    Ok(runs)
}

fn pass(subject: &mut dyn Subject, rounds: u64, runs: &mut Vec<Came>) -> Result<(), ProbeError> {
    start(subject, |registers| registers.rcx = rounds + 1)?;
    let first = subject.registers()?.rsi;
    for round in 0..rounds {
        for (address, instructions) in [(first + SECOND, round * 3 + 1), (first, round * 3 + 3)] {
            let came = match subject.run_to_breakpoint(address)? {
                Reached::Stop => match loop_position(&subject.registers()?, rounds + 1) {
                    Some(position) if position == instructions => Came::Right,
                    Some(position) => {
                        Came::Otherwise(format!("instruction {position} instead of {instructions}"))
                    }
                    None => Came::Otherwise("no state the guest has".to_owned()),
                },
                Reached::Exit(Exit::PortWrite {
                    port: programs::END, ..
                }) => Came::Never,
                Reached::Exit(exit) => Came::Otherwise(describe(&exit)),
            };
            let right = came == Came::Right;
            runs.push(came);
            if !right {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// What the runs come to.
#[must_use]
pub fn judge(ring: Ring, runs: &[Came]) -> Finding {
    let judgement = if runs.iter().all(|came| *came == Came::Right) {
        Judgement::Yes
    } else if runs.iter().all(|came| *came == Came::Never) {
        Judgement::No
    } else {
        Judgement::Wrong
    };
    let wrong = runs.iter().filter_map(|came| match came {
        Came::Right => None,
        Came::Never => Some("ran past it".to_owned()),
        Came::Otherwise(what) => Some(what.clone()),
    });
    Finding {
        property: Property::Breakpoint(ring),
        judgement,
        tried: "two breakpoints in a loop, in turn, alone and under kicks".to_owned(),
        seen: match judgement {
            Judgement::Yes => format!("{} stops, each before its instruction", runs.len()),
            Judgement::No => "they do not fire".to_owned(),
            _ => tally(wrong),
        },
        follows: match judgement {
            Judgement::Yes => "a debugger may use them".to_owned(),
            _ => "nothing: no clock uses them".to_owned(),
        },
    }
}
