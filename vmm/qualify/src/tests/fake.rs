//! A subject on the interpreter, which does everything right but for its faults. Kicks come after
//! instructions, not after times.

use super::fault::Fault;
use super::interpreter::{INTERRUPT_FLAG, Interpreter, TRAP_FLAG};
use crate::bench::{Numbers, ProbeError, Reached, Ring, Setup, Subject, TO_EXIT};
use crate::programs;
use crate::programs::instructions::{FORBIDDEN_TSC, HIDDEN, Outcome, RING_0, Trial};
use crate::stage;
use iced_x86::{Mnemonic, OpKind};
use lockstep_core::machine::cpu::EntryState;
use lockstep_core::machine::cpu::{
    ComparedCpu, CpuError, Entry, Exit, Registers, SavedCpu, SystemRegisters, Vcpu,
};
use lockstep_core::machine::door::Horizon;
use lockstep_core::machine::memory::{self, Memory};
use lockstep_core::machine::page_set::PageSet;
use lockstep_kvm::ClockKind;
use lockstep_kvm::HostError;
use std::collections::BTreeSet;
use std::time::Duration;
use vm_memory::{Bytes, GuestAddress};

/// How many instructions this host makes in a microsecond.
const INSTRUCTIONS_PER_US: u64 = 8;
/// Disturbing kicks come after at most so many.
const DISTURBED_MAX: u64 = 96;
/// What a late window is late by.
const LATE: u64 = 3;

pub struct FakeSubject {
    cpu: Interpreter,
    setup: Setup,
    faults: Vec<Fault>,
    /// Instructions since the last exit, as the clock counts them.
    counted: u64,
    /// Instructions until a kick comes.
    kick: Option<u64>,
    disturbance: Option<Numbers>,
    /// A port read waits for its answer.
    reading: bool,
    answer: u64,
    steps: u64,
    /// Never the same twice: what a fault may be a function of.
    erratic: Numbers,
}

impl FakeSubject {
    pub fn new(setup: &Setup, faults: &[Fault]) -> Result<Self, ProbeError> {
        if faults.contains(&Fault::NoClock(setup.clock)) {
            return Err(HostError::Clock {
                clock: setup.clock.to_string(),
                why: "there is none".to_owned(),
            }
            .into());
        }
        let mut subject = Self {
            cpu: Interpreter::new(stage::set(&setup.program)?),
            setup: setup.clone(),
            faults: faults.to_vec(),
            counted: 0,
            kick: None,
            disturbance: None,
            reading: false,
            answer: 0,
            steps: 0,
            erratic: Numbers::new(1),
        };
        subject.restart()?;
        Ok(subject)
    }

    fn has(&self, fault: Fault) -> bool {
        self.faults.contains(&fault)
    }

    fn finish(&mut self) {
        if std::mem::take(&mut self.reading) {
            self.cpu.registers.rax = self.answer & 0xffff_ffff;
        }
    }

