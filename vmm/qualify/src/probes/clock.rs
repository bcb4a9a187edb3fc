//! Instruction clocks: whether what they count is right, and whether they stop where they are told
//! to.
//!
//! Three things are tried: a kick at any time, after which the clock says where the guest is; a
//! stop at a given instruction, an interrupt there, and the guest's further way; and, in a guest
//! with repeated string instructions, a place that a kick has found, to be found again by its
//! number.

use super::{Effort, tally};
use crate::bench::{
    Bench, Numbers, ProbeError, Ring, Setup, Subject, TO_EXIT, describe, loop_position, run_through_kicks,
    start,
};
use crate::finding::{Finding, Judgement, Property};
use crate::programs;
use crate::stage::{DATA, SAID_VECTOR};
use lockstep_core::machine::cpu::{Entry, Exit, Registers};
use lockstep_core::machine::door::Horizon;
use lockstep_kvm::{ClockKind, HostError};
use std::time::Duration;
use vm_memory::{Bytes, GuestAddress};

/// More rounds than a guest makes before it is kicked.
const ROUNDS_WITHOUT_END: u64 = 4_000_000;
/// Rounds behind the last stop, until the guest's end.
const ROUNDS_BEHIND: u64 = 16;
/// Kicks come 10 µs after the start times a power of two: up to 640 µs.
const KICK_US_MIN: u64 = 10;
const KICK_EXPONENTS: u64 = 7;
/// The furthest stop: beyond the last stretch that a clock may step through.
const COUNTED_STOP_MAX: u64 = 12_000;
/// The furthest stop of a clock that makes every step singly.
const STEPPED_STOP_MAX: u64 = 300;
const TRAP_FLAG: u64 = 1 << 8;
/// A clock that has declined every kick is kicked so many times as often.
const PATIENCE: u32 = 6;

/// What a clock did when it was to say or find a place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Came {
    /// It was right.
    Right,
    /// It said that it does not know where the guest is. Nothing enters there, and nothing is
    /// wrong.
    Declined,
    /// It was wrong: how.
    Wrong(String),
}

/// What was seen of a clock in a ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Observation {
    /// There is none here: why.
    NotOffered(String),
    /// What it did, each time.
    Runs(Vec<Came>),
}

/// Tries `kind` in `ring`.
///
/// # Errors
/// [`ProbeError`].
pub fn observe(
    bench: &dyn Bench,
    kind: ClockKind,
    ring: Ring,
    effort: &Effort,
) -> Result<Observation, ProbeError> {
    let setup = |program: &[u8]| Setup::new(program, ring).clock(kind).interrupts_enabled();
    let mut subject = match bench.subject(&setup(programs::count())) {
        Ok(subject) => subject,
        Err(ProbeError::Host(HostError::Clock { why, .. })) => return Ok(Observation::NotOffered(why)),
        Err(other) => return Err(other),
    };
    let mut numbers = Numbers::new(0x5eed);
    let mut runs = Vec::new();
    for kick in 0..effort.stops.saturating_mul(PATIENCE) {
        // A clock may decline where the host was busy: it is asked longer until it has known a
        // place.
        if kick >= effort.stops && runs.iter().any(|came| *came != Came::Declined) {
            break;
        }
        runs.extend(kicked(subject.as_mut(), &mut numbers)?);
    }
    if runs.iter().all(|came| *came == Came::Declined) {
        return Ok(Observation::Runs(runs));
    }
    let furthest = if kind == ClockKind::Step {
        STEPPED_STOP_MAX
    } else {
        COUNTED_STOP_MAX
    };
    for stop in 0..effort.stops {
        if runs.iter().any(|came| matches!(came, Came::Wrong(_))) {
            return Ok(Observation::Runs(runs));
        }
        // Near and far in turn, every fourth under kicks.
        let target = if stop % 2 == 0 {
            numbers.below(8)
        } else {
            numbers.below(furthest)
        };
        subject.disturb((stop % 4 == 3).then_some(u64::from(stop)));
        runs.push(stopped(subject.as_mut(), target)?);
    }
    // One vCPU at a time: a thread's kicks reach the last one made.
    drop(subject);
    let mut repeating = bench.subject(&setup(programs::repeat()))?;
    for _ in 0..effort.stops {
        runs.extend(found_again(repeating.as_mut(), &mut numbers)?);
    }
    Ok(Observation::Runs(runs))
}

