//! Fixtures of the probes: a bench makes subjects, a subject is a virtual machine that runs one
//! probe guest.
//!
//! Behind both is KVM ([`super::subject`]) or, in unit tests, a vCPU that misbehaves in a chosen
//! way.

use super::stage::StageError;
use lockstep_core::machine::cpu::{CpuError, Entry, Exit, Registers, Vcpu};
use lockstep_core::machine::door::Horizon;
use lockstep_core::machine::memory::Memory;
use lockstep_kvm::{ClockKind, HostError};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::time::Duration;

/// Privilege level.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub enum Ring {
    /// The guest's kernel.
    Zero,
    /// The guest's programs.
    Three,
}

impl Ring {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Zero, Self::Three];
}

impl std::fmt::Display for Ring {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Zero => "ring 0",
            Self::Three => "ring 3",
        })
    }
}

/// How a subject is to be.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Its program.
    pub program: Vec<u8>,
    /// Where the program begins.
    pub ring: Ring,
    /// Instruction clock.
    pub clock: ClockKind,
    /// The program begins with interrupts enabled.
    pub interrupts_enabled: bool,
    /// CR4.TSD is set.
    pub tsc_forbidden: bool,
    /// Written pages are logged.
    pub dirty_log: bool,
}

impl Setup {
    /// `program` in `ring`, nothing else.
    #[must_use]
    pub fn new(program: &[u8], ring: Ring) -> Self {
        Self {
            program: program.to_vec(),
            ring,
            clock: ClockKind::None,
            interrupts_enabled: false,
            tsc_forbidden: false,
            dirty_log: false,
        }
    }

    /// With this clock.
    #[must_use]
    pub fn clock(self, clock: ClockKind) -> Self {
        Self { clock, ..self }
    }

    /// Beginning with interrupts enabled.
    #[must_use]
    pub fn interrupts_enabled(self) -> Self {
        Self {
            interrupts_enabled: true,
            ..self
        }
    }
}

/// What a debugging run came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reached {
    /// The debugger was told: a step was made, or the breakpoint was met.
    Stop,
    /// Something else came first.
    Exit(Exit),
}