    /// The single instruction that is on trial here, if one is.
    fn on_trial(&self) -> Option<&'static Trial> {
        if self.cpu.registers.rip != stage::PROGRAM {
            return None;
        }
        let is_there = |trial: &&Trial| {
            let program = programs::once(trial.code);
            let mut bytes = vec![0; program.len()];
            let place = GuestAddress(stage::PROGRAM);
            self.cpu.memory.read_slice(&mut bytes, place).unwrap();
            bytes == program
        };
        let forbidden = self.setup.tsc_forbidden.then_some(&FORBIDDEN_TSC);
        let all = forbidden.into_iter().chain(&RING_0).chain(&HIDDEN);
        all.filter(|trial| trial.name != "CPUID").find(is_there)
    }

    fn try_out(&mut self, trial: &Trial) -> Option<Exit> {
        if self.has(Fault::CannotRun(trial.name)) {
            return Some(Exit::Fault("it cannot".to_owned()));
        }
        self.cpu.registers.rip += trial.code.len() as u64;
        match trial.expected {
            Outcome::Vector(vector) if !self.has(Fault::Carries(trial.name)) => self.cpu.deliver(vector),
            _ => {}
        }
        None
    }

    /// One instruction.
    fn execute(&mut self) -> Option<Exit> {
        self.counted += 1;
        if let Some(trial) = self.on_trial() {
            return self.try_out(trial);
        }
        let next = self.cpu.next();
        let strings = self.has(Fault::MiscountsStrings(self.setup.clock));
        if next.mnemonic() == Mnemonic::Stosb && strings {
            self.counted += self.erratic.below(8);
        }
        let port = matches!(next.mnemonic(), Mnemonic::Out | Mnemonic::In);
        if port && self.cpu.ring == Ring::Three && self.has(Fault::NoPorts) {
            self.cpu.deliver(13);
            return None;
        }
        let leaf = self.cpu.registers.rax as u32;
        let exit = self.cpu.execute();
        if next.mnemonic() == Mnemonic::Cpuid && self.has(Fault::LeaksCpuid(leaf)) {
            self.cpu.registers.rdx ^= 1;
        }
        self.reading = matches!(exit, Some(Exit::PortRead { .. }));
        if exit.is_some() {
            self.counted = 0;
        }
        exit
    }

    /// True if the next instruction writes to memory: a host may have to map that first.
    fn maps_page(&mut self) -> bool {
        let next = self.cpu.next();
        next.mnemonic() == Mnemonic::Mov && next.op0_kind() == OpKind::Memory
    }

    /// True if a run that is to stop at the window stops here.
    fn at_window(&mut self, late: &mut u64) -> bool {
        if self.has(Fault::NoWindow) {
            return false;
        }
        if !self.cpu.interruptible() {
            let forgotten = self.has(Fault::ForgetsShadow) && self.cpu.shadow && self.maps_page();
            return forgotten || self.has(Fault::EarlyWindow);
        }
        if self.has(Fault::LateWindow(self.cpu.ring)) && *late > 0 {
            *late -= 1;
            return false;
        }
        true
    }

    fn kicked(&mut self, horizon: Horizon) -> Exit {
        let next = self.cpu.next();
        let harmless = matches!(next.mnemonic(), Mnemonic::Xor | Mnemonic::Rol);
        if harmless && self.has(Fault::KickSkips) {
            self.cpu.registers.rip = next.next_ip();
        }
        let clock = self.setup.clock;
        let silent = clock == ClockKind::None || self.has(Fault::Declines(clock, self.cpu.ring));
        if silent || horizon != Horizon::Kick {
            return Exit::Kicked;
        }
        Exit::Instruction {
            instructions: self.counted + u64::from(self.has(Fault::Miscounts(clock))),
        }
    }

    /// The exit of a clock that stops here.
    fn at_stop(&self, horizon: Horizon) -> Option<Exit> {
        let Horizon::Instructions(target) = horizon else {
            return None;
        };
        let clock = self.setup.clock;
        let reached = target + u64::from(self.has(Fault::Overshoots(clock))) == self.counted;
        (reached && !self.has(Fault::NeverStops(clock))).then_some(Exit::Instruction { instructions: target })
    }

    fn give(&mut self, vector: u8) {
        if self.has(Fault::LateInterrupt) {
            let _ = self.execute();
        }
        if self.has(Fault::LeaksTrapFlag(self.setup.clock)) {
            self.cpu.registers.rflags |= TRAP_FLAG;
        }
        self.cpu.deliver(vector);
    }
}

impl Vcpu for FakeSubject {
    fn run(&mut self, entry: Entry) -> Result<Exit, CpuError> {
        self.finish();
        if let Some(numbers) = &mut self.disturbance {
            self.kick = Some(1 + numbers.below(DISTURBED_MAX));
        }
        if let Some(vector) = entry.interrupt {
            self.give(vector);
        }
        let mut late = LATE;
        loop {
            if entry.stop_at_window && self.at_window(&mut late) {
                self.counted = 0;
                return Ok(Exit::Window);
            }
            if let Some(stop) = self.at_stop(entry.horizon) {
                return Ok(stop);
            }
            match &mut self.kick {
                Some(0) => {
                    self.kick = None;
                    return Ok(self.kicked(entry.horizon));
                }
                Some(left) => *left -= 1,
                None => {}
            }
            if let Some(exit) = self.execute() {
                return Ok(exit);
            }
        }
    }

    fn supply(&mut self, value: u64) {
        self.answer = value;
    }

    fn settle(&mut self) -> Result<(), CpuError> {
        self.finish();
        Ok(())
    }

    fn is_whole(&mut self) -> Result<bool, CpuError> {
        self.settle()?;
        Ok(true)
    }

    fn rip(&mut self) -> Option<u64> {
        Some(self.cpu.registers.rip)
    }

    fn interruptible(&mut self) -> Result<bool, CpuError> {
        self.finish();
        Ok(self.cpu.interruptible())
    }

    fn rax_at_exit(&mut self) -> u64 {
        self.cpu.registers.rax
    }

    fn registers(&mut self) -> Result<Registers, CpuError> {
        self.finish();
        Ok(self.cpu.registers)
    }

    fn set_registers(&mut self, registers: &Registers) -> Result<(), CpuError> {
        self.finish();
        self.cpu.registers = *registers;
        Ok(())
    }

    fn system_registers(&mut self) -> Result<SystemRegisters, CpuError> {
        unreachable!("it runs no kernel")
    }

    fn power_on(&mut self, _entry: &EntryState) -> Result<(), CpuError> {
        unreachable!("it runs no kernel")
    }

