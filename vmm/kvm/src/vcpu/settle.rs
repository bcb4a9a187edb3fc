//! Completing an access to a port or to device memory, which one instruction may make in several
//! parts.
//!
//! KVM gives out 8 bytes of device memory at a time, and the iterations of a repeated instruction
//! one by one: the KVM_RUN that completes a part comes back with the next
//! (Documentation/virt/kvm/api.rst, KVM_RUN, KVM_EXIT_MMIO; `complete_emulated_mmio` in
//! arch/x86/kvm/x86.c). Each part is an exit of its own, counted like any other, whether completing
//! the one before found it or the next run of the guest. Between two parts the guest is within an
//! instruction: its registers are KVM's own affair, and nothing can interrupt it.

use super::{Core, Ran};
use crate::kick;
use lockstep_core::machine::cpu::{CpuError, Exit};

impl Core {
    /// Completes the pending access, by a KVM_RUN that leaves at once. What that comes back with
    /// instead of nothing is the next exit.
    ///
    /// # Errors
    /// KVM refuses.
    pub fn settle(&mut self) -> Result<(), CpuError> {
        if !self.pending || self.next.is_some() {
            return Ok(());
        }
        self.answer = None;
        self.vcpu.set_kvm_immediate_exit(1);
        let outcome = self.enter();
        kick::restore(&mut self.vcpu.get_kvm_run().immediate_exit);
        match outcome? {
            (Ran::Kicked, _) => self.pending = false,
            // A step that ends with the access itself.
            (Ran::Stepped, _) if self.stepping => self.pending = false,
            next => self.next = Some(next),
        }
        Ok(())
    }

    /// Settles; whether the instruction is complete. Where it is not, the next run gives its next
    /// part.
    pub(crate) fn is_whole(&mut self) -> Result<bool, CpuError> {
        self.settle()?;
        Ok(self.next.is_none())
    }

    /// True if settling has found another part of the instruction.
    pub(crate) fn is_within(&self) -> bool {
        self.next.is_some()
    }

    /// The next part of the instruction, if settling has found one.
    pub(crate) fn next_part(&mut self) -> Result<Option<Exit>, CpuError> {
        if !self.is_within() {
            return Ok(None);
        }
        Ok(Some(match self.run_once()? {
            Ran::Exit(exit) => exit,
            Ran::Kicked | Ran::Stepped => Exit::Kicked,
        }))
    }
}