/// Kicks the running guest; what the clock then says. Nothing where the guest was at its end first.
fn kicked(subject: &mut dyn Subject, numbers: &mut Numbers) -> Result<Option<Came>, ProbeError> {
    start(subject, |registers| registers.rcx = ROUNDS_WITHOUT_END)?;
    let exit = run_to_kick(subject, numbers)?;
    Ok(match exit {
        Exit::Instruction { instructions } => Some(compare(subject, instructions, ROUNDS_WITHOUT_END)?),
        Exit::Kicked => Some(Came::Declined),
        Exit::PortWrite {
            port: programs::END, ..
        } => None,
        other => Some(Came::Wrong(format!("{} when it was kicked", describe(&other)))),
    })
}

fn run_to_kick(subject: &mut dyn Subject, numbers: &mut Numbers) -> Result<Exit, ProbeError> {
    subject.kick_after(Duration::from_micros(
        KICK_US_MIN << numbers.below(KICK_EXPONENTS),
    ))?;
    Ok(subject.run(Entry {
        horizon: Horizon::Kick,
        ..TO_EXIT
    })?)
}

fn compare(subject: &mut dyn Subject, said: u64, rounds: u64) -> Result<Came, ProbeError> {
    Ok(match loop_position(&subject.registers()?, rounds) {
        Some(position) if position == said => Came::Right,
        Some(position) => Came::Wrong(format!("it says {said} where the guest is at {position}")),
        None => Came::Wrong(format!("it says {said} where the guest is in no state it has")),
    })
}

/// Stops at `target`, gives an interrupt there, and looks at the guest's end.
fn stopped(subject: &mut dyn Subject, target: u64) -> Result<Came, ProbeError> {
    let rounds = target / 3 + ROUNDS_BEHIND;
    start(subject, |registers| registers.rcx = rounds)?;
    let entry = Entry {
        horizon: Horizon::Instructions(target),
        ..TO_EXIT
    };
    match run_through_kicks(subject, entry) {
        Ok(Exit::Instruction { .. }) => {}
        Ok(other) => {
            return Ok(Came::Wrong(format!(
                "{} instead of a stop at {target}",
                describe(&other)
            )));
        }
        Err(why) => return Ok(Came::Wrong(why.to_string())),
    }
    match compare(subject, target, rounds)? {
        Came::Right => interrupted(subject, rounds),
        other => Ok(other),
    }
}

fn interrupted(subject: &mut dyn Subject, rounds: u64) -> Result<Came, ProbeError> {
    let rip = subject.registers()?.rip;
    if !subject.interruptible()? {
        return Ok(Came::Wrong(
            "no interrupt could be given at a stop although they are enabled".to_owned(),
        ));
    }
    let entry = Entry {
        interrupt: Some(SAID_VECTOR),
        ..TO_EXIT
    };
    match run_through_kicks(subject, entry)? {
        Exit::PortWrite {
            port: programs::VECTOR,
            value,
            ..
        } if value as u8 == SAID_VECTOR => {}
        other => {
            return Ok(Came::Wrong(format!(
                "{} instead of the interrupt given at a stop",
                describe(&other)
            )));
        }
    }
    // The handler's own push, then the frame: RIP, CS, RFLAGS.
    let stack = subject.registers()?.rsp;
    let word = |at: u64| {
        subject
            .memory()
            .read_obj::<u64>(GuestAddress(at))
            .map_err(crate::stage::StageError::from)
    };
    let (frame_rip, frame_flags) = (word(stack + 8)?, word(stack + 24)?);
    if frame_rip != rip {
        return Ok(Came::Wrong(format!(
            "an interrupt given at {rip:#x} entered at {frame_rip:#x}"
        )));
    }
    if frame_flags & TRAP_FLAG != 0 {
        return Ok(Came::Wrong("the trap flag leaked to the guest".to_owned()));
    }
    let end = run_through_kicks(subject, TO_EXIT)?;
    let counted = subject.registers()?.rbx;
    Ok(match end {
        Exit::PortWrite {
            port: programs::END, ..
        } if counted == rounds => Came::Right,
        Exit::PortWrite {
            port: programs::END, ..
        } => Came::Wrong(format!(
            "the guest counted {counted} instead of {rounds} after a stop"
        )),
        other => Came::Wrong(format!(
            "{} instead of the guest's end after a stop",
            describe(&other)
        )),
    })
}

