//! The whole state of a vCPU, taken from one and put into another: all that KVM tells of it.

#![allow(unsafe_code, reason = "the extended state is of variable size")]

use crate::kvm::vcpu::{Core, failed};
use crate::machine::cpu::CpuError;
use kvm_bindings::{
    Msrs, kvm_debugregs, kvm_msr_entry, kvm_regs, kvm_sregs, kvm_vcpu_events, kvm_xcrs, kvm_xsave,
};

/// Registers of SYSCALL and of the segment bases.
const MSRS: [u32; 8] = [
    0xc000_0081,
    0xc000_0082,
    0xc000_0083,
    0xc000_0084,
    0xc000_0100,
    0xc000_0101,
    0xc000_0102,
    // PAT.
    0x277,
];

/// State of a vCPU between two instructions.
pub struct State {
    registers: kvm_regs,
    system: kvm_sregs,
    extended: Box<kvm_xsave>,
    extended_control: kvm_xcrs,
    debug: kvm_debugregs,
    events: kvm_vcpu_events,
    msrs: Msrs,
}

impl State {
    /// That of `core`.
    ///
    /// # Errors
    /// The host's failure.
    pub fn of(core: &mut Core) -> Result<Self, CpuError> {
        core.set_stepping(false)?;
        let registers = core.registers()?;
        let vcpu = core.vcpu();
        let wanted = MSRS.map(|index| kvm_msr_entry {
            index,
            ..Default::default()
        });
        let mut msrs = Msrs::from_entries(&wanted).map_err(|why| CpuError {
            action: "make an MSR list",
            why: format!("{why:?}"),
        })?;
        let read = vcpu.get_msrs(&mut msrs).map_err(failed("read MSRs"))?;
        complete("read MSRs", read)?;
        Ok(Self {
            registers,
            system: vcpu.get_sregs().map_err(failed("read system registers"))?,
            extended: Box::new(vcpu.get_xsave().map_err(failed("read extended state"))?),
            extended_control: vcpu
                .get_xcrs()
                .map_err(failed("read extended control registers"))?,
            debug: vcpu.get_debug_regs().map_err(failed("read debug registers"))?,
            events: vcpu.get_vcpu_events().map_err(failed("read pending events"))?,
            msrs,
        })
    }

    /// With this type in TR, which upstream KVM for AMD processors always tells as busy.
    #[must_use]
    pub fn with_task_type(mut self, task_type: u8) -> Self {
        self.system.tr.type_ = task_type;
        self
    }

    /// Into `core`.
    ///
    /// # Errors
    /// The host's failure.
    pub fn put(&self, core: &mut Core) -> Result<(), CpuError> {
        let vcpu = core.vcpu();
        vcpu.set_sregs(&self.system)
            .map_err(failed("set system registers"))?;
        vcpu.set_xcrs(&self.extended_control)
            .map_err(failed("set extended control registers"))?;
        // SAFETY: no feature with a state beyond `kvm_xsave`'s own size was enabled for this process.
        unsafe { vcpu.set_xsave(&self.extended) }.map_err(failed("set extended state"))?;
        vcpu.set_debug_regs(&self.debug)
            .map_err(failed("set debug registers"))?;
        complete("set MSRs", vcpu.set_msrs(&self.msrs).map_err(failed("set MSRs"))?)?;
        core.set_registers(self.registers);
        core.vcpu()
            .set_regs(&self.registers)
            .map_err(failed("set registers"))?;
        core.vcpu()
            .set_vcpu_events(&self.events)
            .map_err(failed("set pending events"))
    }
}

fn complete(action: &'static str, done: usize) -> Result<(), CpuError> {
    let why = || format!("only {done} of {}", MSRS.len());
    if done == MSRS.len() {
        Ok(())
    } else {
        Err(CpuError { action, why: why() })
    }
}
