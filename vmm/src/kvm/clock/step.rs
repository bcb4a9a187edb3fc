//! The clock by single stepping: exact wherever the host steps exactly, and slow.
//!
//! Ring 3 is stepped only where [`super::probe`] found that to be exact; elsewhere the guest runs freely from where it enters
//! ring 3 to its next exit, and nothing enters there.
//!
//! The trap flag would leak into the frame that an interrupt pushes, so stepping is off while one is delivered; what runs
//! from there to the next exit is not counted, and nothing enters in it. SYSCALL copies the flag into R11: cleared there.
//! Kicks are blocked while stepping, and looked for between two steps: a step that a signal cuts short may have been made or not.

use super::{InstructionClock, probe};
use crate::kvm::host::HostError;
use crate::kvm::kick::BlockedKicks;
use crate::kvm::vcpu::{Core, Ran, failed};
use crate::machine::cpu::{CpuError, Exit};
use crate::machine::door::Horizon;

const SYSCALL: [u8; 2] = [0x0f, 0x05];
const TRAP_FLAG: u64 = 1 << 8;

/// Counts its own steps.
pub struct StepClock {
    instructions: u64,
    /// The guest ran without being stepped since the last exit: where it is now is not known.
    lost: bool,
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
        Ok(())
    }
}

/// If the instruction at `from` was SYSCALL, takes the trap flag out of R11 again.
fn clean_up_syscall(core: &mut Core, from: u64) -> Result<(), CpuError> {
    let mut registers = core.registers()?;
    let looks_like_it =
        registers.rcx == from.wrapping_add(SYSCALL.len() as u64) && registers.r11 & TRAP_FLAG != 0;
    if looks_like_it && core.bytes_at(from)?.starts_with(&SYSCALL) {
        registers.r11 &= !TRAP_FLAG;
        core.set_registers(registers);
    }
    Ok(())
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
        loop {
            if horizon == Horizon::Instructions(self.instructions) {
                return Ok(Exit::Instruction {
                    instructions: self.instructions,
                });
            }
            if !self.steps_ring_3 && core.privilege()? != 0 {
                return self.run_freely(core);
            }
            if kicks.take(core).map_err(failed("look for kicks"))? {
                let instructions = self.instructions;
                return Ok(if horizon == Horizon::Kick {
                    Exit::Instruction { instructions }
                } else {
                    Exit::Kicked
                });
            }
            let from = core.registers()?.rip;
            core.set_stepping(true)?;
            match core.run_once()? {
                Ran::Exit(exit) => return Ok(exit),
                // Another signal than a kick: whether the step was made cannot be said.
                Ran::Kicked => {
                    self.lost = true;
                    core.set_stepping(false)?;
                    return Ok(Exit::Kicked);
                }
                Ran::Stepped => {
                    self.instructions += 1;
                    clean_up_syscall(core, from)?;
                }
            }
        }
    }
}