    fn set_cr4(&mut self, _value: u64) -> Result<(), CpuError> {
        unreachable!("it runs no kernel")
    }

    fn compared(&mut self) -> Result<ComparedCpu, CpuError> {
        Ok(self.save()?.compared())
    }

    fn save(&mut self) -> Result<SavedCpu, CpuError> {
        Ok(SavedCpu {
            registers: self.registers()?,
            ..SavedCpu::default()
        })
    }

    fn load(&mut self, _saved: &SavedCpu) -> Result<(), CpuError> {
        unreachable!("no probe meets a common point")
    }

    fn count_exit(&mut self) -> Result<(), CpuError> {
        unreachable!("no probe makes a common point")
    }

    fn log_writes(&mut self, _on: bool) -> Result<(), CpuError> {
        unreachable!("no probe makes a common point")
    }

    fn written_pages(&mut self) -> Result<PageSet, CpuError> {
        unreachable!("no probe makes a common point")
    }

    fn given_pages(&self) -> PageSet {
        PageSet::default()
    }

    fn restore(mut self, saved: &SavedCpu) -> Result<Self, CpuError> {
        self.set_registers(&saved.registers)?;
        Ok(self)
    }
}

impl Subject for FakeSubject {
    fn restart(&mut self) -> Result<(), CpuError> {
        self.reading = false;
        self.kick = None;
        self.counted = 0;
        self.cpu.forget_code();
        self.cpu.ring = self.setup.ring;
        self.cpu.shadow = false;
        let enabled = if self.setup.interrupts_enabled {
            INTERRUPT_FLAG
        } else {
            0
        };
        self.cpu.registers = Registers {
            rip: stage::PROGRAM,
            rsp: match self.setup.ring {
                Ring::Zero => stage::STACK_0,
                Ring::Three => stage::STACK_3,
            },
            rflags: 2 | enabled,
            ..Registers::default()
        };
        Ok(())
    }

    fn disturb(&mut self, seed: Option<u64>) {
        self.disturbance = seed.map(Numbers::new);
    }

    fn kick_after(&mut self, delay: Duration) -> Result<(), CpuError> {
        self.kick = Some(delay.as_micros() as u64 * INSTRUCTIONS_PER_US);
        Ok(())
    }

    fn step(&mut self) -> Result<Reached, CpuError> {
        self.finish();
        self.steps += 1;
        let ring = self.cpu.ring;
        if self.has(Fault::StepToGuest(ring)) {
            let _ = self.execute();
            self.cpu.deliver(1);
            return self.run(TO_EXIT).map(Reached::Exit);
        }
        let tenth = self.steps.is_multiple_of(10);
        let met = tenth && self.disturbance.is_some() && self.has(Fault::LostStepUnderKicks);
        if met || tenth && self.has(Fault::LostStep(ring)) {
            let _ = self.execute();
        }
        Ok(self.execute().map_or(Reached::Stop, Reached::Exit))
    }

    fn run_to_breakpoint(&mut self, address: u64) -> Result<Reached, CpuError> {
        self.finish();
        loop {
            if let Some(exit) = self.execute() {
                return Ok(Reached::Exit(exit));
            }
            if self.cpu.registers.rip == address && !self.has(Fault::NoBreakpoint) {
                break;
            }
        }
        if self.has(Fault::LateBreakpoint) {
            let _ = self.execute();
        }
        Ok(Reached::Stop)
    }

    fn dirty_pages(&mut self) -> Result<BTreeSet<u64>, CpuError> {
        let mut pages = self.cpu.written.clone();
        if !self.has(Fault::DirtyStays) {
            self.cpu.written.clear();
        }
        if self.has(Fault::DirtyMisses) {
            let _ = pages.pop_last();
        }
        if self.has(Fault::DirtyInvents) && !pages.is_empty() {
            pages.extend(pages.clone().iter().map(|page| page + 1));
        }
        Ok(pages)
    }

    fn memory(&self) -> &Memory {
        &self.cpu.memory
    }

    fn transplant(self: Box<Self>) -> Result<Box<dyn Subject>, ProbeError> {
        let mut moved = self;
        let new = stage::set(&[])?;
        let mut bytes = vec![0; memory::size_bytes(&new) as usize];
        moved
            .cpu
            .memory
            .read_slice(&mut bytes, GuestAddress(0))
            .map_err(stage::StageError::from)?;
        new.write_slice(&bytes, GuestAddress(0))
            .map_err(stage::StageError::from)?;
        moved.cpu.memory = new;
        if moved.has(Fault::TransferLosesVectors) {
            moved.cpu.vectors[9][1] = 0;
        }
        if moved.has(Fault::TransferRepeats) {
            let again = moved.cpu.registers.rip;
            let _ = moved.execute();
            moved.cpu.registers.rip = again;
        }
        Ok(moved)
    }
}
