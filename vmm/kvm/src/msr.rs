//! MSR policy: the guest has what 64-bit mode needs; every other access is a general-protection
//! fault.
//!
//! So no live register (time-stamp counter, APERF/MPERF, performance counters, KVM's own
//! 0x4b56_4dxx) can be read. Numbers: AMD APM volume 2, appendix A.

use super::host::HostError;
use kvm_ioctls::{MsrFilterDefaultAction, MsrFilterRange, MsrFilterRangeFlags, VmFd};

/// First number and count of each allowed range.
const ALLOWED: [(u32, u32); 4] = [
    // SYSENTER_CS, _ESP, _EIP.
    (0x174, 3),
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

/// Denies every MSR but the allowed ones.
///
/// # Errors
/// [`HostError::Failed`].
pub fn filter(vm: &VmFd) -> Result<(), HostError> {
    // One set bit for each register of a range; no range has more than eight.
    let bitmap = [0xff];
    let ranges = ALLOWED.map(|(base, msr_count)| MsrFilterRange {
        flags: MsrFilterRangeFlags::READ | MsrFilterRangeFlags::WRITE,
        base,
        msr_count,
        bitmap: &bitmap,
    });
    vm.set_msr_filter(MsrFilterDefaultAction::DENY, &ranges)
        .map_err(HostError::failed("set the MSR filter"))
}
