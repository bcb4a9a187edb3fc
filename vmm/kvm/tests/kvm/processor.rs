//! Instructions whose results are not a function of the guest's state.

use crate::code::{Code, Register};
use crate::guest::{BOTH, RANDOM, Ring, TICKS, host, result_at, run, skip};
use Register::{R9, Rax, Rbx, Rcx, Rdx};
use lockstep_core::machine::cpu::cpuid;
use lockstep_core::machine::door::Question;
use lockstep_logging_channel::EndReason;

const GENERAL_PROTECTION: EndReason = EndReason::PoweredOff(13);
const UNDEFINED: EndReason = EndReason::PoweredOff(6);
const DONE: EndReason = EndReason::PoweredOff(99);
const ARITHMETIC_FLAGS: u64 = 0x8d5;

const RDMSR: [u8; 2] = [0x0f, 0x32];
const WRMSR: [u8; 2] = [0x0f, 0x30];

#[test]
fn live_registers_of_the_host_are_denied() {
    let Some(host) = host() else { return };
    let live = [
        ("time-stamp counter", 0x10),
        ("APIC base", 0x1b),
        ("time-stamp counter, adjustment", 0x3b),
        ("performance counter 0", 0xc1),
        ("MPERF", 0xe7),
        ("APERF", 0xe8),
        ("MISC_ENABLE", 0x1a0),
        ("deadline timer", 0x6e0),
        ("x2APIC timer count", 0x839),
        ("XSS", 0xda0),
        ("KVM wall clock", 0x4b56_4d00),
        ("KVM system time", 0x4b56_4d01),
        ("KVM asynchronous page faults", 0x4b56_4d02),
        ("KVM steal time", 0x4b56_4d03),
        ("AMD performance counter 0", 0xc001_0004),
        ("AMD MPERF, read only", 0xc000_00e7),
        ("AMD APERF, read only", 0xc000_00e8),
    ];
    for (name, number) in live {
        let access = |instruction: &[u8]| {
            let code = Code::default()
                .mov(Rax, 0)
                .mov(Rdx, 0)
                .mov(Rcx, number)
                .raw(instruction)
                .power_off(99);
            run(&host, Ring::Zero, code).reason
        };
        assert_eq!(access(&RDMSR), GENERAL_PROTECTION, "reading {name}");
        assert_eq!(access(&WRMSR), GENERAL_PROTECTION, "writing {name}");
    }
}

#[test]
fn registers_that_64_bit_mode_needs_hold_what_was_written() {
    let Some(host) = host() else { return };
    // SYSENTER_EIP, STAR, LSTAR, SFMASK, FS_BASE, GS_BASE, KERNEL_GS_BASE.
    for number in [
        0x176,
        0xc000_0081,
        0xc000_0082,
        0xc000_0084,
        0xc000_0100,
        0xc000_0101,
        0xc000_0102,
    ] {
        let code = Code::default()
            .mov(Rcx, number)
            .mov(Rax, 0x12_3000)
            .mov(Rdx, 0)
            .raw(&WRMSR)
            .fill(Rax)
            .raw(&RDMSR)
            .store(Rax, result_at(0))
            .power_off(99);
        let outcome = run(&host, Ring::Zero, code);
        assert_eq!(
            (outcome.reason.clone(), outcome.result(0)),
            (DONE, 0x12_3000),
            "{number:#x}"
        );
    }
}

#[test]
fn performance_counters_cannot_be_read() {
    let Some(host) = host() else { return };
    let code = || {
        let rdpmc = Code::default().fill(Rax).fill(Rdx).mov(Rcx, 0).raw(&[0x0f, 0x33]);
        rdpmc
            .store(Rax, result_at(0))
            .store(Rdx, result_at(1))
            .power_off(99)
    };
    assert_eq!(run(&host, Ring::Three, code()).reason, GENERAL_PROTECTION);

    // Linux 6.1 lets ring 0 of an AMD guest read counters even where it has none to give: one that
    // never counts.
    let outcome = run(&host, Ring::Zero, code());
    let constant = outcome.reason == DONE && (outcome.result(0), outcome.result(1)) == (0, 0);
    assert!(
        constant || outcome.reason == GENERAL_PROTECTION,
        "{:?}: {:#x}, {:#x}",
        outcome.reason,
        outcome.result(0),
        outcome.result(1)
    );
}