/// A place that a kick has found, found again by its number.
fn found_again(subject: &mut dyn Subject, numbers: &mut Numbers) -> Result<Option<Came>, ProbeError> {
    let prepare = |registers: &mut Registers| (registers.r8, registers.r9) = (DATA, ROUNDS_WITHOUT_END);
    start(subject, prepare)?;
    let instructions = match run_to_kick(subject, numbers)? {
        Exit::Instruction { instructions } => instructions,
        Exit::Kicked => return Ok(Some(Came::Declined)),
        other => {
            return Ok(Some(Came::Wrong(format!(
                "{} when it was kicked",
                describe(&other)
            ))));
        }
    };
    let first = subject.registers()?;
    start(subject, prepare)?;
    let entry = Entry {
        horizon: Horizon::Instructions(instructions),
        ..TO_EXIT
    };
    if let Err(why) = run_through_kicks(subject, entry) {
        return Ok(Some(Came::Wrong(why.to_string())));
    }
    Ok(Some(match subject.registers()? == first {
        true => Came::Right,
        false => {
            Came::Wrong("between repeated string instructions, the same count is another place".to_owned())
        }
    }))
}

/// What was seen comes to.
#[must_use]
pub fn judge(kind: ClockKind, ring: Ring, observation: &Observation) -> Finding {
    let property = Property::Clock(kind, ring);
    let tried = "kicks at any time, stops at given instructions with an interrupt there, both among string instructions";
    let (judgement, seen) = match observation {
        Observation::NotOffered(why) => (Judgement::No, why.clone()),
        Observation::Runs(runs) => judge_runs(runs),
    };
    let follows = match judgement {
        Judgement::Yes => format!("with --clock {kind}, events enter at exact instructions of {ring}"),
        Judgement::No => format!("with --clock {kind}, events enter {ring} at exits only"),
        _ => format!("--clock {kind} is refused"),
    };
    Finding {
        property,
        judgement,
        tried: tried.to_owned(),
        seen,
        follows,
    }
}

fn judge_runs(runs: &[Came]) -> (Judgement, String) {
    let count = |wanted: &Came| runs.iter().filter(|came| *came == wanted).count();
    let (right, declined) = (count(&Came::Right), count(&Came::Declined));
    let wrong: Vec<_> = runs
        .iter()
        .filter_map(|came| match came {
            Came::Wrong(how) => Some(how.clone()),
            _ => None,
        })
        .collect();
    if !wrong.is_empty() {
        return (Judgement::Wrong, tally(wrong));
    }
    match (right, declined) {
        (0, 0) => (Judgement::Untried, "no kick found the guest running".to_owned()),
        (0, _) => (
            Judgement::No,
            "it says that it does not know where the guest is".to_owned(),
        ),
        (_, 0) => (Judgement::Yes, format!("right {right} times")),
        (_, _) => (
            Judgement::Yes,
            format!("right {right} times, {declined} times it said that it does not know"),
        ),
    }
}
