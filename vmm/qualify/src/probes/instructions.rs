//! Which instructions of kernels the host runs in ring 0, and whether ring 3 reaches its ports.

use crate::bench::{Bench, ProbeError, Ring, Setup, Subject, describe, run_to_exit};
use crate::finding::{Finding, Judgement, Property};
use crate::programs::instructions::{Outcome, Trial};
use crate::programs::{self, instructions};
use crate::stage;
use lockstep_core::machine::cpu::Exit;
use vm_memory::{Bytes, GuestAddress};

/// Bytes of data that are zeroed before each instruction.
const SCRATCH_BYTES: usize = 1024;

/// What became of an instruction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Try {
    /// Its name.
    pub name: &'static str,
    /// It did what the trial expects.
    pub as_expected: bool,
    /// What it did.
    pub seen: String,
}

/// Tries instructions one after the other, on one subject for as long as it is whole.
///
/// # Errors
/// [`ProbeError`].
pub fn attempts(bench: &dyn Bench, setup: &Setup, trials: &[Trial]) -> Result<Vec<Try>, ProbeError> {
    let mut whole: Option<Box<dyn Subject>> = None;
    let mut tries = Vec::new();
    for trial in trials {
        let mut subject = match whole.take() {
            Some(subject) => subject,
            None => bench.subject(setup)?,
        };
        let exit = run_one(subject.as_mut(), trial)?;
        let became = Try::of(trial, &exit);
        // What is in the way of an instruction may be in the way of the next.
        if matches!(exit, Exit::PortWrite { .. }) {
            whole = Some(subject);
        }
        tries.push(became);
    }
    Ok(tries)
}

fn run_one(subject: &mut dyn Subject, trial: &Trial) -> Result<Exit, ProbeError> {
    let program = GuestAddress(stage::PROGRAM);
    subject
        .memory()
        .write_slice(&programs::once(trial.code), program)
        .map_err(stage::StageError::from)?;
    subject
        .memory()
        .write_slice(&[0; SCRATCH_BYTES], GuestAddress(stage::DATA))
        .map_err(stage::StageError::from)?;
    subject.restart()?;
    let mut registers = subject.registers()?;
    registers.rsi = stage::DATA;
    subject.set_registers(&registers)?;
    // Some hosts refuse to run the vCPU where they cannot run an instruction.
    Ok(run_to_exit(subject).unwrap_or_else(|why| Exit::Fault(why.to_string())))
}

impl Try {
    fn of(trial: &Trial, exit: &Exit) -> Self {
        let outcome = match exit {
            Exit::PortWrite {
                port: programs::END, ..
            } => Some(Outcome::Completes),
            Exit::PortWrite {
                port: programs::VECTOR,
                value,
                ..
            } => Some(Outcome::Vector(*value as u8)),
            _ => None,
        };
        let seen = match (exit, outcome) {
            (_, Some(Outcome::Completes)) => "runs".to_owned(),
            (_, Some(Outcome::Vector(vector))) => format!("vector {vector}"),
            (Exit::Fault(_), None) => "not run by this host".to_owned(),
            (other, None) => describe(other),
        };
        Self {
            name: trial.name,
            as_expected: outcome == Some(trial.expected),
            seen,
        }
    }
}

/// The instructions of kernels, in ring 0.
///
/// # Errors
/// [`ProbeError`].
pub fn observe(bench: &dyn Bench) -> Result<Vec<Try>, ProbeError> {
    attempts(bench, &Setup::new(&[], Ring::Zero), &instructions::RING_0)
}

/// What they come to.
#[must_use]
pub fn judge(tries: &[Try]) -> Finding {
    let complete = all_as_expected(tries);
    Finding {
        property: Property::Instructions,
        judgement: if complete { Judgement::Yes } else { Judgement::No },
        tried: format!("{} instructions of kernels, each alone", tries.len()),
        seen: match complete {
            true => "all run".to_owned(),
            false => listed(tries),
        },
        follows: match complete {
            true => "ordinary kernels can run".to_owned(),
            false => "ring-0 code must do without them: ordinary kernels do not run".to_owned(),
        },
    }
}

/// A port of the task-state segment's map, used in ring 3.
///
/// # Errors
/// [`ProbeError`].
pub fn observe_ports(bench: &dyn Bench) -> Result<Vec<Try>, ProbeError> {
    let trial = Trial {
        name: "OUT",
        code: &[],
        expected: Outcome::Completes,
    };
    attempts(bench, &Setup::new(&[], Ring::Three), &[trial])
}

/// What it comes to.
#[must_use]
pub fn judge_ports(tries: &[Try]) -> Finding {
    let right = all_as_expected(tries);
    Finding {
        property: Property::PortsOfRing3,
        judgement: if right { Judgement::Yes } else { Judgement::No },
        tried: "OUT in ring 3, to a port that the task-state segment's map allows".to_owned(),
        seen: if right {
            "it exits".to_owned()
        } else {
            listed(tries)
        },
        follows: match right {
            true => "programs can do their own input and output".to_owned(),
            false => "our guests do not run".to_owned(),
        },
    }
}

/// Whether there are any, and all did as expected.
#[must_use]
pub fn all_as_expected(tries: &[Try]) -> bool {
    !tries.is_empty() && tries.iter().all(|attempt| attempt.as_expected)
}

/// Those that did not do as expected, by what they did instead.
#[must_use]
pub fn listed(tries: &[Try]) -> String {
    let mut groups: Vec<(&str, Vec<&str>)> = Vec::new();
    for attempt in tries.iter().filter(|attempt| !attempt.as_expected) {
        match groups.iter_mut().find(|(seen, _)| *seen == attempt.seen) {
            Some((_, names)) => names.push(attempt.name),
            None => groups.push((&attempt.seen, vec![attempt.name])),
        }
    }
    let groups = groups
        .iter()
        .map(|(seen, names)| format!("{seen}: {}", names.join(", ")));
    groups.collect::<Vec<_>>().join("; ")
}
