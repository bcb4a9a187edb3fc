//! Interrupts that enter at instruction N after an exit, for chosen N: the handler finds the guest
//! exactly there.
//!
//! The guest increments RBX once an instruction, without an exit; what its handler finds in RBX is
//! the number of instructions done. Every clock is tried in every ring in which this host was found
//! to count exactly; where it was not, that is said.

use crate::code::{Code, Register};
use crate::guest::{HANDLED, HANDLER_BYTES, HANDLERS, Ring, host, run_clocked, run_moving, skip};
use crate::interrupts;
use lockstep_core::machine::run::Pause;
use lockstep_kvm::ClockKind;
use lockstep_logging_channel::{EndReason, EventKind};
use lockstep_qualify::bench::Ring as Level;
use lockstep_qualify::{Effort, Judgement, KvmBench, Property, suite};

/// Exits before the row of increments.
const EXITS: u64 = 6;
/// Vector of the console's interrupt.
const CONSOLE: EndReason = EndReason::PoweredOff(0x24);
/// INC RBX.
const INCREMENT: [u8; 3] = [0x48, 0xff, 0xc3];
const INCREMENTS: u64 = 2_500;
const STI_NOP: [u8; 2] = [0xfb, 0x90];
/// More than one batch of an emulator that works in batches of 1,024.
const NEAR_MAX: u64 = 40;
const FAR: [u64; 6] = [63, 128, 511, 1_024, 1_025, 2_400];
const SEED_VARIABLE: &str = "LOCKSTEP_SEED";
const RANDOM_STOPS: u64 = 12;

/// Sets the interrupt controller and the console up, makes an exit with interrupts enabled, and
/// counts.
fn guest(ring: Ring) -> Code {
    set_up(ring)
        .raw(&INCREMENT.repeat(INCREMENTS as usize))
        .power_off(99)
}

fn set_up(ring: Ring) -> Code {
    let set_up = interrupts::set_up().mov(Register::Rbx, 0);
    // Ring 3 begins with interrupts enabled.
    let open = if ring == Ring::Zero {
        set_up.raw(&STI_NOP)
    } else {
        set_up
    };
    open.out(0x80, 0)
}

/// Whether this host counts exactly with `clock` in `ring`; said, where it does not.
fn is_exact(clock: ClockKind, ring: Ring) -> Option<bool> {
    let level = if ring == Ring::Zero {
        Level::Zero
    } else {
        Level::Three
    };
    let found = suite::probe(
        &KvmBench::new(host()?),
        Property::Clock(clock, level),
        &Effort::QUICK,
    );
    let exact = found.judgement == Judgement::Yes;
    if !exact {
        skip(&format!(
            "clock `{clock}` in {level} is not exact on this host: {}",
            found.seen
        ));
    }
    Some(exact)
}

/// Position at which the handler found the guest for which an interrupt was to enter `instructions`
/// after the last exit.
fn landed(clock: ClockKind, ring: Ring, instructions: u64) -> Option<u64> {
    let typed = vec![((EXITS, instructions), EventKind::ConsoleInput(b"k".to_vec()))];
    let outcome = run_clocked(&host()?, ring, clock, guest(ring), typed);
    assert_eq!(outcome.reason, CONSOLE, "{clock} in {ring:?} at {instructions}");
    Some(outcome.result(HANDLED))
}

/// A seed, printed; `LOCKSTEP_SEED` repeats one.
fn seed() -> u64 {
    let given = std::env::var(SEED_VARIABLE)
        .ok()
        .and_then(|text| text.parse().ok());
    let seed = given.unwrap_or_else(|| u64::from(std::process::id()));
    eprintln!("{SEED_VARIABLE}={seed}");
    seed
}

fn lands_where_it_is_told(clock: ClockKind, ring: Ring) {
    if is_exact(clock, ring) != Some(true) {
        return;
    }
    let mut numbers = lockstep_qualify::bench::Numbers::new(seed());
    let random = (0..RANDOM_STOPS).map(|_| numbers.below(INCREMENTS));
    let places: Vec<u64> = (1..=NEAR_MAX).chain(FAR).chain(random).collect();
    for instructions in places {
        assert_eq!(
            landed(clock, ring, instructions),
            Some(instructions),
            "{clock} in {ring:?}"
        );
    }
}

#[test]
fn the_step_clock_lands_in_ring_0() {
    lands_where_it_is_told(ClockKind::Step, Ring::Zero);
}

#[test]
fn the_step_clock_lands_in_ring_3() {
    lands_where_it_is_told(ClockKind::Step, Ring::Three);
}

#[test]
fn the_statistic_clock_lands_in_ring_0() {
    lands_where_it_is_told(ClockKind::Statistic, Ring::Zero);
}

#[test]
fn the_statistic_clock_lands_in_ring_3() {
    lands_where_it_is_told(ClockKind::Statistic, Ring::Three);
}