#[test]
fn cpuid_is_the_baseline_in_both_rings() {
    let Some(host) = host() else { return };
    for ring in BOTH {
        for leaf in [
            0,
            1,
            7,
            0xd,
            0x4000_0000,
            0x8000_0000,
            0x8000_0001,
            0x8000_0007,
            0x8000_0008,
        ] {
            let registers = [Rax, Rbx, Rcx, Rdx];
            let code = registers
                .into_iter()
                .fold(Code::default(), Code::fill)
                .mov(Rax, leaf)
                .mov(Rcx, 0);
            let stored = (0..)
                .zip(registers)
                .fold(code.raw(&[0x0f, 0xa2]), |code, (index, register)| {
                    code.store(register, result_at(index))
                });
            let outcome = run(&host, ring, stored.power_off(99));
            assert_eq!(outcome.reason, DONE);
            let found = [0, 1, 2, 3].map(|index| outcome.result(index));
            assert_eq!(
                found,
                cpuid::lookup(leaf, 0).map(u64::from),
                "leaf {leaf:#x}, ring {ring:?}"
            );
        }
    }
}

#[test]
fn the_time_stamp_counter_is_the_doors_in_both_rings() {
    let Some(host) = host() else { return };
    let (low, high) = (TICKS & 0xffff_ffff, TICKS >> 32);
    for ring in BOTH {
        for (instruction, rcx) in [(&[0x0f, 0x31][..], u64::MAX), (&[0x0f, 0x01, 0xf9], 0)] {
            let code = [Rax, Rcx, Rdx]
                .into_iter()
                .fold(Code::default(), Code::fill)
                .raw(instruction);
            let code = code
                .store(Rax, result_at(0))
                .store(Rdx, result_at(1))
                .store(Rcx, result_at(2));
            let outcome = run(&host, ring, code.power_off(99));
            assert_eq!(
                [0, 1, 2].map(|index| outcome.result(index)),
                [low, high, rcx],
                "{instruction:02x?} {ring:?}"
            );
            assert_eq!(outcome.asked, [Question::Tsc]);
        }
    }
}

#[test]
fn random_instructions_give_the_doors_bytes_in_every_size_and_in_both_rings() {
    let Some(host) = host() else { return };
    let low_16 = u64::MAX << 16 | RANDOM & 0xffff;
    // RDRAND (/6) and RDSEED (/7) into AX, EAX, RAX, R9.
    let forms: [(&[u8], u8, Register, u64, u32); 4] = [
        (&[0x66, 0x0f, 0xc7], 0xf0, Rax, low_16, 2),
        (&[0x0f, 0xc7], 0xf0, Rax, RANDOM & 0xffff_ffff, 4),
        (&[0x48, 0x0f, 0xc7], 0xf0, Rax, RANDOM, 8),
        (&[0x49, 0x0f, 0xc7], 0xf1, R9, RANDOM, 8),
    ];
    for ring in BOTH {
        for seed in [0, 8] {
            for (opcode, operand, register, expected, length_bytes) in forms {
                let code = Code::default()
                    .fill(register)
                    .set_arithmetic_flags()
                    .raw(opcode)
                    .raw(&[operand | seed]);
                let code = code
                    .store(register, result_at(0))
                    .flags_to_rax()
                    .store(Rax, result_at(1));
                let outcome = run(&host, ring, code.power_off(99));
                assert_eq!(outcome.result(0), expected, "{opcode:02x?} {ring:?}");
                assert_eq!(outcome.result(1) & ARITHMETIC_FLAGS, 1, "carry alone");
                assert_eq!(outcome.asked, [Question::Random { length_bytes }]);
            }
        }
    }
}

#[test]
fn what_the_baseline_hides_and_would_tell_of_the_host_faults_in_both_rings() {
    let Some(host) = host() else { return };
    let hidden: [(&str, &[u8]); 9] = [
        ("VMCALL", &[0x0f, 0x01, 0xc1]),
        ("VMMCALL", &[0x0f, 0x01, 0xd9]),
        ("RDPID", &[0xf3, 0x0f, 0xc7, 0xf8]),
        ("RDPRU", &[0x0f, 0x01, 0xfd]),
        ("XGETBV", &[0x0f, 0x01, 0xd0]),
        ("MONITORX", &[0x0f, 0x01, 0xfa]),
        ("MWAIT", &[0x0f, 0x01, 0xc9]),
        ("TPAUSE", &[0x66, 0x0f, 0xae, 0xf1]),
        ("XBEGIN", &[0xc7, 0xf8, 0, 0, 0, 0]),
    ];
    for ring in BOTH {
        for (name, instruction) in hidden {
            let code = Code::default()
                .mov(Rax, 0)
                .mov(Rcx, 0)
                .mov(Rdx, 0)
                .raw(instruction)
                .power_off(99);
            assert_eq!(run(&host, ring, code).reason, UNDEFINED, "{name} in {ring:?}");
        }
    }
}

