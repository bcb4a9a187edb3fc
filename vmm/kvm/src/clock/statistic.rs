//! The clock by KVM's statistic `insn_emulation`: exact for CPL 0 on a KVM that emulates CPL 0.
//!
//! A target is approached in runs to the kick timer, which is set to what the remaining
//! instructions take at the very least, with room for a kick that comes late; the last
//! [`LATE_INSTRUCTIONS_MAX`] are stepped. An open interrupt window would bound a run more closely,
//! but not where the guest closes it before the batch of emulation ends: 21,107 instructions
//! instead of 1,024 were measured. What cannot be stepped is run, to a breakpoint: the delivery of
//! an interrupt, and a guest that steps itself by its own trap flag.
//!
//! The count orders every instruction of CPL 0, but not of CPL 3, which runs natively and cannot be
//! stepped there. So a kick says where the guest is only if the way a replay will step, the last
//! [`LATE_INSTRUCTIONS_MAX`], ran in CPL 0 alone. That is known from the statistic `exits`: it
//! counts one for each batch of emulation, and at least two more for a visit to CPL 3. (It also
//! counts batches that the host's scheduler cut short; such a run is then not believed, and the
//! next kick decides. An exception cuts a batch short too, which may not show.) A kick that falls
//! into a REP instruction, which is counted once a batch, spoils the count until the next exit.
//! Source: Documentation/virt/kvm/api.rst, KVM_GET_STATS_FD.

use super::passage::{self, Passage, Step};
use crate::host::HostError;
use crate::kick::KickTimer;
use crate::statistics::Statistics;
use crate::vcpu::clock::{ClockKind, InstructionClock, foreign};
use crate::vcpu::{Core, Ran, failed};
use kvm_ioctls::VcpuFd;
use lockstep_core::machine::cpu::saved::SavedClock;
use lockstep_core::machine::cpu::{CpuError, Exit};
use lockstep_core::machine::door::Horizon;
use std::time::Duration;

/// The emulator works in batches of at most this many.
const BATCH_INSTRUCTIONS: u64 = 1024;
/// What the emulator does in 5 ms: a kick may come so late (on a loaded host 0.8 ms was seen).
const LATE_INSTRUCTIONS_MAX: u64 = 16 * BATCH_INSTRUCTIONS;
/// Between an interrupt and the next event: the batch in which the first is delivered, a handler,
/// and the batch that is stepped.
const CLEAR_INSTRUCTIONS: u64 = 4 * BATCH_INSTRUCTIONS;
/// No host emulates an instruction faster; measured: about 300.
const INSTRUCTION_NS_MIN: u64 = 30;
/// The shortest run to a kick, 200 us: a kick that comes before the guest was entered (50 us) leads
/// nowhere, time after time. At the fastest it makes 6,667 instructions, of the
/// [`LATE_INSTRUCTIONS_MAX`] there is room for.
const RUN_NS_MIN: u64 = 200_000;
const _: () = assert!(RUN_NS_MIN < LATE_INSTRUCTIONS_MAX * INSTRUCTION_NS_MIN / 2);
/// String-operation prefixes.
const REP_PREFIXES: [u8; 2] = [0xf2, 0xf3];
/// Prefixes that may stand before them: segment, operand and address size, LOCK.
const OTHER_PREFIXES: [u8; 9] = [0x26, 0x2e, 0x36, 0x3e, 0x64, 0x65, 0x66, 0x67, 0xf0];

/// Reads the kernel's count.
pub struct StatisticClock {
    statistics: Statistics,
    timer: KickTimer,
    started: bool,
    /// Instructions at the last exit.
    base_instructions: u64,
    /// Instructions and exits when the current run began.
    run_from: (u64, u64),
    /// Instructions since which every run was in CPL 0 alone.
    ring_0_from: u64,
    /// Instructions before which nothing more enters, because an interrupt was delivered.
    clear_of_interrupt: u64,
    lost: bool,
    /// An interrupt may be waiting for the next KVM_RUN to deliver it.
    delivering: bool,
}

impl StatisticClock {
    /// The clock of `vcpu`, whose thread is the current one.
    ///
    /// # Errors
    /// [`HostError::Clock`] where the statistic is not there.
    pub fn open(vcpu: &VcpuFd) -> Result<Self, HostError> {
        let lacks = |why: String| HostError::Clock {
            clock: "statistic".to_owned(),
            why,
        };
        Ok(Self {
            statistics: Statistics::open(vcpu).map_err(|why| lacks(why.to_string()))?,
            timer: KickTimer::for_this_thread().map_err(|why| lacks(why.to_string()))?,
            started: false,
            base_instructions: 0,
            run_from: (0, 0),
            ring_0_from: 0,
            clear_of_interrupt: 0,
            lost: false,
            delivering: false,
        })
    }

