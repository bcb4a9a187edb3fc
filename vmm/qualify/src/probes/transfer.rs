//! State transfer: a vCPU stopped at any instruction of ring 3, all its vector registers in use,
//! goes on in a new virtual machine.

use super::Effort;
use crate::bench::{Bench, Numbers, ProbeError, Ring, Setup, Subject, TO_EXIT, astray, start};
use crate::finding::{Finding, Judgement, Property};
use crate::programs;
use crate::stage::{DATA, StageError};
use lockstep_core::machine::cpu::Exit;
use std::time::Duration;
use vm_memory::{Bytes, GuestAddress};

/// Rounds of eighteen instructions: long enough to be met by a kick, short enough for slow hosts.
const ROUNDS: u64 = 200_000;
/// A kick comes at the latest after so many microseconds.
const KICK_US_MAX: u64 = 400;
/// Runs in which no kick finds the guest, before it is given up.
const RUNS_PER_MOVE_MAX: u32 = 20;
const RESULT: u64 = DATA + 0x1000;

/// The vector registers, in two halves each.
type Vectors = [[u64; 2]; 16];

/// What was seen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// Times the guest was moved.
    pub moves: u32,
    /// Runs that ended.
    pub runs: u32,
    /// Runs whose result was wrong.
    pub wrong: u32,
}

/// Moves a guest as often as the effort says.
///
/// # Errors
/// [`ProbeError`].
pub fn observe(bench: &dyn Bench, effort: &Effort) -> Result<Observation, ProbeError> {
    let mut numbers = Numbers::new(0x7a9);
    let mut observation = Observation {
        moves: 0,
        runs: 0,
        wrong: 0,
    };
    let wanted = effort.rounds;
    while observation.moves < wanted && observation.runs < wanted.saturating_mul(RUNS_PER_MOVE_MAX) {
        let (moves, result) = one(bench, &mut numbers, wanted - observation.moves)?;
        observation.moves += moves;
        observation.runs += 1;
        observation.wrong += u32::from(result != expected(given(), ROUNDS));
    }
    Ok(observation)
}

fn one(bench: &dyn Bench, numbers: &mut Numbers, moves_max: u32) -> Result<(u32, Vectors), ProbeError> {
    let mut subject = bench.subject(&Setup::new(programs::vector(), Ring::Three))?;
    for (address, word) in (DATA..).step_by(8).zip(given().into_iter().flatten()) {
        subject
            .memory()
            .write_obj(word, GuestAddress(address))
            .map_err(StageError::from)?;
    }
    start(subject.as_mut(), |registers| {
        (registers.rcx, registers.r8, registers.r9) = (ROUNDS, DATA, RESULT);
    })?;
    let mut moves = 0;
    loop {
        if moves < moves_max {
            subject.kick_after(Duration::from_micros(1 + numbers.below(KICK_US_MAX)))?;
        }
        match subject.run(TO_EXIT)? {
            Exit::PortWrite {
                port: programs::END, ..
            } => return Ok((moves, result(subject.as_ref())?)),
            Exit::Kicked => {
                subject = subject.transplant()?;
                moves += 1;
            }
            other => return Err(astray("END", &other)),
        }
    }
}

fn result(subject: &dyn Subject) -> Result<Vectors, ProbeError> {
    let mut vectors = Vectors::default();
    for (address, word) in (RESULT..).step_by(8).zip(vectors.iter_mut().flatten()) {
        *word = subject
            .memory()
            .read_obj(GuestAddress(address))
            .map_err(StageError::from)?;
    }
    Ok(vectors)
}

fn given() -> Vectors {
    let mut vectors = Vectors::default();
    let mut numbers = Numbers::new(0x16);
    for word in vectors.iter_mut().flatten() {
        *word = numbers.below(u64::MAX);
    }
    vectors
}

/// Vectors that the guest computes: even registers add the next one to themselves, odd ones take
/// the exclusive or.
fn expected(mut vectors: Vectors, rounds: u64) -> Vectors {
    for _ in 0..rounds {
        let [first, ..] = vectors;
        for index in 0..vectors.len() {
            // PADDQ of the last register with the first takes the first as it is by then.
            let next = if index + 1 < vectors.len() {
                vectors.get(index + 1)
            } else {
                vectors.first()
            };
            let next = next.copied().unwrap_or(first);
            let Some([low, high]) = vectors.get_mut(index) else {
                continue;
            };
            let combine: fn(u64, u64) -> u64 = if index % 2 == 0 {
                u64::wrapping_add
            } else {
                |a, b| a ^ b
            };
            (*low, *high) = (combine(*low, next[0]), combine(*high, next[1]));
        }
    }
    vectors
}

/// What was seen comes to.
#[must_use]
pub fn judge(observation: &Observation) -> Finding {
    let Observation { moves, runs, wrong } = observation;
    let judgement = match (moves, wrong) {
        (0, 0) => Judgement::Untried,
        (_, 0) => Judgement::Yes,
        _ => Judgement::Wrong,
    };
    Finding {
        property: Property::Transfer,
        judgement,
        tried: "a vector computation in ring 3, kicked at any instruction and moved to a new VM".to_owned(),
        seen: format!("{moves} moves in {runs} runs, {wrong} wrong results"),
        follows: match judgement {
            Judgement::Yes => "state can be transferred at any instruction".to_owned(),
            Judgement::Untried => "nothing: no kick found the guest running".to_owned(),
            _ => "state must not be transferred between exits".to_owned(),
        },
    }
}
