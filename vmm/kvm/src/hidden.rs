//! What KVM would give a guest unasked, taken away: performance counters and hypercalls.

use super::host::HostError;
use super::kernel_file::first_line;
use kvm_bindings::{
    KVM_CAP_DISABLE_QUIRKS2, KVM_CAP_ENFORCE_PV_FEATURE_CPUID, KVM_CAP_GET_TSC_KHZ, KVM_CAP_PMU_CAPABILITY,
    KVM_CAP_TSC_CONTROL, KVM_PMU_CAP_DISABLE, KVM_X86_QUIRK_FIX_HYPERCALL_INSN, kvm_enable_cap,
};
use kvm_ioctls::{VcpuFd, VmFd};

/// Whether KVM has any performance counters to give to guests.
const PMU_PARAMETER: &str = "/sys/module/kvm/parameters/enable_pmu";

/// A time-stamp counter that is 1% faster: 40 times what KVM takes for the same (its parameter
/// `tsc_tolerance_ppm`, 250).
const FASTER_BY_ONE_IN: u32 = 100;

fn capability(cap: u32, argument: u64) -> kvm_enable_cap {
    kvm_enable_cap {
        cap,
        args: [argument, 0, 0, 0],
        ..Default::default()
    }
}

fn offers(vm: &VmFd, cap: u32, bits: u32) -> bool {
    vm.check_extension_raw(cap.into()) & bits as i32 != 0
}

/// Takes the performance counters away: RDPMC reads them in ring 0, whatever CPUID says. A KVM that
/// cannot take them away must have none.
pub fn performance_counters(vm: &VmFd) -> Result<(), HostError> {
    if offers(vm, KVM_CAP_PMU_CAPABILITY, KVM_PMU_CAP_DISABLE) {
        return vm
            .enable_cap(&capability(KVM_CAP_PMU_CAPABILITY, KVM_PMU_CAP_DISABLE.into()))
            .map_err(HostError::failed("disable performance counters"));
    }
    must_have_none(&first_line(PMU_PARAMETER))
}

/// Refuses a KVM that has performance counters to give, going by its parameter.
fn must_have_none(parameter: &str) -> Result<(), HostError> {
    match parameter {
        "N" | "0" => Ok(()),
        found => Err(HostError::Property {
            property: "performance counters that can be hidden".to_owned(),
            user: "every guest".to_owned(),
            judgement: "no",
            seen: format!(
                "KVM_CAP_PMU_CAPABILITY is not there, and {PMU_PARAMETER} says {found:?}, not N; load kvm with enable_pmu=0"
            ),
        }),
    }
}

/// Keeps KVM from patching VMCALL into VMMCALL, and the other way round, in the guest's memory.
/// A KVM that cannot be kept from that finds none of them in an image (`machine::image::rewrite`).
pub fn hypercall_patching(vm: &VmFd) -> Result<(), HostError> {
    let quirk = KVM_X86_QUIRK_FIX_HYPERCALL_INSN;
    if !offers(vm, KVM_CAP_DISABLE_QUIRKS2, quirk) {
        return Ok(());
    }
    vm.enable_cap(&capability(KVM_CAP_DISABLE_QUIRKS2, quirk.into()))
        .map_err(HostError::failed("keep hypercalls from being patched"))
}

/// Makes KVM refuse the hypercalls that CPUID does not show, which are all: those that code makes
/// that was not in the image.
pub fn hypercalls(vcpu: &VcpuFd, vm: &VmFd) -> Result<(), HostError> {
    if offers(vm, KVM_CAP_ENFORCE_PV_FEATURE_CPUID, 1) {
        vcpu.enable_cap(&capability(KVM_CAP_ENFORCE_PV_FEATURE_CPUID, 1))
            .map_err(HostError::failed("refuse hypercalls"))?;
    }
    clock_pairing(vcpu, vm)
}

/// Makes KVM refuse clock pairing, which writes the host's time into guest memory whatever CPUID
/// says: it does for a vCPU whose time-stamp counter it has to wind on by itself, because it is to
/// run faster than the host's (`kvm_pv_clock_pairing` and `set_tsc_khz` in arch/x86/kvm/x86.c). No
/// guest sees that counter. Where the processor scales it there is no such vCPU
/// (docs/determinism.md, "What is not closed").
fn clock_pairing(vcpu: &VcpuFd, vm: &VmFd) -> Result<(), HostError> {
    if offers(vm, KVM_CAP_TSC_CONTROL, 1) || !offers(vm, KVM_CAP_GET_TSC_KHZ, 1) {
        return Ok(());
    }
    // A host that does not know its own frequency does not run by it, and pairs no clocks.
    let Ok(host_khz) = vcpu.get_tsc_khz() else {
        return Ok(());
    };
    vcpu.set_tsc_khz(host_khz.saturating_add(host_khz / FASTER_BY_ONE_IN))
        .map_err(HostError::failed("refuse clock pairing"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_kvm_without_counters_needs_no_capability_to_hide_them() {
        assert_eq!(must_have_none("N"), Ok(()));
        assert_eq!(must_have_none("0"), Ok(()));
    }

    #[test]
    fn counters_that_cannot_be_hidden_are_refused_with_the_way_out() {
        for parameter in ["Y", "unknown"] {
            let why = must_have_none(parameter).unwrap_err().to_string();
            assert!(
                why.contains("performance counters") && why.contains("enable_pmu=0"),
                "{why}"
            );
        }
    }
}
