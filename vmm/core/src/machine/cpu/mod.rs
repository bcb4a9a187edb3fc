//! The virtual CPU as the machine sees it: `run(entry) -> exit`, both plain values.
//!
//! It is implemented by `lockstep_kvm` or, in unit tests, by `fake`.

pub mod cpuid;
#[cfg(test)]
pub mod fake;
pub mod registers;
pub mod saved;

pub use registers::{EntryState, Registers, SystemRegisters};
pub use saved::{ComparedCpu, SavedCpu};

use super::horizon::Horizon;
use super::page_set::PageSet;

/// Values that the vCPU is given when it is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Vector of an external interrupt to deliver first. Only given where [`Vcpu::interruptible`]
    /// said so.
    pub interrupt: Option<u8>,
    /// Stop as soon as the guest can take an interrupt. Only asked where that was found exact.
    pub stop_at_window: bool,
    /// Limit of this run.
    pub horizon: Horizon,
}

/// Why the vCPU stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Exit {
    /// IN: [`Vcpu::supply`] gives the answer.
    PortRead {
        /// Port.
        port: u16,
        /// 1, 2 or 4.
        size_bytes: u8,
    },
    /// OUT.
    PortWrite {
        /// Port.
        port: u16,
        /// 1, 2 or 4.
        size_bytes: u8,
        /// Value, zero-extended.
        value: u32,
    },
    /// Read of an address that is not memory: [`Vcpu::supply`] gives the answer.
    MmioRead {
        /// Guest-physical address.
        address: u64,
        /// 1, 2, 4 or 8.
        size_bytes: u8,
    },
    /// Write to an address that is not memory.
    MmioWrite {
        /// Guest-physical address.
        address: u64,
        /// 1, 2, 4 or 8.
        size_bytes: u8,
        /// Value, zero-extended.
        value: u64,
    },
    /// HLT.
    Halt,
    /// The guest can take an interrupt now (only after `stop_at_window`).
    Window,
    /// Stopped at an exact instruction after the last exit. Not counted as an exit.
    Instruction {
        /// Instructions retired since the last exit.
        instructions: u64,
    },
    /// A kick found the guest where it cannot be stopped exactly. Not counted as an exit.
    Kicked,
    /// An event after which a machine cannot continue: triple fault, an instruction the host cannot
    /// run.
    Fault(String),
}

impl Exit {
    /// True where this exit is of the guest's own making, and so counts in the execution point.
    #[must_use]
    pub fn is_counted(&self) -> bool {
        !matches!(self, Self::Instruction { .. } | Self::Kicked)
    }
}

/// A failure of the host's side of the vCPU. Never the guest's doing.
#[derive(Debug, thiserror::Error)]
#[error("the host's vCPU failed to {action}: {why}")]
pub struct CpuError {
    /// The operation that was tried.
    pub action: &'static str,
    /// The host's answer.
    pub why: String,
}

/// A vCPU in 64-bit mode.
pub trait Vcpu {
    /// Runs from where the last exit left off.
    ///
    /// # Errors
    /// The host's failure; what the guest does wrong is [`Exit::Fault`].
    fn run(&mut self, entry: Entry) -> Result<Exit, CpuError>;

    /// Gives the value the last exit's read waits for; its low bytes are used.
    fn supply(&mut self, value: u64);

    /// Completes the pending access, so that registers are whole and the same on every host.
    ///
    /// # Errors
    /// The host's failure.
    fn settle(&mut self) -> Result<(), CpuError>;

    /// True where the instruction of the last exit is complete. Settles. Where it is not, the next
    /// run gives its next part as an exit of its own; registers say nothing there, and must not be
    /// replaced.
    ///
    /// # Errors
    /// The host's failure.
    fn is_whole(&mut self) -> Result<bool, CpuError>;

    /// Instruction pointer, where it is known without settling.
    fn rip(&mut self) -> Option<u64>;

    /// True where an external interrupt could be delivered right here. Settles.
    ///
    /// # Errors
    /// The host's failure.
    fn interruptible(&mut self) -> Result<bool, CpuError>;

    /// RAX as the guest left it when the last exit began. Not for use after settling.
    fn rax_at_exit(&mut self) -> u64;

    /// General registers. Settles.
    ///
    /// # Errors
    /// The host's failure.
    fn registers(&mut self) -> Result<Registers, CpuError>;

    /// Replaces the general registers. Settles first.
    ///
    /// # Errors
    /// The host's failure.
    fn set_registers(&mut self, registers: &Registers) -> Result<(), CpuError>;

    /// System registers. Settles.
    ///
    /// # Errors
    /// The host's failure.
    fn system_registers(&mut self) -> Result<SystemRegisters, CpuError>;

    /// Replaces CR4. Settles first.
    ///
    /// # Errors
    /// The host's failure, or its refusal of the value.
    fn set_cr4(&mut self, value: u64) -> Result<(), CpuError>;

    /// Puts the vCPU into the state that it has when power comes on, to be entered as `entry` says.
    ///
    /// # Errors
    /// The host's failure.
    fn power_on(&mut self, entry: &EntryState) -> Result<(), CpuError>;

    /// The part that the digest `processor` covers, as [`SavedCpu::compared`] gives it. Settles,
    /// and changes nothing else: digests are taken while the guest is stepped.
    ///
    /// # Errors
    /// The host's failure.
    fn compared(&mut self) -> Result<ComparedCpu, CpuError>;

    /// All of it, to be digested or moved. Settles.
    ///
    /// # Errors
    /// The host's failure; a state that has no saved form is one.
    fn save(&mut self) -> Result<SavedCpu, CpuError>;

    /// Puts a saved state into this vCPU, whatever it has run before. After an error it is not to
    /// be used.
    ///
    /// # Errors
    /// The host's failure, or its refusal of a value.
    fn load(&mut self, saved: &SavedCpu) -> Result<(), CpuError>;

    /// The guest, which a kick has found between two execution points, is taken to be at an exit.
    ///
    /// # Errors
    /// The host's failure.
    fn count_exit(&mut self) -> Result<(), CpuError>;

    /// Logs which pages of memory are written, from now on, or no longer.
    ///
    /// # Errors
    /// The host's failure.
    fn log_writes(&mut self, on: bool) -> Result<(), CpuError>;

    /// Pages of memory that were written since this was last asked, or since the log was switched
    /// on; none while it is off.
    ///
    /// # Errors
    /// The host's failure.
    fn written_pages(&mut self) -> Result<PageSet, CpuError>;

    /// Pages of memory that may be other than zeros: all others were never written.
    fn given_pages(&self) -> PageSet;

    /// This vCPU, which has not run yet, in a saved state. One that cannot be put into it is gone:
    /// nothing half-restored exists.
    ///
    /// # Errors
    /// The host's failure, or its refusal of a value.
    fn restore(self, saved: &SavedCpu) -> Result<Self, CpuError>
    where
        Self: Sized;
}
