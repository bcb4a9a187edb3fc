//! IRQ windows: whether KVM comes back at the very instruction before which an interrupt could
//! first be taken.
//!
//! A guest opens the window in each way there is; what it counts from there on says how late the
//! exit came. An exit inside the shadow of STI is one of the ways: it happens to a kernel whenever
//! the host maps a page there, and a host that forgets the shadow then makes the window an
//! instruction too early, which no replay does again.

use super::{Effort, tally};
use crate::bench::{
    Bench, ProbeError, Ring, Setup, Subject, TO_EXIT, describe, loop_position, run_through_kicks, start,
};
use crate::finding::{Finding, Judgement, Property};
use crate::programs;
use crate::stage::{self, QUIET_VECTOR};
use lockstep_core::machine::cpu::{Entry, Exit};

/// Rounds of three instructions that the guest counts behind the opening: later than that cannot be
/// seen.
const ROUNDS: u64 = 1_000;

/// A way in which a window opens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Opening {
    /// STI, and one instruction more.
    Sti,
    /// STI, and an instruction for which the host maps a page first.
    Shadow,
    /// POPFQ.
    Popf,
    /// HLT after STI: the guest is idle before the window is there.
    Halt,
    /// IRETQ to a program in ring 3.
    Iret,
    /// The handler of an interrupt that was given in the same run returns.
    Return,
}

impl Opening {
    fn of(ring: Ring) -> &'static [Self] {
        match ring {
            Ring::Zero => &[Self::Sti, Self::Shadow, Self::Popf, Self::Halt, Self::Return],
            Ring::Three => &[Self::Iret, Self::Return],
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Sti => "STI",
            Self::Shadow => "STI, a page is mapped",
            Self::Popf => "POPFQ",
            Self::Halt => "STI, HLT",
            Self::Iret => "IRETQ",
            Self::Return => "IRETQ of a handler",
        }
    }

    fn setup(self, ring: Ring) -> Setup {
        match self {
            Self::Sti => Setup::new(programs::window_sti(), ring),
            Self::Shadow => Setup {
                // Pages are mapped one at a time.
                dirty_log: true,
                ..Setup::new(programs::window_shadow(), ring)
            },
            Self::Popf => Setup::new(programs::window_popf(), ring),
            Self::Halt => Setup::new(programs::window_halt(), ring),
            Self::Iret => Setup::new(programs::window_iret(), Ring::Zero),
            Self::Return => Setup::new(programs::count(), ring).interrupts_enabled(),
        }
    }
}

/// Where a run that was to stop at the window stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Came {
    /// So many instructions behind the opening; 0 is right.
    Late(u64),
    /// Not at all, or before: what came instead.
    Otherwise(String),
}

/// One run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// How the window opened.
    pub opening: Opening,
    /// Where the run stopped.
    pub came: Came,
}

/// All runs in one ring.
///
/// # Errors
/// [`ProbeError`].
pub fn observe(bench: &dyn Bench, ring: Ring, effort: &Effort) -> Result<Vec<Run>, ProbeError> {
    let mut runs = Vec::new();
    for opening in Opening::of(ring) {
        let mut subject = bench.subject(&opening.setup(ring))?;
        for round in 0..effort.rounds * 2 {
            if *opening == Opening::Shadow {
                // A page is mapped once in the life of a machine.
                subject = bench.subject(&opening.setup(ring))?;
            }
            subject.disturb((round % 2 == 1).then_some(u64::from(round)));
            let came = one(subject.as_mut(), *opening)?;
            runs.push(Run {
                opening: *opening,
                came,
            });
        }
    }
    Ok(runs)
}

fn one(subject: &mut dyn Subject, opening: Opening) -> Result<Came, ProbeError> {
    start(subject, |registers| {
        registers.rcx = ROUNDS;
        registers.r8 = stage::DATA;
    })?;
    let interrupt = (opening == Opening::Return).then_some(QUIET_VECTOR);
    if interrupt.is_some() && !subject.interruptible()? {
        return Ok(Came::Otherwise(
            "no interrupt could be given although they are enabled".to_owned(),
        ));
    }
    let exit = run_through_kicks(
        subject,
        Entry {
            interrupt,
            stop_at_window: true,
            ..TO_EXIT
        },
    )?;
    Ok(match (&exit, opening) {
        (Exit::Halt, Opening::Halt) => Came::Late(0),
        (Exit::Window, Opening::Halt) => Came::Otherwise("a window before HLT".to_owned()),
        (Exit::Window, _) => match loop_position(&subject.registers()?, ROUNDS) {
            Some(late) => Came::Late(late),
            None if opening == Opening::Shadow => Came::Otherwise("inside the shadow".to_owned()),
            None => Came::Otherwise("a window that is none".to_owned()),
        },
        _ => Came::Otherwise(describe(&exit)),
    })
}

/// What the runs come to.
#[must_use]
pub fn judge(ring: Ring, runs: &[Run]) -> Finding {
    let exact = !runs.is_empty() && runs.iter().all(|run| run.came == Came::Late(0));
    let openings: Vec<_> = Opening::of(ring).iter().map(|opening| opening.name()).collect();
    let wrong = runs.iter().filter_map(|run| match &run.came {
        Came::Late(0) => None,
        Came::Late(instructions) => Some(format!(
            "{instructions} instructions late ({})",
            run.opening.name()
        )),
        Came::Otherwise(what) => Some(format!("{what} ({})", run.opening.name())),
    });
    Finding {
        property: Property::Window(ring),
        judgement: if exact { Judgement::Yes } else { Judgement::Wrong },
        tried: format!(
            "{} runs to a window that opens by {}",
            runs.len(),
            openings.join("; ")
        ),
        seen: if exact {
            "each at the first instruction".to_owned()
        } else {
            tally(wrong)
        },
        follows: if exact {
            format!("interrupts can enter at windows in {ring}")
        } else {
            "no position here: an interrupt that has to wait enters at the next exit".to_owned()
        },
    }
}
