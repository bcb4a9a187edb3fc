//! No clock: every execution point is an exit.

use crate::vcpu::clock::{ClockKind, InstructionClock, foreign};
use crate::vcpu::{Core, Ran};
use lockstep_core::machine::cpu::saved::SavedClock;
use lockstep_core::machine::cpu::{CpuError, Exit};
use lockstep_core::machine::door::Horizon;

/// Counts nothing.
pub struct NoClock;

impl InstructionClock for NoClock {
    fn enter(&mut self, _core: &mut Core) -> Result<(), CpuError> {
        Ok(())
    }

    fn interrupting(&mut self, _core: &mut Core) -> Result<(), CpuError> {
        Ok(())
    }

    fn run(&mut self, core: &mut Core, horizon: Horizon) -> Result<Exit, CpuError> {
        if let Horizon::Instructions(target) = horizon {
            let why = format!("the clock `none` cannot stop {target} instructions after an exit");
            return Err(CpuError {
                action: "stop at an instruction",
                why,
            });
        }
        match core.run_once()? {
            Ran::Exit(exit) => Ok(exit),
            Ran::Kicked => Ok(Exit::Kicked),
            Ran::Stepped => Err(CpuError {
                action: "run",
                why: "a single step came unasked".to_owned(),
            }),
        }
    }

    fn exited(&mut self, _core: &mut Core) -> Result<(), CpuError> {
        Ok(())
    }

    fn save(&self) -> Result<SavedClock, CpuError> {
        Ok(SavedClock::None)
    }

    fn restore(&mut self, saved: SavedClock) -> Result<(), CpuError> {
        match saved {
            SavedClock::None => Ok(()),
            other => Err(foreign(ClockKind::None, other)),
        }
    }
}
