//! Differences that only digests find: guests that differ in one register.

use crate::code::{Code, Register};
use crate::guest::{Place, Ring, host, result_at, run_digested};
use lockstep_kvm::ClockKind;
use lockstep_logging_channel::{EndReason, PartDigest};

/// Taken by `code` between its own start and its end, with the digests of each exit.
fn digests(ring: Ring, code: Code) -> Option<Vec<(Place, Vec<PartDigest>)>> {
    let host = host()?;
    let code = code.out(0x80, 0).power_off(99);
    let outcome = run_digested(&host, ring, ClockKind::None, 1, code, Vec::new());
    assert_eq!(outcome.reason, EndReason::PoweredOff(99), "{ring:?}");
    Some(outcome.digests)
}

/// Two guests, whose registers and devices are the same at their next exit, differ there in the
/// digest of the processor; two of the same kind do not.
fn expect_found(ring: Ring, one: impl Fn() -> Code, other: impl Fn() -> Code) {
    let (Some(first), Some(again), Some(second)) =
        (digests(ring, one()), digests(ring, one()), digests(ring, other()))
    else {
        return;
    };
    assert_eq!(first, again);
    assert_eq!(first.len(), second.len());
    let differing: Vec<(Place, &str)> = first
        .iter()
        .zip(&second)
        .flat_map(|((place, parts), (_, others))| {
            let pairs = parts.iter().zip(others);
            pairs
                .filter(|(part, other)| part != other)
                .map(|(part, _)| (*place, part.part.as_str()))
        })
        .collect();
    assert_eq!(
        differing.first().map(|(place, _)| *place),
        first.last().map(|(place, _)| *place)
    );
    assert!(
        differing.iter().all(|(_, part)| *part == "processor"),
        "{differing:?}"
    );
}

/// `code` with `value` at a place in memory, from which `load` loads it, and nothing of it left in
/// a register or there.
fn loading(value: u32, load: [u8; 3]) -> Code {
    Code::default()
        .mov(Register::Rax, value)
        .store(Register::Rax, result_at(0))
        .raw(&load)
        // The SIB byte of an absolute address.
        .raw(&[0x25])
        .raw(&result_at(0).to_le_bytes())
        .mov(Register::Rax, 0)
        .store(Register::Rax, result_at(0))
}

#[test]
fn a_difference_in_mxcsr_alone_is_found_by_the_next_digest() {
    // LDMXCSR: round down instead of to the nearest.
    let load = |value| move || loading(value, [0x0f, 0xae, 0x14]);
    expect_found(Ring::Three, load(0x1f80), load(0x3f80));
}

#[test]
fn a_difference_in_the_x87_control_word_alone_is_found_by_the_next_digest() {
    // WAIT, FLDCW.
    let load = |value| move || loading(value, [0x9b, 0xd9, 0x2c]);
    expect_found(Ring::Three, load(0x37f), load(0x27f));
}

#[test]
fn a_difference_in_an_x87_register_alone_is_found_by_the_next_digest() {
    // FNINIT; FLD1 or FLDPI.
    let load = |constant| move || Code::default().raw(&[0xdb, 0xe3, 0xd9, constant]);
    expect_found(Ring::Three, load(0xe8), load(0xeb));
}

#[test]
fn a_difference_in_a_model_specific_register_alone_is_found_by_the_next_digest() {
    // STAR, LSTAR, SFMASK, KERNEL_GS_BASE, SYSENTER_EIP.
    for number in [0xc000_0081, 0xc000_0082, 0xc000_0084, 0xc000_0102, 0x176] {
        let write = |value| {
            move || {
                Code::default()
                    .mov(Register::Rcx, number)
                    .mov(Register::Rax, value)
                    .mov(Register::Rdx, 0)
                    .raw(&[0x0f, 0x30])
                    .mov(Register::Rax, 0)
            }
        };
        expect_found(Ring::Zero, write(1), write(2));
    }
}