    fn counts(&self) -> Result<(u64, u64), CpuError> {
        self.statistics.read().map_err(failed("read vCPU statistics"))
    }

    fn instructions(&self) -> Result<u64, CpuError> {
        Ok(self.counts()?.0.wrapping_sub(self.base_instructions))
    }

    /// True if the run that a kick has ended was surely in CPL 0 alone; where it may not have been,
    /// a way can begin here at the earliest.
    fn ran_in_ring_0(&mut self, core: &Core) -> Result<bool, CpuError> {
        let (instructions, exits) = self.counts()?;
        let (from_instructions, from_exits) = self.run_from;
        let run = instructions.wrapping_sub(from_instructions);
        let is_sure =
            exits.wrapping_sub(from_exits) <= run.div_ceil(BATCH_INSTRUCTIONS) && core.privilege()? == 0;
        if !is_sure {
            self.ring_0_from = instructions;
        }
        Ok(is_sure)
    }

    /// Position at which a kick found the guest, if it can be determined.
    fn position(&mut self, core: &mut Core) -> Result<Exit, CpuError> {
        self.lost |= is_repeated(&core.instruction_bytes()?);
        if !self.ran_in_ring_0(core)? {
            return Ok(Exit::Kicked);
        }
        let instructions = self.counts()?.0;
        let from_exit = self.ring_0_from == self.base_instructions;
        if self.lost
            || instructions < self.clear_of_interrupt
            || !(from_exit || instructions.wrapping_sub(self.ring_0_from) >= LATE_INSTRUCTIONS_MAX)
        {
            return Ok(Exit::Kicked);
        }
        self.step_once(core, instructions.wrapping_sub(self.base_instructions))
    }

    /// Steps from `instructions` to the next, which is where the guest can be found again: the step
    /// that led there was one instruction. An instruction that is not to be stepped (HLT loses its
    /// exit, IRETQ makes two or ends in ring 3) is not a place to be found at.
    fn step_once(&mut self, core: &mut Core, instructions: u64) -> Result<Exit, CpuError> {
        let step = Step::at(core, false)?;
        if step.passage != Passage::Step || core.traps_itself()? {
            return Ok(Exit::Kicked);
        }
        core.set_stepping(true)?;
        if let Ran::Exit(exit) = step_over(core, &step)? {
            return Ok(exit);
        }
        core.set_stepping(false)?;
        let exact = self.instructions()? == instructions + 1;
        Ok(if exact {
            Exit::Instruction {
                instructions: instructions + 1,
            }
        } else {
            Exit::Kicked
        })
    }

    fn run_to(&mut self, core: &mut Core, target: u64) -> Result<Exit, CpuError> {
        loop {
            let now = self.instructions()?;
            let Some(remaining) = target.checked_sub(now) else {
                core.set_stepping(false)?;
                return Err(missed(format!("the count is {now}, past {target}")));
            };
            if remaining == 0 {
                core.set_stepping(false)?;
                return Ok(Exit::Instruction { instructions: target });
            }
            match self.approach(core, remaining)? {
                Ran::Stepped => {}
                // Stepping ends when the access is complete: a step that is still owed for it would
                // else become the guest's.
                Ran::Exit(exit) => return Ok(exit),
                // Whoever kicked is heard; the next run goes on from here.
                Ran::Kicked => {
                    core.set_stepping(false)?;
                    return Ok(Exit::Kicked);
                }
            }
        }
    }

    /// Comes nearer to the target by at most `remaining` instructions.
    fn approach(&mut self, core: &mut Core, remaining: u64) -> Result<Ran, CpuError> {
        if remaining > LATE_INSTRUCTIONS_MAX {
            core.set_stepping(false)?;
            return self.run_for(core, time_ns(remaining));
        }
        if self.delivering {
            if let Some(vector) = core.interrupt_to_deliver()? {
                return core.run_to_one_of(&passage::deliveries(core, vector)?);
            }
            self.delivering = false;
        }
        if core.privilege()? != 0 {
            // A step in CPL 3 would be the guest's own debug exception on this kind of KVM.
            return Err(missed(
                "the way there leads through ring 3, which cannot be stepped here".to_owned(),
            ));
        }
        let step = Step::at(core, false)?;
        if step.entangles || core.traps_itself()? {
            return core.run_to_one_of(&step.ends(core)?);
        }
        core.set_stepping(true)?;
        step_over(core, &step)
    }

    fn run_for(&mut self, core: &mut Core, time_ns: u64) -> Result<Ran, CpuError> {
        self.timer
            .arm(Duration::from_nanos(time_ns))
            .map_err(failed("arm the kick timer"))?;
        let ran = core.run_once();
        self.timer.disarm().map_err(failed("disarm the kick timer"))?;
        ran
    }
}

