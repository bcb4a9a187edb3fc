//! Running to one of a few places, by hardware breakpoints, with nothing of the guest's changed:
//! its own trap flag stays its own.
//!
//! Source: Documentation/virt/kvm/api.rst, KVM_SET_GUEST_DEBUG; debug and interrupt-gate formats:
//! Intel SDM volume 3, 17.2.4 and 6.14.1.

use super::{Core, Ran, failed};
use kvm_bindings::{
    KVM_GUESTDBG_ENABLE, KVM_GUESTDBG_USE_HW_BP, Msrs, kvm_guest_debug, kvm_guest_debug_arch, kvm_msr_entry,
};
use lockstep_core::machine::cpu::CpuError;

/// Breakpoints that a processor has.
pub const BREAKPOINTS_MAX: usize = 4;
/// DR7: the local enable bits are every second one; an instruction breakpoint has no others.
const ENABLE_BITS: u64 = 2;
const DR7: usize = 7;
const GATE_BYTES: u64 = 16;
const WORD_BYTES: u64 = 8;
/// EFER.SCE.
const SYSTEM_CALL_ENABLE: u64 = 1;
/// IA32_LSTAR.
const ENTRY_OF_SYSCALL: u32 = 0xc000_0082;

impl Core {
    /// One KVM_RUN that ends before the instruction at one of `places`, of which the first
    /// [`BREAKPOINTS_MAX`] count. Where it has ended there, that is a step. A place at which the
    /// guest stands already ends it at once, unless an interrupt is delivered first.
    pub(crate) fn run_to_one_of(&mut self, places: &[u64]) -> Result<Ran, CpuError> {
        self.set_stepping(false)?;
        let mut arch = kvm_guest_debug_arch::default();
        let mut enabled = 0;
        let breakpoints = arch.debugreg.iter_mut().take(BREAKPOINTS_MAX);
        for (number, (register, place)) in breakpoints.zip(places).enumerate() {
            *register = *place;
            enabled |= 1 << (ENABLE_BITS * number as u64);
        }
        arch.debugreg[DR7] = enabled;
        let breaking = kvm_guest_debug {
            control: KVM_GUESTDBG_ENABLE | KVM_GUESTDBG_USE_HW_BP,
            arch,
            ..Default::default()
        };
        self.vcpu
            .set_guest_debug(&breaking)
            .map_err(failed("set breakpoints"))?;
        let ran = self.run_once();
        self.vcpu
            .set_guest_debug(&kvm_guest_debug::default())
            .map_err(failed("take breakpoints away"))?;
        ran
    }

    /// Address of the handler of an exception or interrupt of `vector`, if its gate is there.
    pub(crate) fn handler(&self, vector: u8) -> Result<Option<u64>, CpuError> {
        let table = self
            .vcpu
            .get_sregs()
            .map_err(failed("read system registers"))?
            .idt;
        let offset = u64::from(vector) * GATE_BYTES;
        if offset + GATE_BYTES > u64::from(table.limit) + 1 {
            return Ok(None);
        }
        let gate = table.base.wrapping_add(offset);
        let low = self.word_at(gate)?;
        let high = self.word_at(gate.wrapping_add(WORD_BYTES))?;
        Ok(low
            .zip(high)
            .map(|(low, high)| low & 0xffff | (low >> 48) << 16 | high << 32))
    }

    /// The interrupt that was injected and that the next KVM_RUN delivers, if there is one.
    pub(crate) fn interrupt_to_deliver(&self) -> Result<Option<u8>, CpuError> {
        let events = self
            .vcpu
            .get_vcpu_events()
            .map_err(failed("read pending events"))?;
        Ok((events.interrupt.injected != 0).then_some(events.interrupt.nr))
    }

    /// Address that SYSCALL leads to, if it is enabled.
    pub(crate) fn system_call_entry(&self) -> Result<Option<u64>, CpuError> {
        let system = self.vcpu.get_sregs().map_err(failed("read system registers"))?;
        if system.efer & SYSTEM_CALL_ENABLE == 0 {
            return Ok(None);
        }
        let wanted = kvm_msr_entry {
            index: ENTRY_OF_SYSCALL,
            ..Default::default()
        };
        let mut msrs =
            Msrs::from_entries(&[wanted]).map_err(|why| failed("make an MSR list")(format!("{why:?}")))?;
        let read = self.vcpu.get_msrs(&mut msrs).map_err(failed("read MSRs"))?;
        Ok(msrs
            .as_slice()
            .get(..read)
            .and_then(|entries| entries.first())
            .map(|entry| entry.data))
    }
}
