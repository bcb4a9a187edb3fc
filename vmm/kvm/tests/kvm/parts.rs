//! Accesses of several parts: an interrupt that waits, digests that are due and a clock that steps
//! find the guest within an instruction, and it goes on as if they had not. Two runs are the same.

use crate::code::{Code, Register};
use crate::guest::{BOTH, Outcome, RESULTS, Ring, host, result_at, run_digested, run_with};
use Register::{Rbx, Rcx};
use lockstep_kvm::{ClockKind, Host};
use lockstep_logging_channel::{EndReason, EventKind};

const DONE: EndReason = EndReason::PoweredOff(99);
const NOTHING: u32 = 0xe000_0000;
const NETWORK_DEVICE: u32 = 0xd000_0000;
const EXITS_BEFORE: u64 = 1;

/// An access, its name, and the exits it makes.
type Form = (&'static str, Vec<u8>, u64);

/// MOV ESI; MOV EDI.
fn between(from: u32, to: u32) -> Vec<u8> {
    [&[0xbe], &from.to_le_bytes()[..], &[0xbf], &to.to_le_bytes()[..]].concat()
}

fn forms() -> Vec<Form> {
    let string = |from, to, code: &[u8]| [between(from, to), code.to_vec()].concat();
    vec![
        ("16 bytes read", vec![0xf3, 0x0f, 0x6f, 0x03], 2),
        ("16 bytes written", vec![0xf3, 0x0f, 0x7f, 0x03], 2),
        (
            "8 bytes read over a page",
            vec![0x48, 0x8b, 0x83, 0xfc, 0x0f, 0, 0],
            2,
        ),
        (
            "8 bytes written over a page",
            vec![0x48, 0x89, 0x83, 0xfc, 0x0f, 0, 0],
            2,
        ),
        ("4 bytes read and written", vec![0xff, 0x03], 2),
        (
            "REP MOVSB from a device",
            string(NETWORK_DEVICE, RESULTS, &[0xf3, 0xa4]),
            5,
        ),
        (
            "REP MOVSB to a device",
            string(RESULTS, NOTHING, &[0xf3, 0xa4]),
            5,
        ),
        (
            "REP MOVSQ from device to device",
            string(NETWORK_DEVICE, NOTHING, &[0xf3, 0x48, 0xa5]),
            10,
        ),
        ("REP STOSD to a device", string(0, NOTHING, &[0xf3, 0xab]), 5),
    ]
}

/// What of an outcome must be the same twice.
fn told(outcome: &Outcome) -> String {
    format!(
        "{:?} after {} exits: {:?}, {:x}",
        outcome.reason,
        outcome.exits,
        outcome.digests,
        outcome.result(0)
    )
}

fn checked(
    host: &Host,
    ring: Ring,
    clock: ClockKind,
    interval: u64,
    typed: bool,
    (name, access, exits): &Form,
) {
    let code = || {
        Code::default()
            .mov(Rcx, 5)
            .mov(Rbx, NOTHING)
            .out(0x80, 0)
            .raw(access)
            .store(Rcx, result_at(1))
            .power_off(99)
    };
    // The controller has not been set up: what is typed waits, and is looked at at every exit.
    let arrivals = |typed: bool| {
        let event = ((EXITS_BEFORE, 0), EventKind::ConsoleInput(b"k".to_vec()));
        typed.then_some(event).into_iter().collect::<Vec<_>>()
    };
    let [once, again] = [(); 2].map(|()| run_digested(host, ring, clock, interval, code(), arrivals(typed)));
    let what = format!("{name} in {ring:?}, {clock}, digests every {interval}, typed {typed}");
    assert_eq!(
        (&once.reason, once.exits),
        (&DONE, EXITS_BEFORE + exits + 1),
        "{what}"
    );
    assert_eq!(told(&once), told(&again), "{what}");
}

#[test]
fn every_access_is_made_whole_whatever_is_due_within_it() {
    let Some(host) = host() else { return };
    for ring in BOTH {
        for form in forms() {
            for interval in [0, 1, 3] {
                checked(&host, ring, ClockKind::None, interval, true, &form);
            }
        }
    }
}

#[test]
fn a_clock_that_steps_finds_every_access_whole() {
    let Some(host) = host() else { return };
    for ring in BOTH {
        for form in forms() {
            checked(&host, ring, ClockKind::Step, 1, false, &form);
        }
    }
}

/// Interrupt controller and timer set up, with the exits that takes.
fn interrupting() -> (Code, u64) {
    const PORTS: [(u8, u8); 8] = [
        (0x20, 0x11),
        (0x21, 0x20),
        (0x21, 4),
        (0x21, 1),
        (0x21, 0),
        (0x43, 0x34),
        (0x40, 1),
        (0x40, 0),
    ];
    let code = PORTS
        .into_iter()
        .fold(Code::default(), |code, (port, value)| code.out(port, value));
    (code, PORTS.len() as u64)
}

/// The timer expires at the first part, and its interrupt could be taken at every instruction. The
/// handler, which powers off with its vector, is entered behind the last part; of a repeated
/// instruction behind that of an iteration, as processors do, the same twice.
#[test]
fn an_interrupt_that_could_be_taken_waits_for_the_last_part() {
    const TIMER: EndReason = EndReason::PoweredOff(0x20);
    const STI_NOP: [u8; 2] = [0xfb, 0x90];
    let Some(host) = host() else { return };
    for ring in BOTH {
        for (name, access, parts) in forms() {
            let (code, set_up) = interrupting();
            // Ring 3 is entered with interrupts on.
            let on: &[u8] = if ring == Ring::Zero { &STI_NOP } else { &[] };
            let code = code
                .mov(Rcx, 5)
                .mov(Rbx, NOTHING)
                .raw(on)
                .raw(&access)
                .out(0x80, 0)
                .power_off(99);
            let [once, again] = [(); 2].map(|()| {
                let expiry = vec![(set_up + 1, EventKind::Timer)];
                let outcome = run_with(&host, ring, code.clone(), expiry);
                (outcome.reason, outcome.exits - set_up)
            });
            let whole = (TIMER, parts + 1);
            let is_repeated = name.starts_with("REP ");
            assert!(
                once == whole || is_repeated && once.0 == TIMER && once.1 < whole.1,
                "{name} in {ring:?}: {once:?}"
            );
            assert_eq!(once, again, "{name} in {ring:?}");
        }
    }
}
