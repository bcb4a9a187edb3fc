//! The CPUID tables that guests see: one fixed baseline (x86-64-v2), on every host.
//!
//! A feature is in it only when it is deterministic. Left out on purpose: RDRAND and RDSEED, TSC
//! deadline, x2APIC and APIC (there is none), MONITOR/MWAIT and UMWAIT, XSAVE and what follows from
//! it (XSAVEOPT, XSAVEC, XGETBV(1), AVX), TSX, performance monitoring, APERF/MPERF, and every
//! hypervisor leaf (clocks, steal time, asynchronous page faults). Layout: Intel SDM volume 2A,
//! CPUID; AMD APM volume 3, appendix E.

/// One row: EAX, EBX, ECX, EDX for a leaf and sub-leaf.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Leaf {
    /// EAX on entry.
    pub function: u32,
    /// ECX on entry, where the leaf looks at it.
    pub index: u32,
    /// EAX, EBX, ECX, EDX.
    pub registers: [u32; 4],
}

const fn leaf(function: u32, eax: u32, ebx: u32, ecx: u32, edx: u32) -> Leaf {
    Leaf {
        function,
        index: 0,
        registers: [eax, ebx, ecx, edx],
    }
}

const fn text(four: &[u8; 4]) -> u32 {
    u32::from_le_bytes(*four)
}

/// Leaf 1 ECX: SSE3, SSSE3, CMPXCHG16B, SSE4.1, SSE4.2, MOVBE is left out, POPCNT.
pub const FEATURES_1_ECX: u32 = 1 | 1 << 9 | 1 << 13 | 1 << 19 | 1 << 20 | 1 << 23;
/// Leaf 1 EDX: FPU, DE, PSE, TSC, MSR, PAE, MCE, CX8, SEP, PGE, MCA, CMOV, PAT, PSE36, CLFSH, MMX,
/// FXSR, SSE, SSE2.
pub const FEATURES_1_EDX: u32 = 1
    | 1 << 2
    | 1 << 3
    | 1 << 4
    | 1 << 5
    | 1 << 6
    | 1 << 7
    | 1 << 8
    | 1 << 11
    | 1 << 13
    | 1 << 14
    | 1 << 15
    | 1 << 16
    | 1 << 17
    | 1 << 19
    | 1 << 23
    | 1 << 24
    | 1 << 25
    | 1 << 26;
/// Leaf 0x8000_0001 ECX: LAHF in 64-bit mode.
pub const FEATURES_EXTENDED_ECX: u32 = 1;
/// Leaf 0x8000_0001 EDX: SYSCALL, NX, RDTSCP, long mode.
pub const FEATURES_EXTENDED_EDX: u32 = 1 << 11 | 1 << 20 | 1 << 27 | 1 << 29;

/// Name of the processor, in three rows.
const BRAND: [Leaf; 3] = [
    leaf(
        0x8000_0002,
        text(b"Lock"),
        text(b"step"),
        text(b" vCP"),
        text(b"U, x"),
    ),
    leaf(
        0x8000_0003,
        text(b"86-6"),
        text(b"4-v2"),
        text(b" bas"),
        text(b"elin"),
    ),
    leaf(0x8000_0004, text(b"e\0\0\0"), 0, 0, 0),
];
/// 40 physical and 48 linear address bits.
const ADDRESS_BITS: Leaf = leaf(0x8000_0008, 0x0000_3028, 0, 0, 0);

/// The table of guests that were written for Lockstep, in ascending order of function.
pub const TABLE: [Leaf; 9] = [
    // The vendor's name stands in EBX, EDX, ECX.
    leaf(0, 1, text(b"Lock"), text(b"Base"), text(b"step")),
    // Family 15, model 1, stepping 1; CLFLUSH line of 64 bytes, one logical processor.
    leaf(1, 0x0000_0f11, 0x0001_0800, FEATURES_1_ECX, FEATURES_1_EDX),
    leaf(
        0x8000_0000,
        0x8000_0008,
        text(b"Lock"),
        text(b"Base"),
        text(b"step"),
    ),
    leaf(
        0x8000_0001,
        0x0000_0f11,
        0,
        FEATURES_EXTENDED_ECX,
        FEATURES_EXTENDED_EDX,
    ),
    BRAND[0],
    BRAND[1],
    BRAND[2],
    // Invariant TSC.
    leaf(0x8000_0007, 0, 0, 0, 1 << 8),
    ADDRESS_BITS,
];

