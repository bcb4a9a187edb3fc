//! The clock by KVM's statistic `insn_emulation`: exact for CPL 0 on a KVM that emulates CPL 0.
//!
//! A target is approached in bounded runs: the kick timer is set to what the remaining instructions take at the very least, and the last of them,
//! fewer than the emulator runs between two looks at signals, are stepped.
//!
//! CPL 3 runs natively and is not counted: the count names a place only where the guest is in CPL 0, and no kick fell into a REP
//! instruction, which is counted once a batch. The statistic `exits` says nothing about rings: it counts batches and kicks too.
//! Source: Documentation/virt/kvm/api.rst, KVM_GET_STATS_FD.

use super::InstructionClock;
use crate::kvm::host::HostError;
use crate::kvm::kick::KickTimer;
use crate::kvm::statistics::Statistics;
use crate::kvm::vcpu::{Core, Ran, failed};
use crate::machine::cpu::{CpuError, Exit};
use crate::machine::door::Horizon;
use kvm_ioctls::VcpuFd;
use std::time::Duration;

/// The emulator looks at signals at least this often.
const BATCH_INSTRUCTIONS: u64 = 1024;
/// Closer than this, the target is stepped to: one batch already under way and one that the signal comes late.
const STEPPED_INSTRUCTIONS: u64 = 2 * BATCH_INSTRUCTIONS;
/// No host emulates an instruction faster; measured: about 300.
const INSTRUCTION_NS_MIN: u64 = 30;
/// String-operation prefixes.
const REP_PREFIXES: [u8; 2] = [0xf2, 0xf3];
/// Prefixes that may stand before them: segment, operand and address size, LOCK.
const OTHER_PREFIXES: [u8; 9] = [0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf0];

/// Reads the kernel's count.
pub struct StatisticClock {
    statistics: Statistics,
    timer: KickTimer,
    started: bool,
    base_instructions: u64,
    lost: bool,
}

impl StatisticClock {
    /// The clock of `vcpu`, whose thread is the current one.
    ///
    /// # Errors
    /// [`HostError::Clock`] where the statistic is not there.
    pub fn open(vcpu: &VcpuFd) -> Result<Self, HostError> {
        let lacks = |why: String| HostError::Clock { clock: "statistic".to_owned(), why };
        Ok(Self {
            statistics: Statistics::open(vcpu).map_err(|why| lacks(why.to_string()))?,
            timer: KickTimer::for_this_thread().map_err(|why| lacks(why.to_string()))?,
            started: false,
            base_instructions: 0,
            lost: false,
        })
    }

    fn count(&self) -> Result<u64, CpuError> {
        self.statistics.instructions().map_err(failed("read vCPU statistics"))
    }

    fn instructions(&self) -> Result<u64, CpuError> {
        Ok(self.count()?.wrapping_sub(self.base_instructions))
    }

    /// Where a kick found the guest, if that can be said.
    fn position(&mut self, core: &mut Core) -> Result<Exit, CpuError> {
        self.lost |= core.privilege()? != 0 || is_repeated(&core.instruction_bytes()?);
        Ok(if self.lost { Exit::Kicked } else { Exit::Instruction { instructions: self.instructions()? } })
    }

    fn run_to(&mut self, core: &mut Core, target: u64) -> Result<Exit, CpuError> {
        while !self.lost {
            let now = self.instructions()?;
            let Some(remaining) = target.checked_sub(now) else {
                core.set_stepping(false)?;
                let why = format!("the count is {now}, past {target}");
                return Err(CpuError { action: "stop at an instruction", why });
            };
            if remaining == 0 {
                core.set_stepping(false)?;
                return Ok(Exit::Instruction { instructions: target });
            }
            if let Ran::Exit(exit) = self.approach(core, remaining)? {
                core.set_stepping(false)?;
                return Ok(exit);
            }
        }
        core.set_stepping(false)?;
        run_freely(core)
    }

    fn approach(&mut self, core: &mut Core, remaining: u64) -> Result<Ran, CpuError> {
        if remaining > STEPPED_INSTRUCTIONS {
            return self.run_for(core, (remaining - STEPPED_INSTRUCTIONS) * INSTRUCTION_NS_MIN);
        }
        // A step in CPL 3 would be the guest's own debug exception on this kind of KVM.
        if core.privilege()? != 0 {
            self.lost = true;
            return Ok(Ran::Kicked);
        }
        core.set_stepping(true)?;
        core.run_once()
    }

    fn run_for(&mut self, core: &mut Core, time_ns: u64) -> Result<Ran, CpuError> {
        self.timer.arm(Duration::from_nanos(time_ns)).map_err(failed("arm the kick timer"))?;
        let ran = core.run_once();
        self.timer.disarm().map_err(failed("disarm the kick timer"))?;
        ran
    }
}

fn run_freely(core: &mut Core) -> Result<Exit, CpuError> {
    match core.run_once()? {
        Ran::Exit(exit) => Ok(exit),
        Ran::Kicked | Ran::Stepped => Ok(Exit::Kicked),
    }
}

impl InstructionClock for StatisticClock {
    fn enter(&mut self, core: &mut Core) -> Result<(), CpuError> {
        if !self.started {
            core.settle()?;
            self.base_instructions = self.count()?;
            self.started = true;
            self.lost = false;
        }
        Ok(())
    }

    fn interrupting(&mut self, _core: &mut Core) -> Result<(), CpuError> {
        Ok(())
    }

    fn run(&mut self, core: &mut Core, horizon: Horizon) -> Result<Exit, CpuError> {
        if let Horizon::Instructions(target) = horizon {
            return self.run_to(core, target);
        }
        match run_freely(core)? {
            Exit::Kicked if horizon == Horizon::Kick => self.position(core),
            exit => Ok(exit),
        }
    }

    fn exited(&mut self, _core: &mut Core) -> Result<(), CpuError> {
        self.started = false;
        Ok(())
    }
}

fn is_repeated(bytes: &[u8]) -> bool {
    bytes
        .iter()
        .take_while(|byte| REP_PREFIXES.contains(byte) || OTHER_PREFIXES.contains(byte))
        .any(|byte| REP_PREFIXES.contains(byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rep_is_seen_behind_other_prefixes() {
        assert!(is_repeated(&[0xf3, 0xaa]));
        assert!(is_repeated(&[0x66, 0xf3, 0xab]));
        assert!(!is_repeated(&[0xaa, 0xf3]));
        assert!(!is_repeated(&[]));
    }
}
