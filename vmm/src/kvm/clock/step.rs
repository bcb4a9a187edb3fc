//! The clock by single stepping: exact wherever the host steps exactly, and slow.
//!
//! Ring 3 is stepped only where [`super::probe`] found that to be exact; elsewhere the guest runs freely from where it enters
//! ring 3 to its next exit, and nothing enters there.
//!
//! The trap flag would leak into the frame that an interrupt pushes, so stepping is off while one is delivered; what runs
//! from there to the next exit is not counted, and nothing enters in it. SYSCALL copies the flag into R11: cleared there.

use super::{InstructionClock, probe};
use crate::kvm::host::HostError;
use crate::kvm::vcpu::{Core, Ran};
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
        if self.lost || horizon == Horizon::Exit { self.run_freely(core) } else { self.step_to(core, horizon) }
    }

    fn exited(&mut self, _core: &mut Core) -> Result<(), CpuError> {
        // The access is completed by `enter`, or by the machine, before the next step.
        self.instructions = 0;
        self.lost = false;
        Ok(())
    }
}

impl StepClock {
    /// The clock for a host like this one.
    ///
    /// # Errors
    /// The host's.
    pub fn open() -> Result<Self, HostError> {
        Ok(Self { instructions: 0, lost: false, steps_ring_3: probe::steps_ring_3()? })
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
        loop {
            if horizon == Horizon::Instructions(self.instructions) {
                return Ok(Exit::Instruction { instructions: self.instructions });
            }
            if !self.steps_ring_3 && core.privilege()? != 0 {
                return self.run_freely(core);
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
