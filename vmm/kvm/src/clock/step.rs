//! The clock by single stepping: exact wherever the host steps exactly, and slow.
//!
//! Ring 3 is stepped only where [`super::probe`] found that to be exact; elsewhere the guest runs
//! freely from where it enters ring 3 to its next exit, and nothing enters there. Single
//! instructions are not stepped either, or leave the trap flag behind: [`super::passage`]. A guest
//! that steps itself, by its own trap flag, runs freely too: a step would take its traps away. A
//! repeated instruction is one, however many steps it takes.
//!
//! The trap flag would leak into the frame that an interrupt pushes, so stepping is off while one
//! is delivered; what runs from there to the next exit is not counted, and nothing enters in it.
//! Kicks are blocked while stepping, and looked for between two steps: a step that a signal cuts
//! short may have been made or not.

use super::passage::{Passage, Step};
use super::probe;
use crate::host::HostError;
use crate::kick::BlockedKicks;
use crate::vcpu::clock::{ClockKind, InstructionClock, foreign};
use crate::vcpu::{Core, Ran, failed};
use lockstep_core::machine::cpu::saved::SavedClock;
use lockstep_core::machine::cpu::{CpuError, Exit};
use lockstep_core::machine::door::Horizon;

/// Counts its own steps.
pub struct StepClock {
    instructions: u64,
    /// The guest ran without being stepped since the last exit: where it is now is not known.
    lost: bool,
    /// It stands within a repeated instruction.
    repeating: bool,
    steps_ring_3: bool,
}

impl InstructionClock for StepClock {
    fn enter(&mut self, core: &mut Core) -> Result<(), CpuError> {
        core.settle()
    }

    fn interrupting(&mut self, core: &mut Core) -> Result<(), CpuError> {
        self.lost = true;
        core.set_stepping(false)
    }

    fn run(&mut self, core: &mut Core, horizon: Horizon) -> Result<Exit, CpuError> {
        if self.lost || horizon == Horizon::Exit {
            self.run_freely(core)
        } else {
            self.step_to(core, horizon)
        }
    }

    fn exited(&mut self, _core: &mut Core) -> Result<(), CpuError> {
        // The access is completed by `enter`, or by the machine, before the next step.
        self.instructions = 0;
        self.lost = false;
        self.repeating = false;
        Ok(())
    }

    fn save(&self) -> Result<SavedClock, CpuError> {
        let Self {
            instructions,
            lost,
            repeating,
            // The host's own.
            steps_ring_3: _,
        } = *self;
        Ok(SavedClock::Step {
            instructions,
            lost,
            repeating,
        })
    }

    fn restore(&mut self, saved: SavedClock) -> Result<(), CpuError> {
        let SavedClock::Step {
            instructions,
            lost,
            repeating,
        } = saved
        else {
            return Err(foreign(ClockKind::Step, saved));
        };
        (self.instructions, self.lost, self.repeating) = (instructions, lost, repeating);
        Ok(())
    }
}

impl StepClock {
    /// The clock for a host like this one.
    ///
    /// # Errors
    /// The host's.
    pub fn open() -> Result<Self, HostError> {
        Ok(Self {
            instructions: 0,
            lost: false,
            repeating: false,
            steps_ring_3: probe::steps_ring_3()?,
        })
    }

    fn run_freely(&mut self, core: &mut Core) -> Result<Exit, CpuError> {
        self.lost = true;
        core.set_stepping(false)?;
        match core.run_once()? {
            Ran::Exit(exit) => Ok(exit),
            Ran::Kicked | Ran::Stepped => Ok(Exit::Kicked),
        }
    }

    fn step_to(&mut self, core: &mut Core, horizon: Horizon) -> Result<Exit, CpuError> {
        let kicks = BlockedKicks::new().map_err(failed("block kicks"))?;
        // The ring is looked at once: what could leave ring 0 is not stepped where ring 3 is not.
        let steppable = self.steps_ring_3 || core.privilege()? == 0;
        // A kick is obeyed behind a step: a timer that is always due must not hold the guest where
        // it is.
        let from = self.instructions;
        let mut kicked = false;
        loop {
            if horizon == Horizon::Instructions(self.instructions) {
                return Ok(Exit::Instruction {
                    instructions: self.instructions,
                });
            }
            let step = Step::at(core, self.steps_ring_3)?;
            if !steppable
                || core.traps_itself()?
                || matches!(step.passage, Passage::Exits | Passage::Uncounted)
            {
                // Kicks are heard again: this may be long.
                drop(kicks);
                return self.run_freely(core);
            }
            if kicks.has_come().map_err(failed("look for kicks"))? {
                core.forget_kick();
                kicked = true;
            }
            if kicked && self.instructions > from {
                return Ok(self.kicked(horizon));
            }
            core.set_stepping(true)?;
            match core.run_once()? {
                Ran::Exit(exit) => {
                    step.left(core)?;
                    return Ok(exit);
                }
                // Another signal than a kick: whether the step was made cannot be said.
                Ran::Kicked => {
                    step.left(core)?;
                    self.lost = true;
                    core.set_stepping(false)?;
                    return Ok(Exit::Kicked);
                }
                Ran::Stepped => {
                    self.repeating = !step.made(core)?;
                    self.instructions += u64::from(!self.repeating);
                }
            }
        }
    }

    /// Where a kick found the guest: within a repeated instruction there is no position.
    fn kicked(&self, horizon: Horizon) -> Exit {
        if horizon == Horizon::Kick && !self.repeating {
            Exit::Instruction {
                instructions: self.instructions,
            }
        } else {
            Exit::Kicked
        }
    }
}
