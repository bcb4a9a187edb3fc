//! A scripted vCPU for unit tests: it comes back from each run as its script says, and remembers
//! what was asked of it.
//!
//! Like a real one it leaves an access unfinished until it is settled: only then is the instruction
//! pointer known, and only then has a port read changed RAX.

use super::EntryState;
use super::saved::SavedEvents;
use super::{ComparedCpu, CpuError, Entry, Exit, Registers, SavedCpu, SystemRegisters, Vcpu};
use crate::machine::page_set::PageSet;
use std::collections::VecDeque;

/// Interrupt shadow in its saved form where it cannot take an interrupt.
const SHADOW: u8 = 1;

/// One run: how it ends, and how the guest stands then.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Turn {
    exit: Exit,
    rip: u64,
    interruptible: bool,
    whole: bool,
}

impl Turn {
    /// A run that ends with `exit`, where the guest can take an interrupt.
    pub fn new(exit: Exit) -> Self {
        Self {
            exit,
            rip: 0x10_0000,
            interruptible: true,
            whole: true,
        }
    }

    /// The same, where the guest cannot take one.
    pub fn closed(exit: Exit) -> Self {
        Self {
            interruptible: false,
            ..Self::new(exit)
        }
    }

    /// The same, with another part of the same instruction to come.
    pub fn part(exit: Exit) -> Self {
        Self {
            whole: false,
            ..Self::closed(exit)
        }
    }

    /// The same, with this instruction pointer behind the exit.
    pub fn at(self, rip: u64) -> Self {
        Self { rip, ..self }
    }
}

/// The vCPU.
#[derive(Clone, Debug, Default)]
pub struct FakeCpu {
    script: VecDeque<Turn>,
    /// Entries with which it was run, in order.
    pub entries: Vec<Entry>,
    /// Answers it was given.
    pub supplied: Vec<u64>,
    /// Its general registers.
    pub registers: Registers,
    /// Its system registers.
    pub system: SystemRegisters,
    /// CR4 as it was last set.
    pub cr4: u64,
    /// Times that a saved state was put into it.
    pub loaded: u32,
    /// Writes to memory are logged.
    pub logs_writes: bool,
    /// Pages that are found written when this is next asked.
    pub written: PageSet,
    /// Pages that each run writes.
    pub writes: PageSet,
    /// Pages that may be other than zeros.
    pub given: PageSet,
    interruptible: bool,
    within: bool,
    /// Bytes of a port read that is not finished; 0 for another access.
    pending: Option<u8>,
}

impl FakeCpu {
    /// A vCPU that runs as `script` says.
    pub fn new(script: impl IntoIterator<Item = Turn>) -> Self {
        Self {
            script: script.into_iter().collect(),
            ..Self::default()
        }
    }

    /// Runs of the script that have not been made.
    pub fn left(&self) -> usize {
        self.script.len()
    }

    /// Those runs: the script of whoever takes over.
    pub fn rest(&self) -> Vec<Turn> {
        self.script.iter().cloned().collect()
    }

    fn finish(&mut self) {
        let (Some(size_bytes), Some(value)) = (self.pending.take(), self.supplied.last()) else {
            return;
        };
        let low = match size_bytes {
            0 => return,
            1 => 0xff,
            2 => 0xffff,
            _ => 0xffff_ffff,
        };
        // A 32-bit result clears the upper half; a shorter one leaves the rest.
        let kept = if size_bytes == 4 {
            0
        } else {
            self.registers.rax & !low
        };
        self.registers.rax = kept | value & low;
    }
}

impl Vcpu for &mut FakeCpu {
    fn run(&mut self, entry: Entry) -> Result<Exit, CpuError> {
        self.finish();
        self.entries.push(entry);
        self.written.add(&self.writes);
        let over = || CpuError {
            action: "follow its script",
            why: "the script is over".to_owned(),
        };
        let turn = self.script.pop_front().ok_or_else(over)?;
        self.registers.rip = turn.rip;
        self.interruptible = turn.interruptible;
        self.within = !turn.whole;
        self.pending = match turn.exit {
            Exit::PortRead { size_bytes, .. } => Some(size_bytes),
            Exit::PortWrite { .. } | Exit::MmioRead { .. } | Exit::MmioWrite { .. } => Some(0),
            _ => None,
        };
        Ok(turn.exit)
    }

    fn supply(&mut self, value: u64) {
        self.supplied.push(value);
    }

    fn settle(&mut self) -> Result<(), CpuError> {
        self.finish();
        Ok(())
    }

    fn is_whole(&mut self) -> Result<bool, CpuError> {
        self.settle()?;
        Ok(!self.within)
    }

    fn rip(&mut self) -> Option<u64> {
        self.pending.is_none().then_some(self.registers.rip)
    }

    fn interruptible(&mut self) -> Result<bool, CpuError> {
        self.settle()?;
        Ok(self.interruptible)
    }

    fn rax_at_exit(&mut self) -> u64 {
        self.registers.rax
    }

    fn registers(&mut self) -> Result<Registers, CpuError> {
        self.settle()?;
        Ok(self.registers)
    }

    fn set_registers(&mut self, registers: &Registers) -> Result<(), CpuError> {
        self.settle()?;
        self.registers = *registers;
        Ok(())
    }

    fn system_registers(&mut self) -> Result<SystemRegisters, CpuError> {
        self.settle()?;
        Ok(self.system)
    }

    fn power_on(&mut self, entry: &EntryState) -> Result<(), CpuError> {
        self.settle()?;
        self.registers = entry.registers;
        self.loaded += 1;
        Ok(())
    }

    fn set_cr4(&mut self, value: u64) -> Result<(), CpuError> {
        self.settle()?;
        self.cr4 = value;
        Ok(())
    }

    fn compared(&mut self) -> Result<ComparedCpu, CpuError> {
        Ok(self.save()?.compared())
    }

    fn save(&mut self) -> Result<SavedCpu, CpuError> {
        self.settle()?;
        Ok(SavedCpu {
            registers: self.registers,
            events: SavedEvents {
                shadow: if self.interruptible { 0 } else { SHADOW },
                ..SavedEvents::default()
            },
            ..SavedCpu::default()
        })
    }

    fn load(&mut self, saved: &SavedCpu) -> Result<(), CpuError> {
        self.registers = saved.registers;
        self.interruptible = saved.events.shadow == 0;
        self.loaded += 1;
        Ok(())
    }

    fn count_exit(&mut self) -> Result<(), CpuError> {
        Ok(())
    }

    fn log_writes(&mut self, on: bool) -> Result<(), CpuError> {
        self.logs_writes = on;
        Ok(())
    }

    fn written_pages(&mut self) -> Result<PageSet, CpuError> {
        Ok(std::mem::take(&mut self.written))
    }

    fn given_pages(&self) -> PageSet {
        self.given.clone()
    }

    fn restore(self, saved: &SavedCpu) -> Result<Self, CpuError> {
        self.registers = saved.registers;
        self.interruptible = saved.events.shadow == 0;
        Ok(self)
    }
}