/// Leaf 1 EDX that kernels see: the same without TSC, MCE and MCA. A kernel that knows of no
/// time-stamp counter reads it least often; programs that use it all the same are answered.
pub const KERNEL_FEATURES_1_EDX: u32 = FEATURES_1_EDX & !(1 << 4 | 1 << 7 | 1 << 14);
/// Leaf 0x8000_0001 EDX that kernels see: SYSCALL, NX, long mode.
pub const KERNEL_FEATURES_EXTENDED_EDX: u32 = FEATURES_EXTENDED_EDX & !(1 << 27);
/// Signature of an early Zen: glibc refuses processors whose vendor it does not know.
const KERNEL_SIGNATURE: u32 = 0x0080_0f12;

/// The table of kernels, in ascending order of function.
pub const KERNEL_TABLE: [Leaf; 8] = [
    leaf(0, 1, text(b"Auth"), text(b"cAMD"), text(b"enti")),
    leaf(
        1,
        KERNEL_SIGNATURE,
        0x0001_0800,
        FEATURES_1_ECX,
        KERNEL_FEATURES_1_EDX,
    ),
    leaf(
        0x8000_0000,
        0x8000_0008,
        text(b"Auth"),
        text(b"cAMD"),
        text(b"enti"),
    ),
    leaf(
        0x8000_0001,
        KERNEL_SIGNATURE,
        0,
        FEATURES_EXTENDED_ECX,
        KERNEL_FEATURES_EXTENDED_EDX,
    ),
    BRAND[0],
    BRAND[1],
    BRAND[2],
    ADDRESS_BITS,
];

/// EAX, EBX, ECX, EDX for a CPUID instruction; zeros for a leaf that is not there.
#[must_use]
pub fn lookup(function: u32, _index: u32) -> [u32; 4] {
    TABLE
        .iter()
        .find(|leaf| leaf.function == function)
        .map_or([0; 4], |leaf| leaf.registers)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_vendor_is_spelled_as_processors_spell_it() {
        let [_, ebx, ecx, edx] = lookup(0, 0);
        assert_eq!([ebx, edx, ecx].map(u32::to_le_bytes).concat(), b"LockstepBase");
    }

    #[test]
    fn kernels_see_no_counter_and_a_vendor_that_programs_know() {
        let row = |function| KERNEL_TABLE.iter().find(|leaf| leaf.function == function);
        let [_, ebx, ecx, edx] = row(0).unwrap().registers;
        assert_eq!([ebx, edx, ecx].map(u32::to_le_bytes).concat(), b"AuthenticAMD");
        let [_, _, ecx, edx] = row(1).unwrap().registers;
        for (bit, name) in [(4, "TSC"), (7, "MCE"), (9, "APIC"), (12, "MTRR"), (14, "MCA")] {
            assert_eq!(edx & (1 << bit), 0, "{name}");
        }
        for (bit, name) in [
            (3, "MONITOR"),
            (17, "PCID"),
            (21, "x2APIC"),
            (24, "TSC deadline"),
            (26, "XSAVE"),
            (30, "RDRAND"),
        ] {
            assert_eq!(ecx & (1 << bit), 0, "{name}");
        }
        let [_, _, _, extended] = row(0x8000_0001).unwrap().registers;
        assert_eq!(extended & (1 << 27), 0, "RDTSCP");
        // The same in all else that must be hidden.
        assert_eq!(row(7).or(row(6)).or(row(10)).or(row(0x4000_0000)), None);
    }

    #[test]
    fn non_deterministic_features_are_hidden() {
        let [_, _, ecx, edx] = lookup(1, 0);
        let rdrand = 1 << 30;
        let tsc_deadline = 1 << 24;
        let xsave = 1 << 26;
        let monitor = 1 << 3;
        let x2apic = 1 << 21;
        assert_eq!(ecx & (rdrand | tsc_deadline | xsave | monitor | x2apic), 0);
        assert_eq!(edx & 1 << 9, 0, "there is no APIC");
        assert_eq!(lookup(7, 0), [0; 4], "RDSEED, TSX, WAITPKG live in leaf 7");
        assert_eq!(lookup(0x4000_0000, 0), [0; 4]);
        assert_eq!(lookup(6, 0), [0; 4], "APERF/MPERF");
        assert_eq!(lookup(10, 0), [0; 4], "performance monitoring");
    }
}
