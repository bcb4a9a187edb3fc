//! MSR policy: the guest has what 64-bit mode needs; every other access is a general-protection
//! fault.
//!
//! So no live register (time-stamp counter, APERF/MPERF, performance counters, KVM's own
//! 0x4b56_4dxx) can be read. Numbers: AMD APM volume 2, appendix A.

use super::host::HostError;
use kvm_ioctls::{MsrFilterDefaultAction, MsrFilterRange, MsrFilterRangeFlags, VmFd};
use lockstep_core::machine::cpu::cpuid::Leaf;

/// The first of those of SYSENTER. A processor of AMD does not have that instruction in 64-bit
/// mode, and 32 bits of each register at most; how many KVM keeps differs between a write of the
/// guest and one of ours (`svm_set_msr` in arch/x86/kvm/svm/svm.c). A guest that believes to be on
/// one is refused them, and does without.
const SYSENTER: u32 = 0x174;
/// Beginning of AMD's name, in EBX of CPUID leaf 0.
const AMD: u32 = u32::from_le_bytes(*b"Auth");

/// First number and count of each allowed range.
const ALLOWED: [(u32, u32); 4] = [
    // SYSENTER_CS, _ESP, _EIP.
    (SYSENTER, 3),
    // PAT.
    (0x277, 1),
    // EFER, STAR, LSTAR, CSTAR, SFMASK.
    (0xc000_0080, 5),
    // FS_BASE, GS_BASE, KERNEL_GS_BASE, TSC_AUX.
    (0xc000_0100, 4),
];

/// Those of them that are among the system registers too: EFER, FS_BASE, GS_BASE.
const IN_SYSTEM_REGISTERS: [u32; 3] = [0xc000_0080, 0xc000_0100, 0xc000_0101];

/// What a guest may have written that is in no other register, in ascending order.
pub(super) fn saved() -> impl Iterator<Item = u32> {
    let allowed = ALLOWED.into_iter().flat_map(|(base, count)| base..base + count);
    allowed.filter(|number| !IN_SYSTEM_REGISTERS.contains(number))
}

/// Denies every MSR but the allowed ones to a guest with this CPUID table.
///
/// # Errors
/// [`HostError::Failed`].
pub fn filter(vm: &VmFd, cpuid: &[Leaf]) -> Result<(), HostError> {
    // One set bit for each register of a range; no range has more than eight.
    let bitmap = [0xff];
    let is_amd = cpuid
        .iter()
        .any(|leaf| leaf.function == 0 && matches!(leaf.registers, [_, AMD, _, _]));
    let allowed = ALLOWED
        .into_iter()
        .filter(|(base, _)| !(is_amd && *base == SYSENTER));
    let ranges: Vec<MsrFilterRange<'_>> = allowed
        .map(|(base, msr_count)| MsrFilterRange {
            flags: MsrFilterRangeFlags::READ | MsrFilterRangeFlags::WRITE,
            base,
            msr_count,
            bitmap: &bitmap,
        })
        .collect();
    vm.set_msr_filter(MsrFilterDefaultAction::DENY, &ranges)
        .map_err(HostError::failed("set the MSR filter"))
}
