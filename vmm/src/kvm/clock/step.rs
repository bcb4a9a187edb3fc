//! The clock by single stepping: exact wherever the host steps exactly, and slow.
//!
//! The trap flag would leak into the frame that an interrupt pushes, so stepping is off while one is delivered; what runs
//! from there to the next exit is not counted, and nothing enters in it. SYSCALL copies the flag into R11: cleared there.

use super::InstructionClock;
use crate::kvm::vcpu::{Core, Ran};
use crate::machine::cpu::{CpuError, Exit};
use crate::machine::door::Horizon;

const SYSCALL: [u8; 2] = [0x0f, 0x05];
const TRAP_FLAG: u64 = 1 << 8;

/// Counts its own steps.
#[derive(Default)]
pub struct StepClock {
    instructions: u64,
    /// An interrupt was delivered since the last exit: where the guest is now is not known.
    lost: bool,
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
        if self.lost {
            core.set_stepping(false)?;
            return match core.run_once()? {
                Ran::Exit(exit) => Ok(exit),
                Ran::Kicked | Ran::Stepped => Ok(Exit::Kicked),
            };
        }
        self.step_to(core, horizon)
    }

    fn exited(&mut self, core: &mut Core) -> Result<(), CpuError> {
        self.instructions = 0;
        self.lost = false;
        // The access is completed by `enter`, or by the machine, before the next step.
        let _ = core;
        Ok(())
    }
}

impl StepClock {
    fn step_to(&mut self, core: &mut Core, horizon: Horizon) -> Result<Exit, CpuError> {
        loop {
            if horizon == Horizon::Instructions(self.instructions) {
                return Ok(Exit::Instruction { instructions: self.instructions });
            }
            let is_syscall = core.instruction_bytes()?.starts_with(&SYSCALL);
            core.set_stepping(true)?;
            match core.run_once()? {
                Ran::Exit(exit) => return Ok(exit),
                Ran::Kicked if horizon == Horizon::Kick => {
                    return Ok(Exit::Instruction { instructions: self.instructions });
                }
                Ran::Kicked => {}
                Ran::Stepped => self.instructions += 1,
            }
            if is_syscall {
                let mut registers = core.registers()?;
                registers.r11 &= !TRAP_FLAG;
                core.set_registers(registers);
            }
        }
    }
}