/// Longest time for a run that leaves `remaining` instructions less [`LATE_INSTRUCTIONS_MAX`]
/// behind at the most.
fn time_ns(remaining: u64) -> u64 {
    let distance = remaining.saturating_sub(LATE_INSTRUCTIONS_MAX);
    RUN_NS_MIN.max(distance.saturating_mul(INSTRUCTION_NS_MIN))
}

/// One KVM_RUN with stepping on; takes the trap flag from where the guest could find it.
fn step_over(core: &mut Core, step: &Step) -> Result<Ran, CpuError> {
    let ran = core.run_once()?;
    match ran {
        Ran::Stepped => {
            step.made(core)?;
        }
        Ran::Exit(_) | Ran::Kicked => step.left(core)?,
    }
    Ok(ran)
}

fn missed(why: String) -> CpuError {
    CpuError {
        action: "stop at an instruction",
        why,
    }
}

impl InstructionClock for StatisticClock {
    fn enter(&mut self, core: &mut Core) -> Result<(), CpuError> {
        if !self.started {
            if !core.is_whole()? {
                // Its next part is the next exit: nothing is counted on the way there.
                return Ok(());
            }
            core.set_stepping(false)?;
            self.base_instructions = self.counts()?.0;
            self.ring_0_from = self.base_instructions;
            self.started = true;
            self.lost = false;
        }
        self.run_from = self.counts()?;
        Ok(())
    }

    fn interrupting(&mut self, core: &mut Core) -> Result<(), CpuError> {
        // The trap flag must not be in the frame that is pushed, so the way on begins with a run
        // that is not stepped.
        self.clear_of_interrupt = self.counts()?.0 + CLEAR_INSTRUCTIONS;
        self.delivering = true;
        core.set_stepping(false)
    }

    fn run(&mut self, core: &mut Core, horizon: Horizon) -> Result<Exit, CpuError> {
        if let Horizon::Instructions(target) = horizon
            && !self.lost
        {
            let exit = self.run_to(core, target)?;
            // Steps and breakpoints are exits too: what they say of CPL 3 is nothing.
            self.ring_0_from = self.counts()?.0;
            return Ok(exit);
        }
        match core.run_once()? {
            Ran::Exit(exit) => Ok(exit),
            Ran::Kicked if horizon == Horizon::Kick => self.position(core),
            Ran::Kicked | Ran::Stepped => {
                self.ran_in_ring_0(core)?;
                Ok(Exit::Kicked)
            }
        }
    }

    fn exited(&mut self, _core: &mut Core) -> Result<(), CpuError> {
        self.started = false;
        Ok(())
    }

    fn save(&self) -> Result<SavedClock, CpuError> {
        let Self {
            statistics: _,
            timer: _,
            started,
            base_instructions,
            // Set anew by each entry.
            run_from: _,
            ring_0_from,
            clear_of_interrupt,
            lost,
            // Asked of KVM where it may be so.
            delivering: _,
        } = self;
        let now = self.counts()?.0;
        let since_exit = |count: u64| {
            if *started {
                count.wrapping_sub(*base_instructions)
            } else {
                0
            }
        };
        Ok(SavedClock::Statistic {
            started: *started,
            instructions: since_exit(now),
            ring_0_from: since_exit(*ring_0_from),
            clear_of_interrupt: clear_of_interrupt.saturating_sub(now),
            lost: *lost,
        })
    }

    fn restore(&mut self, saved: SavedClock) -> Result<(), CpuError> {
        let SavedClock::Statistic {
            started,
            instructions,
            ring_0_from,
            clear_of_interrupt,
            lost,
        } = saved
        else {
            return Err(foreign(ClockKind::Statistic, saved));
        };
        let now = self.counts()?.0;
        // Before the first count of this vCPU, where the last exit was on another: differences
        // wrap.
        self.base_instructions = now.wrapping_sub(instructions);
        self.ring_0_from = self.base_instructions.wrapping_add(ring_0_from);
        self.clear_of_interrupt = now.saturating_add(clear_of_interrupt);
        (self.started, self.lost, self.delivering) = (started, lost, true);
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
    fn a_run_to_a_kick_is_long_enough_to_enter_the_guest_and_too_short_to_pass_the_target() {
        for remaining in [1, 10, 553, 100_000, u64::MAX / 100].map(|more| LATE_INSTRUCTIONS_MAX + more) {
            let time = time_ns(remaining);
            assert!(time >= RUN_NS_MIN, "{remaining}: {time}");
            assert!(time / INSTRUCTION_NS_MIN < remaining, "{remaining}: {time}");
        }
    }

    #[test]
    fn rep_is_seen_behind_other_prefixes() {
        assert!(is_repeated(&[0xf3, 0xaa]));
        assert!(is_repeated(&[0x66, 0xf3, 0xab]));
        assert!(!is_repeated(&[0xaa, 0xf3]));
        assert!(!is_repeated(&[]));
    }
}