/// Why a probe could not be carried out. A fault of the host within a probe is not an error, but
/// what is looked for.
#[derive(Debug, thiserror::Error)]
pub enum ProbeError {
    /// The host lacks something.
    #[error(transparent)]
    Host(#[from] HostError),
    /// The host failed.
    #[error(transparent)]
    Cpu(#[from] CpuError),
    /// The subject's memory.
    #[error(transparent)]
    Stage(#[from] StageError),
    /// The probe guest went another way than any it has.
    #[error("the probe guest came to {found} where {wanted} was due")]
    Astray {
        /// What was due.
        wanted: &'static str,
        /// What came.
        found: String,
    },
}

/// A virtual machine that runs a probe guest.
pub trait Subject: Vcpu {
    /// Back to the program's first instruction. Memory stays as it is.
    ///
    /// # Errors
    /// The host's failure.
    fn restart(&mut self) -> Result<(), CpuError>;

    /// Kicks at irregular times from now on, or no more. The same `seed` gives the same delays.
    fn disturb(&mut self, seed: Option<u64>);

    /// Makes the next run come back after `delay` if nothing else ends it.
    ///
    /// # Errors
    /// The host's failure.
    fn kick_after(&mut self, delay: Duration) -> Result<(), CpuError>;

    /// One single step. Settles first.
    ///
    /// # Errors
    /// The host's failure.
    fn step(&mut self) -> Result<Reached, CpuError>;

    /// Runs to the instruction at `address`, which is found by a hardware breakpoint.
    ///
    /// # Errors
    /// The host's failure.
    fn run_to_breakpoint(&mut self, address: u64) -> Result<Reached, CpuError>;

    /// Pages written since this was last asked, by number.
    ///
    /// # Errors
    /// The host's failure.
    fn dirty_pages(&mut self) -> Result<BTreeSet<u64>, CpuError>;

    /// Guest memory.
    fn memory(&self) -> &Memory;

    /// The same state in a new virtual machine.
    ///
    /// # Errors
    /// The host's failure.
    fn transplant(self: Box<Self>) -> Result<Box<dyn Subject>, ProbeError>;
}

/// Makes subjects.
pub trait Bench {
    /// A subject about to execute the first instruction of its program.
    ///
    /// # Errors
    /// [`ProbeError`].
    fn subject(&self, setup: &Setup) -> Result<Box<dyn Subject>, ProbeError>;
}

/// An entry to the next exit.
pub const TO_EXIT: Entry = Entry {
    interrupt: None,
    stop_at_window: false,
    horizon: Horizon::Exit,
};

/// Runs to the next exit, through kicks.
///
/// # Errors
/// The host's failure.
pub fn run_to_exit(subject: &mut dyn Subject) -> Result<Exit, CpuError> {
    run_through_kicks(subject, TO_EXIT)
}

/// Runs from `entry` through kicks; the interrupt of the entry is given once.
///
/// # Errors
/// The host's failure.
pub fn run_through_kicks(subject: &mut dyn Subject, entry: Entry) -> Result<Exit, CpuError> {
    let mut exit = subject.run(entry)?;
    while exit == Exit::Kicked {
        exit = subject.run(Entry {
            interrupt: None,
            ..entry
        })?;
    }
    Ok(exit)
}

/// Restarts the program with registers that `prepare` has changed, and runs it until it says START.
///
/// # Errors
/// [`ProbeError`].
pub fn start(subject: &mut dyn Subject, prepare: impl FnOnce(&mut Registers)) -> Result<(), ProbeError> {
    subject.restart()?;
    let mut registers = subject.registers()?;
    prepare(&mut registers);
    subject.set_registers(&registers)?;
    match run_to_exit(subject)? {
        Exit::PortWrite {
            port: super::programs::START,
            ..
        } => Ok(()),
        other => Err(astray("START", &other)),
    }
}

/// The error for an exit that no probe guest makes.
#[must_use]
pub fn astray(wanted: &'static str, found: &Exit) -> ProbeError {
    ProbeError::Astray {
        wanted,
        found: describe(found),
    }
}

/// An exit in words.
#[must_use]
pub fn describe(exit: &Exit) -> String {
    use super::programs::{END, START, VECTOR};
    match exit {
        Exit::PortWrite { port: START, .. } => "its start".to_owned(),
        Exit::PortWrite { port: END, .. } => "its end".to_owned(),
        Exit::PortWrite {
            port: VECTOR, value, ..
        } => format!("vector {value}, in the guest"),
        Exit::PortWrite { port, .. } => format!("a write to port {port:#x}"),
        Exit::PortRead { port, .. } => format!("a read of port {port:#x}"),
        Exit::MmioRead { address, .. } => format!("a read of {address:#x}"),
        Exit::MmioWrite { address, .. } => format!("a write to {address:#x}"),
        Exit::Halt => "HLT".to_owned(),
        Exit::Window => "an IRQ window".to_owned(),
        Exit::Instruction { instructions } => format!("instruction {instructions}"),
        Exit::Kicked => "a kick".to_owned(),
        Exit::Fault(why) => format!("a fault: {why}"),
    }
}

/// Instructions of its counted loop that the guest has executed, if it is there and its state is
/// one of those it has.
#[must_use]
pub fn loop_position(registers: &Registers, rounds: u64) -> Option<u64> {
    let Registers {
        rip, rsi, rbx, rcx, ..
    } = *registers;
    // INC, DEC, JNZ are at 0, 3 and 6; behind the loop, at 8, the last JNZ is done.
    let (whole, part, decremented) = match rip.checked_sub(rsi)? {
        0 => (rbx, 0, rbx),
        3 => (rbx.checked_sub(1)?, 1, rbx.checked_sub(1)?),
        6 => (rbx.checked_sub(1)?, 2, rbx),
        8 if rcx == 0 => (rbx, 0, rbx),
        _ => return None,
    };
    (rounds.checked_sub(decremented) == Some(rcx)).then_some(whole * 3 + part)
}

/// Small numbers in no order, the same for the same seed (xorshift64, Marsaglia 2003).
#[derive(Clone, Debug)]
pub struct Numbers(u64);

impl Numbers {
    /// From a seed.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(seed | 1 << 63)
    }

    /// The next, below `bound` (which is not 0).
    pub fn below(&mut self, bound: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) % bound.max(1)
    }
}
