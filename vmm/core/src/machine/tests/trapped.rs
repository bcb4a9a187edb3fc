//! Rewritten instructions: what the guest finds in its registers behind each.

use super::*;
use crate::machine::cpu::{Registers, cpuid};
use crate::machine::image::{Site, Trapped};

const ADDRESS: u64 = 0x10_0000;
const FULL: u64 = 0xffff_ffff_ffff_ffff;

/// Registers after the rewritten instruction, which finds `before`; and what was asked.
fn after(trapped: Trapped, before: Registers) -> (Registers, Vec<Question>) {
    let mut sites = Sites::default();
    sites.insert(Site {
        address: ADDRESS,
        trapped,
    });
    let mut cpu = FakeCpu::new([read(0xe0, 4).at(ADDRESS + 2), power_off(0)]);
    cpu.registers = before;
    let mut door = FakeDoor::default();
    run_with(&mut cpu, &mut door, sites, NEVER).unwrap();
    (
        cpu.registers,
        door.asked.into_iter().map(|(_, question)| question).collect(),
    )
}

#[test]
fn rdtsc_gives_the_doors_counter_in_two_halves() {
    let before = Registers {
        rax: FULL,
        rdx: FULL,
        rcx: FULL,
        ..Registers::default()
    };

    let (registers, asked) = after(Trapped::Tsc, before);

    assert_eq!(
        (registers.rax, registers.rdx, registers.rcx),
        (TICKS & 0xffff_ffff, TICKS >> 32, FULL)
    );
    assert_eq!(asked, [Question::Tsc]);
}

#[test]
fn rdtscp_also_names_processor_0() {
    let (registers, asked) = after(
        Trapped::TscAndProcessor,
        Registers {
            rcx: FULL,
            ..Registers::default()
        },
    );

    assert_eq!(
        (registers.rax, registers.rdx, registers.rcx),
        (TICKS & 0xffff_ffff, TICKS >> 32, 0)
    );
    assert_eq!(asked, [Question::Tsc]);
}

/// The register of each number, as instructions encode it.
fn numbered(registers: &Registers) -> [u64; 16] {
    let Registers {
        rax,
        rcx,
        rdx,
        rbx,
        rsp,
        rbp,
        rsi,
        rdi,
        r8,
        r9,
        r10,
        r11,
        r12,
        r13,
        r14,
        r15,
        ..
    } = *registers;
    [
        rax, rcx, rdx, rbx, rsp, rbp, rsi, rdi, r8, r9, r10, r11, r12, r13, r14, r15,
    ]
}

#[test]
fn rdrand_writes_its_register_alone_in_its_own_size() {
    let all = Registers {
        rax: FULL,
        rcx: FULL,
        rdx: FULL,
        rbx: FULL,
        rsp: FULL,
        rbp: FULL,
        rsi: FULL,
        rdi: FULL,
        r8: FULL,
        r9: FULL,
        r10: FULL,
        r11: FULL,
        r12: FULL,
        r13: FULL,
        r14: FULL,
        r15: FULL,
        ..Registers::default()
    };
    // A 32-bit result clears the upper half, a 16-bit one leaves the rest.
    let sizes = [
        (2, 0xffff_ffff_ffff_0201),
        (4, 0x0000_0000_0403_0201),
        (8, 0x0807_0605_0403_0201),
    ];
    for (register, (size_bytes, expected)) in (0..16).flat_map(|register| sizes.map(|size| (register, size)))
    {
        let (registers, asked) = after(Trapped::Random { register, size_bytes }, all);

        let mut expected_all = [FULL; 16];
        expected_all[usize::from(register)] = expected;
        assert_eq!(
            numbered(&registers),
            expected_all,
            "register {register}, {size_bytes} bytes"
        );
        assert_eq!(
            asked,
            [Question::Random {
                length_bytes: size_bytes.into()
            }]
        );
    }
}

#[test]
fn rdrand_sets_carry_and_clears_the_other_arithmetic_flags() {
    let (carry, others, kept) = (
        1,
        1 << 11 | 1 << 7 | 1 << 6 | 1 << 4 | 1 << 2,
        1 << 1 | 1 << 9 | 1 << 10,
    );
    let before = Registers {
        rflags: others | kept,
        ..Registers::default()
    };

    let (registers, _) = after(
        Trapped::Random {
            register: 3,
            size_bytes: 8,
        },
        before,
    );

    assert_eq!(registers.rflags, carry | kept);
}

#[test]
fn cpuid_gives_the_baseline_and_asks_nothing() {
    for leaf in cpuid::TABLE
        .iter()
        .map(|leaf| leaf.function)
        .chain([7, 0xd, 0x4000_0000, 0xffff_ffff])
    {
        let before = Registers {
            rax: u64::from(leaf) | 0xabcd << 32,
            rbx: FULL,
            rdx: FULL,
            ..Registers::default()
        };

        let (registers, asked) = after(Trapped::Cpuid, before);

        let expected = cpuid::lookup(leaf, 0).map(u64::from);
        assert_eq!(
            [registers.rax, registers.rbx, registers.rcx, registers.rdx],
            expected,
            "leaf {leaf:#x}"
        );
        assert_eq!(asked, []);
    }
}

#[test]
fn reading_the_trap_port_by_hand_is_reading_nothing() {
    let mut cpu = FakeCpu::new([read(0xe0, 4).at(ADDRESS + 2), power_off(0)]);
    cpu.registers.rdx = 5;
    let mut door = FakeDoor::default();

    run(&mut cpu, &mut door).unwrap();

    assert_eq!((cpu.registers.rax, cpu.registers.rdx), (0xffff_ffff, 5));
    assert_eq!(door.asked, []);
}

/// Each kind of answer, and the port or instruction that takes no other.
#[test]
fn an_answer_to_another_question_is_an_error_with_its_name_and_never_a_value() {
    let values = [
        Value::Tsc(1),
        Value::Monotonic(2),
        Value::Wall(3),
        Value::Random(vec![4; 4]),
        Value::Random(vec![5; 3]),
    ];
    let asks = [
        (Trapped::Tsc, 0xe0),
        (Trapped::Tsc, 0x508),
        (Trapped::Tsc, 0x510),
        (Trapped::Tsc, 0x520),
    ];
    let random = Trapped::Random {
        register: 0,
        size_bytes: 4,
    };
    for (taken, (trapped, port)) in asks.into_iter().chain([(random, 0xe0)]).enumerate() {
        for (given, answer) in values.iter().enumerate() {
            let mut sites = Sites::default();
            sites.insert(Site {
                address: ADDRESS,
                trapped,
            });
            let mut cpu = FakeCpu::new([read(port, 4).at(ADDRESS + 2), power_off(0)]);
            let mut door = FakeDoor {
                answers_with: Some(answer.clone()),
                ..FakeDoor::default()
            };
            let outcome = run_with(&mut cpu, &mut door, sites, NEVER);
            // The last two ask for random bytes.
            if given == taken.min(3) {
                assert!(outcome.is_ok(), "{port:#x}: {answer:?}");
            } else {
                let why = outcome.unwrap_err().to_string();
                assert!(
                    why.contains("is not an answer to it"),
                    "{port:#x}: {answer:?}: {why}"
                );
            }
        }
    }
}
