//! Single instructions that a kernel needs in ring 0, and those that no guest is to have.
//!
//! When one is tried, RSI points to 64 zeroed bytes, aligned; RAX, RBX, RCX and RDX are 0 unless
//! the code itself sets them.

/// How an instruction is over when it was carried out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The next instruction is reached.
    Completes,
    /// This vector is taken.
    Vector(u8),
}

/// An instruction to try.
#[derive(Clone, Copy, Debug)]
pub struct Trial {
    /// Its name.
    pub name: &'static str,
    /// Its bytes, with those of what must stand before it.
    pub code: &'static [u8],
    /// What it does where it is carried out.
    pub expected: Outcome,
}

const fn completes(name: &'static str, code: &'static [u8]) -> Trial {
    Trial {
        name,
        code,
        expected: Outcome::Completes,
    }
}

/// A software interrupt that has a gate.
pub const SOFTWARE_VECTOR: u8 = 0x40;

/// What kernels use in ring 0.
pub const RING_0: [Trial; 28] = [
    // cmpxchg16b [rsi]
    completes("CMPXCHG16B", &[0x48, 0x0f, 0xc7, 0x0e]),
    // lock cmpxchg [rsi], rbx
    completes("CMPXCHG", &[0xf0, 0x48, 0x0f, 0xb1, 0x1e]),
    // lock xadd [rsi], rbx
    completes("XADD", &[0xf0, 0x48, 0x0f, 0xc1, 0x1e]),
    // rep movsb, with RDI = RSI and RCX = 0
    completes("REP MOVSB", &[0x48, 0x89, 0xf7, 0xf3, 0xa4]),
    // bsf rax, rbx
    completes("BSF", &[0x48, 0x0f, 0xbc, 0xc3]),
    // popcnt rax, rbx
    completes("POPCNT", &[0xf3, 0x48, 0x0f, 0xb8, 0xc3]),
    // stmxcsr [rsi]; ldmxcsr [rsi]
    completes("LDMXCSR", &[0x0f, 0xae, 0x1e, 0x0f, 0xae, 0x16]),
    // fninit
    completes("FNINIT", &[0xdb, 0xe3]),
    // fxsave [rsi + 0x100]; fxrstor [rsi + 0x100]
    completes(
        "FXSAVE, FXRSTOR",
        &[0x0f, 0xae, 0x86, 0, 1, 0, 0, 0x0f, 0xae, 0x8e, 0, 1, 0, 0],
    ),
    // movaps xmm0, [rsi]
    completes("MOVAPS", &[0x0f, 0x28, 0x06]),
    // addps xmm0, xmm1
    completes("ADDPS", &[0x0f, 0x58, 0xc1]),
    // mfence
    completes("MFENCE", &[0x0f, 0xae, 0xf0]),
    // clflush [rsi]
    completes("CLFLUSH", &[0x0f, 0xae, 0x3e]),
    // invlpg [rsi]
    completes("INVLPG", &[0x0f, 0x01, 0x3e]),
    // wbinvd
    completes("WBINVD", &[0x0f, 0x09]),
    // swapgs; swapgs
    completes("SWAPGS", &[0x0f, 0x01, 0xf8, 0x0f, 0x01, 0xf8]),
    // mov rax, cr0; mov cr0, rax
    completes("MOV CR0", &[0x0f, 0x20, 0xc0, 0x0f, 0x22, 0xc0]),
    // mov rax, cr3; mov cr3, rax
    completes("MOV CR3", &[0x0f, 0x20, 0xd8, 0x0f, 0x22, 0xd8]),
    // mov rax, dr7; mov dr7, rax
    completes("MOV DR7", &[0x0f, 0x21, 0xf8, 0x0f, 0x23, 0xf8]),
    // mov ecx, 0xc0000080 (EFER); rdmsr; wrmsr
    completes("RDMSR, WRMSR", &[0xb9, 0x80, 0, 0, 0xc0, 0x0f, 0x32, 0x0f, 0x30]),
    // sgdt [rsi]; lgdt [rsi]
    completes("LGDT", &[0x0f, 0x01, 0x06, 0x0f, 0x01, 0x16]),
    // sidt [rsi]; lidt [rsi]
    completes("LIDT", &[0x0f, 0x01, 0x0e, 0x0f, 0x01, 0x1e]),
    // cpuid
    completes("CPUID", &[0x0f, 0xa2]),
    // rdtsc
    completes("RDTSC", &[0x0f, 0x31]),
    // mov rax, rsp; push 0x10; push rax; pushfq; push 8; lea rcx, [rip + 4]; push rcx; iretq; hlt:
    // over the hlt
    completes(
        "IRETQ",
        &[
            0x48, 0x89, 0xe0, 0x6a, 0x10, 0x50, 0x9c, 0x6a, 0x08, 0x48, 0x8d, 0x0d, 4, 0, 0, 0, 0x51, 0x48,
            0xcf, 0xf4,
        ],
    ),
    // lea rcx, [rip + 10]; mov r11d, 2; sysretq; hlt: to ring 3, over the hlt
    completes(
        "SYSRET",
        &[
            0x48, 0x8d, 0x0d, 10, 0, 0, 0, 0x41, 0xbb, 2, 0, 0, 0, 0x48, 0x0f, 0x07, 0xf4,
        ],
    ),
    // int3
    Trial {
        name: "INT3",
        code: &[0xcc],
        expected: Outcome::Vector(3),
    },
    // int 0x40
    Trial {
        name: "INT n",
        code: &[0xcd, SOFTWARE_VECTOR],
        expected: Outcome::Vector(SOFTWARE_VECTOR),
    },
];

/// Not in the CPUID table of any guest, and so to be refused with #UD.
pub const HIDDEN: [Trial; 4] = [
    // rdrand rax
    Trial {
        name: "RDRAND",
        code: &[0x48, 0x0f, 0xc7, 0xf0],
        expected: UNDEFINED,
    },
    // rdseed rax
    Trial {
        name: "RDSEED",
        code: &[0x48, 0x0f, 0xc7, 0xf8],
        expected: UNDEFINED,
    },
    // xor ecx, ecx; xgetbv
    Trial {
        name: "XGETBV",
        code: &[0x31, 0xc9, 0x0f, 0x01, 0xd0],
        expected: UNDEFINED,
    },
    // vpaddq ymm0, ymm0, ymm1
    Trial {
        name: "AVX",
        code: &[0xc5, 0xfd, 0xd4, 0xc1],
        expected: UNDEFINED,
    },
];

/// #UD.
const UNDEFINED: Outcome = Outcome::Vector(6);

/// RDTSC where CR4.TSD forbids it: #GP.
pub const FORBIDDEN_TSC: Trial = Trial {
    name: "RDTSC",
    code: &[0x0f, 0x31],
    expected: Outcome::Vector(13),
};

/// CPUID.
pub const CPUID: [u8; 2] = [0x0f, 0xa2];
