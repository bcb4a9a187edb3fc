//! An instruction clock: an instrument that counts, and stops at, instructions between exits.

use super::Core;
use lockstep_core::machine::cpu::saved::SavedClock;
use lockstep_core::machine::cpu::{CpuError, Exit};
use lockstep_core::machine::door::Horizon;

/// Which clock to use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ClockKind {
    /// No clock: events enter at exits.
    #[default]
    None,
    /// Single stepping: exact and slow.
    Step,
    /// KVM's count of emulated instructions: exact for ring 0 on software-assisted KVM.
    Statistic,
}

impl std::fmt::Display for ClockKind {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::None => "none",
            Self::Step => "step",
            Self::Statistic => "statistic",
        })
    }
}

/// Runs the vCPU, and knows where it is between two exits.
pub trait InstructionClock {
    /// Called before each run: the pending access may be completed here, so that counting starts
    /// behind it.
    ///
    /// # Errors
    /// The host's failure.
    fn enter(&mut self, core: &mut Core) -> Result<(), CpuError>;

    /// Called before an interrupt is injected.
    ///
    /// # Errors
    /// The host's failure.
    fn interrupting(&mut self, core: &mut Core) -> Result<(), CpuError>;

    /// Runs to the horizon.
    ///
    /// # Errors
    /// The host's failure; a stop that was asked for and missed is one.
    fn run(&mut self, core: &mut Core, horizon: Horizon) -> Result<Exit, CpuError>;

    /// Called at each counted exit.
    ///
    /// # Errors
    /// The host's failure.
    fn exited(&mut self, core: &mut Core) -> Result<(), CpuError>;

    /// Its place in counting.
    ///
    /// # Errors
    /// The host's failure.
    fn save(&self) -> Result<SavedClock, CpuError>;

    /// Goes on counting from there, on a vCPU that has not run yet.
    ///
    /// # Errors
    /// The host's failure; another clock's state is one.
    fn restore(&mut self, saved: SavedClock) -> Result<(), CpuError>;
}

/// A clock cannot take over what another kind of clock counted.
pub(crate) fn foreign(own: ClockKind, saved: SavedClock) -> CpuError {
    CpuError {
        action: "restore the instruction clock",
        why: format!("the saved state is not one of the clock `{own}`: {saved:?}"),
    }
}