/// The clock goes on counting on another machine: what enters first interrupts nothing, and the
/// machine moves there.
fn lands_behind_a_move(clock: ClockKind) {
    if is_exact(clock, Ring::Zero) != Some(true) {
        return;
    }
    let Some(host) = host() else { return };
    for (first, second) in [(1, 2), (100, 250), (1_030, 2_400)] {
        let arrivals = vec![
            ((EXITS, first), EventKind::Timer),
            ((EXITS, second), EventKind::ConsoleInput(b"k".to_vec())),
        ];
        let mut moved_between_exits = 0;
        let mut mover = |pause: Pause| {
            moved_between_exits += u32::from(pause.point.instructions == first);
            pause.point.instructions > 0
        };

        let (outcome, _) = run_moving(&host, Ring::Zero, clock, guest(Ring::Zero), arrivals, &mut mover);

        assert_eq!(outcome.reason, CONSOLE, "{clock} at {first} and {second}");
        assert_eq!(outcome.result(HANDLED), second, "{clock} moved at {first}");
        assert_eq!(moved_between_exits, 1);
    }
}

#[test]
fn the_step_clock_counts_on_where_the_machine_moves() {
    lands_behind_a_move(ClockKind::Step);
}

#[test]
fn the_statistic_clock_counts_on_where_the_machine_moves() {
    lands_behind_a_move(ClockKind::Statistic);
}

/// Makes the handler of the trap of the guest's own flag take that flag away, and return: AND QWORD
/// [RSP + 16], not TF; IRETQ.
fn trap_ends(code: Code) -> Code {
    const HANDLER: [u8; 16] = [
        0x48, 0x81, 0x64, 0x24, 0x10, 0xff, 0xfe, 0xff, 0xff, 0x48, 0xcf, 0x90, 0x90, 0x90, 0x90, 0x90,
    ];
    let word = |code: Code, address: u32, bytes: &[u8]| {
        code.raw(&[0x48, 0xb8]).raw(bytes).store(Register::Rax, address)
    };
    let (low, high) = HANDLER.split_at(8);
    let handler = HANDLERS as u32 + HANDLER_BYTES as u32;
    word(word(code, handler, low), handler + 8, high)
}

/// Code between the last exit and the row of increments in a guest that steps itself: PUSHFQ; OR
/// [RSP], TF; POPFQ; NOP.
const STEPS_ITSELF: [u8; 11] = [0x9c, 0x48, 0x81, 0x0c, 0x24, 0, 1, 0, 0, 0x9d, 0x90];
/// Those, and the two of the handler.
const INSTRUCTIONS_STEPPING_ITSELF: u64 = 6;

fn lands_behind(clock: ClockKind, before: Code, way: &[u8], instructions: u64) {
    if is_exact(clock, Ring::Zero) != Some(true) {
        return;
    }
    let Some(host) = host() else { return };
    for increments in [1, 2, 40, 700, 2_400] {
        let code = before
            .clone()
            .raw(&set_up(Ring::Zero).0)
            .raw(way)
            .raw(&INCREMENT.repeat(INCREMENTS as usize))
            .power_off(99);
        let typed = vec![(
            (EXITS, instructions + increments),
            EventKind::ConsoleInput(b"k".to_vec()),
        )];

        let outcome = run_clocked(&host, Ring::Zero, clock, code, typed);

        assert_eq!(outcome.reason, CONSOLE, "{increments} behind it");
        assert_eq!(outcome.result(HANDLED), increments);
    }
}

#[test]
fn the_statistic_clock_lands_behind_a_guest_that_steps_itself() {
    let before = trap_ends(Code::default());
    lands_behind(
        ClockKind::Statistic,
        before,
        &STEPS_ITSELF,
        INSTRUCTIONS_STEPPING_ITSELF,
    );
}

#[test]
fn the_statistic_clock_lands_behind_flags_that_are_pushed_over_a_page() {
    // MOV ESP; PUSHFQ, POPFQ.
    let before = Code::default().raw(&[0xbc, 0x04, 0x10, 0x2e, 0]);
    lands_behind(ClockKind::Statistic, before, &[0x9c, 0x9d], 2);
}

#[test]
fn the_statistic_clock_lands_where_the_guest_has_closed_its_window_on_the_way() {
    const ROUNDS: u32 = 60;
    const CLOSED: usize = 400;
    if is_exact(ClockKind::Statistic, Ring::Zero) != Some(true) {
        return;
    }
    let Some(host) = host() else { return };
    // 100 NOP; CLI; increments; STI; DEC ECX; JNZ.
    let mut body = [
        &[0x90; 100][..],
        &[0xfa],
        &INCREMENT.repeat(CLOSED),
        &[0xfb, 0xff, 0xc9],
    ]
    .concat();
    let back = -(body.len() as i32 + 6);
    body.extend([0x0f, 0x85]);
    body.extend(back.to_le_bytes());
    for instructions in [3_000, 9_000, 20_000] {
        let code = Code::default()
            .mov(Register::Rcx, ROUNDS)
            .raw(&set_up(Ring::Zero).0)
            .raw(&body)
            .power_off(99);
        let place = (EXITS, instructions);
        let typed = vec![(place, EventKind::Timer)];

        let outcome = run_clocked(&host, Ring::Zero, ClockKind::Statistic, code, typed);

        assert_eq!(outcome.reason, EndReason::PoweredOff(99), "at {instructions}");
        assert_eq!(outcome.exits, EXITS + 1);
    }
}
