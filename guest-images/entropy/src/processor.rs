//! What the processor itself answers differently each time: time-stamp counter, random numbers, CPUID.
//! In the loaded image each of these instructions has become an exit.
#![allow(unsafe_code)]

use crate::report::Report;
use core::arch::asm;
use core::arch::x86_64::{__cpuid_count, __rdtscp, _rdtsc};
use lockstep_guest_runtime::ring0;

unsafe extern "C" {
    fn entropy_read_tsc();
}

/// Pairs read in one ring-0 call.
const PAIRS: usize = 8;

/// Reads the time-stamp counter with both instructions in both rings, `rounds` times.
pub fn tsc(rounds: u64) {
    let mut report = Report::new("tsc");
    let (mut last, mut backwards) = (0, 0);
    let mut take = |value| {
        backwards += u64::from(value < last);
        last = value;
        report.value(value);
    };
    for _ in 0..rounds {
        let mut processor = 0;
        // SAFETY: every x86-64 processor has these; the answer goes to `processor`.
        let [first, second] = unsafe { [_rdtsc(), __rdtscp(&raw mut processor)] };
        [first, second].into_iter().for_each(&mut take);
        let mut pairs = [[0_u64; 2]; PAIRS];
        // SAFETY: the routine writes this many pairs there.
        unsafe { ring0::call(entropy_read_tsc, [pairs.as_mut_ptr() as u64, PAIRS as u64, 0]) };
        pairs.into_iter().flatten().for_each(&mut take);
    }
    report.note("backwards", backwards);
    report.print();
}

/// One instruction into one register: the whole register afterwards, all ones before, and the carry flag.
macro_rules! draw {
    ($instruction:literal, $operand:literal, $register:tt) => {{
        let (value, valid): (u64, u8);
        // SAFETY: writes the register and the flags.
        unsafe {
            asm!(
                concat!($instruction, " ", $operand),
                "setc {valid}",
                valid = lateout(reg_byte) valid,
                inlateout($register) u64::MAX => value,
                options(nomem, nostack),
            );
        }
        (value, valid)
    }};
}

/// Draws random numbers of every width into several registers, `rounds` times.
pub fn random(rounds: u64) {
    let mut report = Report::new("rdrand");
    let (mut failed, mut wide) = (0, 0);
    for _ in 0..rounds {
        let narrow = [draw!("rdrand", "cx", "rcx"), draw!("rdseed", "r10w", "r10")];
        let half = [draw!("rdrand", "esi", "rsi"), draw!("rdseed", "r15d", "r15")];
        let whole = [
            draw!("rdrand", "rax", "rax"),
            draw!("rdseed", "rdx", "rdx"),
            draw!("rdrand", "r9", "r9"),
        ];
        for (value, valid) in narrow.into_iter().chain(half).chain(whole) {
            failed += u64::from(valid == 0);
            report.value(value);
        }
        // 16 bits leave the rest of the register, 32 bits clear it.
        wide += narrow
            .iter()
            .filter(|(value, _)| value | 0xffff != u64::MAX)
            .count();
        wide += half.iter().filter(|(value, _)| value >> 32 != 0).count();
    }
    report.note("failed", failed);
    report.note("wrong width", wide as u64);
    report.print();
}

/// Asks CPUID for the leaves that say who and what the processor is.
pub fn cpuid() {
    let mut report = Report::new("cpuid");
    for (leaf, subleaf) in [
        (0, 0),
        (1, 0),
        (7, 0),
        (0xd, 1),
        (0x8000_0001, 0),
        (0x8000_0008, 0),
        (0x4000_0000, 0),
    ] {
        let answer = __cpuid_count(leaf, subleaf);
        for value in [answer.eax, answer.ebx, answer.ecx, answer.edx] {
            report.value(u64::from(value));
        }
    }
    report.print();
}
