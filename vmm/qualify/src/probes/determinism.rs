//! Determinism: a guest in ring 3 that computes, asks the outside and is interrupted, recorded once
//! and replayed many times.
//!
//! Recorded is what enters, each with its exit: answers, taken from the host's clock, and
//! interrupts, given at exits at which that clock is odd. A replay gives the same at the same
//! exits, under kicks at other times. All outputs, memory and registers must be the same.

use super::Effort;
use crate::bench::{Bench, ProbeError, Ring, Setup, Subject, TO_EXIT, astray, run_through_kicks};
use crate::finding::{Finding, Judgement, Property};
use crate::programs;
use crate::stage::{DATA, StageError, TICK_VECTOR, TICKS};
use lockstep_core::machine::cpu::saved::DigestedCpu;
use lockstep_core::machine::cpu::{Entry, Exit};
use lockstep_core::machine::memory;
use lockstep_logging_channel::Digest;
use std::time::Instant;
use vm_memory::{Bytes, GuestAddress};

/// The bit of the clock, in nanoseconds, that decides: clocks are seldom finer.
const ODD_BIT: u32 = 10;

/// What entered at one exit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Entered {
    answer: u32,
    interrupt: bool,
}

/// What a run came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Everything it said, in order.
    pub outputs: Vec<u32>,
    /// Its memory at the end.
    pub memory: Digest,
    /// Its registers at the end.
    pub cpu: DigestedCpu,
    /// Interrupts that it counted.
    pub interrupts: u64,
}

/// A recording and its replays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Observation {
    /// Exits of each run.
    pub exits: u64,
    /// The recorded run.
    pub recorded: Outcome,
    /// The replays.
    pub replayed: Vec<Outcome>,
}

/// Records and replays.
///
/// # Errors
/// [`ProbeError`].
pub fn observe(bench: &dyn Bench, effort: &Effort) -> Result<Observation, ProbeError> {
    let clock = Instant::now();
    let mut entered = Vec::new();
    let recorded = run(bench, effort.length_exits, None, &mut || {
        let now = clock.elapsed().as_nanos() as u32;
        let now = Entered {
            answer: now,
            interrupt: now >> ODD_BIT & 1 == 1,
        };
        entered.push(now);
        now
    })?;
    let replay = |number: u32| {
        let mut recorded = entered.iter();
        run(
            bench,
            effort.length_exits,
            Some(u64::from(number) + 1),
            &mut || {
                recorded.next().copied().unwrap_or(Entered {
                    answer: 0,
                    interrupt: false,
                })
            },
        )
    };
    let replayed = (0..effort.replays).map(replay).collect::<Result<_, _>>()?;
    Ok(Observation {
        exits: effort.length_exits,
        recorded,
        replayed,
    })
}

fn run(
    bench: &dyn Bench,
    exits: u64,
    disturbance: Option<u64>,
    enters: &mut dyn FnMut() -> Entered,
) -> Result<Outcome, ProbeError> {
    let mut subject = bench.subject(&Setup::new(programs::mixed(), Ring::Three).interrupts_enabled())?;
    let mut registers = subject.registers()?;
    (registers.r8, registers.rax, registers.rbx) = (DATA, 1, 2);
    subject.set_registers(&registers)?;
    subject.disturb(disturbance);
    let mut outputs = Vec::new();
    let mut interrupt = None;
    for _ in 0..exits {
        match run_through_kicks(subject.as_mut(), Entry { interrupt, ..TO_EXIT })? {
            Exit::PortRead {
                port: programs::QUESTION,
                ..
            } => {
                interrupt = answer(subject.as_mut(), enters)?;
            }
            Exit::PortWrite {
                port: programs::OUTPUT,
                value,
                ..
            } => {
                outputs.push(value);
                interrupt = None;
            }
            other => return Err(astray("a question or an output", &other)),
        }
    }
    subject.settle()?;
    let interrupts = subject
        .memory()
        .read_obj(GuestAddress(TICKS))
        .map_err(StageError::from)?;
    Ok(Outcome {
        outputs,
        memory: memory::digest(subject.memory()).map_err(lockstep_kvm::vcpu::failed("read guest memory"))?,
        cpu: subject.save()?.digested(),
        interrupts,
    })
}

fn answer(subject: &mut dyn Subject, enters: &mut dyn FnMut() -> Entered) -> Result<Option<u8>, ProbeError> {
    let entered = enters();
    subject.supply(u64::from(entered.answer));
    Ok((entered.interrupt && subject.interruptible()?).then_some(TICK_VECTOR))
}

/// Where a replay left the recorded run, if it did.
fn difference(recorded: &Outcome, replayed: &Outcome) -> Option<String> {
    let pairs = recorded.outputs.iter().zip(&replayed.outputs);
    if let Some(first) = pairs
        .clone()
        .position(|(recorded, replayed)| recorded != replayed)
    {
        return Some(format!("output {first} differs"));
    }
    if recorded.interrupts != replayed.interrupts {
        return Some(format!(
            "{} interrupts instead of {}",
            replayed.interrupts, recorded.interrupts
        ));
    }
    match (recorded.memory == replayed.memory, recorded.cpu == replayed.cpu) {
        (false, _) => Some("memory differs at the end".to_owned()),
        (_, false) => Some("registers differ at the end".to_owned()),
        _ => (recorded != replayed).then(|| "the runs differ in length".to_owned()),
    }
}

/// What was seen comes to.
#[must_use]
pub fn judge(observation: &Observation) -> Finding {
    let Observation {
        exits,
        recorded,
        replayed,
    } = observation;
    let first = replayed
        .iter()
        .zip(1..)
        .find_map(|(run, number)| Some((number, difference(recorded, run)?)));
    let same = first.is_none() && !replayed.is_empty();
    Finding {
        property: Property::Determinism,
        judgement: if same { Judgement::Yes } else { Judgement::Wrong },
        tried: format!(
            "a run of {exits} exits, recorded once, replayed {} times under kicks",
            replayed.len()
        ),
        seen: match first {
            None => format!(
                "{} outputs, {} interrupts, memory and registers the same",
                recorded.outputs.len(),
                recorded.interrupts
            ),
            Some((number, what)) => format!("replay {number}: {what}"),
        },
        follows: match same {
            true => "exits are positions: what enters at one can be replayed".to_owned(),
            false => "nothing can be recorded on this host".to_owned(),
        },
    }
}
