//! Interrupts enter at exits, and only where the guest can take them. A handler powers off with its
//! vector, so the number of exits says where it was entered.

use crate::code::Code;
use crate::guest::{Ring, host, run_with};
use lockstep_logging_channel::{EndReason, EventKind};

const SET_UP_EXITS: u64 = 5;
const CONSOLE: EndReason = EndReason::PoweredOff(0x24);
const STI: u8 = 0xfb;
const CLI: u8 = 0xfa;
const NOP: u8 = 0x90;
const HLT: u8 = 0xf4;

/// Sets the interrupt controller up, and the console to interrupt on vector 0x24.
pub fn set_up() -> Code {
    Code::default()
        .out(0x20, 0x11)
        .out(0x21, 0x20)
        .out(0x21, 4)
        .out(0x21, 1)
        .out_to(0x3f9, 1)
}

/// Runs `code` after the set-up; a byte is typed at its exit `at`, counted from 1.
fn typed_at(at: u64, code: Code) -> Option<(EndReason, u64)> {
    let typed = vec![(SET_UP_EXITS + at, EventKind::ConsoleInput(b"k".to_vec()))];
    let outcome = run_with(&host()?, Ring::Zero, set_up().raw(&code.0), typed);
    Some((outcome.reason, outcome.exits - SET_UP_EXITS))
}

#[test]
fn one_that_can_be_taken_enters_at_the_exit_of_its_event() {
    let code = Code::default()
        .raw(&[STI, NOP])
        .out(0x80, 0)
        .out(0x80, 0)
        .out(0x80, 0)
        .power_off(99);
    let Some(ended) = typed_at(2, code) else { return };

    assert_eq!(ended, (CONSOLE, 3), "the handler's own exit follows exit 2");
}

#[test]
fn one_that_cannot_be_taken_waits_for_the_first_exit_with_interrupts_on() {
    let code = Code::default()
        .out(0x80, 0)
        .out(0x80, 0)
        .raw(&[STI, NOP, NOP])
        .out(0x80, 0)
        .out(0x80, 0)
        .power_off(99);
    let Some(ended) = typed_at(1, code) else { return };

    assert_eq!(
        ended,
        (CONSOLE, 4),
        "not where interrupts were turned on, but at the exit after it"
    );
}

#[test]
fn interrupts_that_were_on_only_between_two_exits_let_none_in() {
    let between = [STI, NOP, NOP, CLI];
    let code = Code::default()
        .out(0x80, 0)
        .raw(&between)
        .out(0x80, 0)
        .raw(&between)
        .power_off(99);
    let Some(ended) = typed_at(1, code) else { return };

    assert_eq!(ended, (EndReason::PoweredOff(99), 3));
}

#[test]
fn a_halted_guest_is_woken() {
    let Some(ended) = typed_at(1, Code::default().raw(&[STI, HLT]).power_off(99)) else {
        return;
    };

    assert_eq!(ended, (CONSOLE, 2));
}
