//! The vCPU that the machine sees: a core, its instruction clock, and the log of what it writes.

use super::clock;
use super::dirty::{DirtyLog, Logging, given};
use super::host::HostError;
use super::vcpu::clock::{ClockKind, InstructionClock};
use super::vcpu::{Core, convert, convert_back};
use super::vm::Vm;
use lockstep_core::machine::cpu::EntryState;
use lockstep_core::machine::cpu::cpuid::Leaf;
use lockstep_core::machine::cpu::{
    ComparedCpu, CpuError, Entry, Exit, Registers, SavedCpu, SystemRegisters, Vcpu,
};
use lockstep_core::machine::page_set::PageSet;

impl Vm {
    /// Its vCPU with this CPUID table, in the state `entry`. Must be called on the thread that will
    /// run it.
    ///
    /// # Errors
    /// [`HostError`].
    pub fn cpu(self, entry: &EntryState, cpuid: &[Leaf], clock: ClockKind) -> Result<KvmCpu, HostError> {
        let mut core = self.core(entry, cpuid, 0)?;
        let fresh = core.save().map_err(|why| HostError::Failed {
            action: why.action,
            why: why.why,
        })?;
        let clock = clock::open(clock, core.vcpu())?;
        Ok(KvmCpu::new(core, fresh, clock))
    }
}

/// The vCPU with its instruction clock.
pub struct KvmCpu {
    core: Core,
    /// State before it has run.
    fresh: SavedCpu,
    clock: Box<dyn InstructionClock>,
    // Declared before the log that it is of: it switches that off.
    logging: Option<Logging>,
    dirty_log: DirtyLog,
}

impl KvmCpu {
    fn new(core: Core, fresh: SavedCpu, clock: Box<dyn InstructionClock>) -> Self {
        let (vm, memory) = core.vm_and_memory();
        Self {
            core,
            fresh,
            clock,
            logging: None,
            dirty_log: DirtyLog::new(vm, memory),
        }
    }

    /// The vCPU below its clock, for qualification.
    pub fn core(&mut self) -> &mut Core {
        &mut self.core
    }

    /// The log that finds the pages that are written, from any thread.
    #[must_use]
    pub fn dirty_log(&self) -> DirtyLog {
        self.dirty_log.clone()
    }
}

impl Vcpu for KvmCpu {
    fn run(&mut self, entry: Entry) -> Result<Exit, CpuError> {
        self.clock.enter(&mut self.core)?;
        if let Some(exit) = self.core.next_part()? {
            self.clock.exited(&mut self.core)?;
            return Ok(exit);
        }
        if let Some(vector) = entry.interrupt {
            self.clock.interrupting(&mut self.core)?;
            self.core.interrupt(vector)?;
        }
        self.core.request_window(entry.stop_at_window);
        let exit = self.clock.run(&mut self.core, entry.horizon)?;
        if exit.is_counted() {
            self.clock.exited(&mut self.core)?;
        }
        Ok(exit)
    }

    fn supply(&mut self, value: u64) {
        self.core.supply(value);
    }

    fn settle(&mut self) -> Result<(), CpuError> {
        self.core.settle()
    }

    fn is_whole(&mut self) -> Result<bool, CpuError> {
        self.core.is_whole()
    }

    fn rip(&mut self) -> Option<u64> {
        self.core.rip()
    }

    fn interruptible(&mut self) -> Result<bool, CpuError> {
        self.core.interruptible()
    }

    fn rax_at_exit(&mut self) -> u64 {
        self.core.rax()
    }

    fn registers(&mut self) -> Result<Registers, CpuError> {
        Ok(convert(&self.core.registers()?))
    }

    fn set_registers(&mut self, registers: &Registers) -> Result<(), CpuError> {
        self.core.settle()?;
        self.core.set_registers(convert_back(registers));
        Ok(())
    }

    fn system_registers(&mut self) -> Result<SystemRegisters, CpuError> {
        self.core.system_registers()
    }

    fn power_on(&mut self, entry: &EntryState) -> Result<(), CpuError> {
        self.core.load(&self.fresh, &self.dirty_log)?;
        self.core.set_entry_state(entry)?;
        self.clock.restore(self.fresh.clock)
    }

    fn set_cr4(&mut self, value: u64) -> Result<(), CpuError> {
        self.core.set_cr4(value)
    }

    fn compared(&mut self) -> Result<ComparedCpu, CpuError> {
        self.core.compared()
    }

    fn save(&mut self) -> Result<SavedCpu, CpuError> {
        Ok(SavedCpu {
            clock: self.clock.save()?,
            ..self.core.save()?
        })
    }

    fn load(&mut self, saved: &SavedCpu) -> Result<(), CpuError> {
        self.core.load(saved, &self.dirty_log)?;
        self.clock.restore(saved.clock)
    }

    fn count_exit(&mut self) -> Result<(), CpuError> {
        self.clock.exited(&mut self.core)
    }

    fn log_writes(&mut self, on: bool) -> Result<(), CpuError> {
        if on && self.logging.is_none() {
            self.logging = Some(self.dirty_log.start()?);
        }
        if !on {
            self.logging = None;
        }
        Ok(())
    }

    fn written_pages(&mut self) -> Result<PageSet, CpuError> {
        match &self.logging {
            Some(logging) => logging.take(),
            None => Ok(PageSet::default()),
        }
    }

    fn given_pages(&self) -> PageSet {
        given(self.dirty_log.memory())
    }

    fn restore(mut self, saved: &SavedCpu) -> Result<Self, CpuError> {
        self.core.restore(saved)?;
        self.clock.restore(saved.clock)?;
        Ok(self)
    }
}