/// `KVM_HC_*` of include/uapi/linux/kvm_para.h that an old KVM answers whatever CPUID says, and
/// -KVM_ENOSYS.
const HYPERCALLS: [u32; 3] = [5, 10, 11];
const NO_SUCH_HYPERCALL: u64 = -1000_i64 as u64;

/// Code that is made at run time is not rewritten: what KVM answers it has to be nothing.
/// MOV [target], opcode; MOV BYTE [target + 3], RET.
fn with_function(code: Code, target: u32, opcode: u32) -> Code {
    code.mov(Rax, opcode)
        .store(Rax, target)
        .raw(&[0xc6, 0x04, 0x25])
        .raw(&(target + 3).to_le_bytes())
        .raw(&[0xc3])
}

#[test]
fn hypercalls_that_are_made_at_run_time_are_not_answered() {
    let Some(host) = host() else { return };
    for number in HYPERCALLS {
        for opcode in [0x00c1_010f_u32, 0x00d9_010f] {
            let target = result_at(8);
            // The number, and no vCPU that there is; CALL.
            let code = with_function(Code::default(), target, opcode)
                .mov(Rbx, 0)
                .mov(Rcx, 77)
                .mov(Rdx, target)
                .mov(Rax, number)
                .raw(&[0xff, 0xd2])
                .store(Rax, result_at(0))
                .power_off(99);
            let outcome = run(&host, Ring::Zero, code);
            let refused = outcome.reason == UNDEFINED
                || outcome.reason == DONE && outcome.result(0) == NO_SUCH_HYPERCALL;
            assert!(
                refused,
                "hypercall {number} by {opcode:#x}: {:?}, {:#x}",
                outcome.reason,
                outcome.result(0)
            );
            let memory = outcome.result(8) & 0xff_ffff;
            assert_eq!(memory, u64::from(opcode), "the instruction is not patched");
        }
    }
}

/// The hypercall by which KVM writes the host's time to the address in RBX
/// (Documentation/virt/kvm/x86/hypercalls.rst, KVM_HC_CLOCK_PAIRING).
const CLOCK_PAIRING: u32 = 9;
/// Results that KVM gives for it where it does not write the time: no such hypercall, not
/// supported, not in ring 3.
const CLOCK_PAIRING_REFUSED: [u64; 3] = [NO_SUCH_HYPERCALL, -95_i64 as u64, -1_i64 as u64];

#[test]
fn clock_pairing_that_code_made_at_run_time_asks_for_writes_nothing() {
    const CODE_AT: u32 = 8;
    const TIME_AT: u32 = 16;
    const TIME_WORDS: u32 = 8;
    const MARK: u32 = 0x5a5a_5a5a;
    let Some(host) = host() else { return };
    if scales_time_stamp_counters() {
        return skip("this processor scales time-stamp counters: KVM cannot be kept from clock pairing");
    }
    for ring in BOTH {
        for opcode in [0x00c1_010f_u32, 0x00d9_010f] {
            let target = result_at(CODE_AT);
            let marked = (0..TIME_WORDS).fold(Code::default().mov(Rax, MARK), |code, word| {
                code.store(Rax, result_at(TIME_AT + word))
            });
            // The place to write to, and the wall clock; CALL.
            let code = with_function(marked, target, opcode)
                .mov(Rbx, result_at(TIME_AT))
                .mov(Rcx, 0)
                .mov(Rdx, target)
                .mov(Rax, CLOCK_PAIRING)
                .raw(&[0xff, 0xd2])
                .store(Rax, result_at(0))
                .power_off(99);

            let outcome = run(&host, ring, code);

            let answer = outcome.result(0);
            // Upstream KVM on AMD processors emulates VMCALL, which is for ring 0 there.
            let refused = outcome.reason == UNDEFINED
                || outcome.reason == GENERAL_PROTECTION && ring == Ring::Three
                || outcome.reason == DONE && CLOCK_PAIRING_REFUSED.contains(&answer);
            assert!(
                refused,
                "{opcode:#x} in {ring:?}: {:?}, {answer:#x}",
                outcome.reason
            );
            let found: Vec<u64> = (0..TIME_WORDS)
                .map(|word| outcome.result(TIME_AT + word))
                .collect();
            assert_eq!(
                found,
                [u64::from(MARK); TIME_WORDS as usize],
                "{opcode:#x} in {ring:?}"
            );
        }
    }
}

/// True if KVM reports that guests' time-stamp counters can run at any speed.
fn scales_time_stamp_counters() -> bool {
    let kvm = kvm_ioctls::Kvm::new().unwrap();
    kvm.check_extension(kvm_ioctls::Cap::TscControl)
}
