//! Timer interrupts that land inside a computation: where each landed is what the outside decided.
#![allow(unsafe_code)]

use crate::report::Report;
use core::arch::{asm, global_asm};
use core::sync::atomic::{AtomicU64, Ordering};
use lockstep_guest_runtime::command_line::CommandLine;
use lockstep_guest_runtime::{interrupts, ring0, timer};

/// Landings written down; later ones are only counted.
const LANDINGS_MAX: usize = 64;
/// 2 ms between two interrupts.
const PERIOD_COUNTS: u16 = 2386;
/// Landings awaited, unless `landings=N` says otherwise.
const LANDINGS: u64 = 8;
/// Counts of the ring-0 loop, at most: 0.2 s where ring 0 is emulated. `spin0=N` says otherwise.
const SPIN_RING_0: u64 = 160_000;
/// Counts of the ring-3 loop between two exits, some 2 ms. `spin3=N` says otherwise.
const SPIN_RING_3: u64 = 4_000_000;
/// A port that nothing listens on: writing to it is an exit and no more.
const NOWHERE: u16 = 0x80;

static LANDED: AtomicU64 = AtomicU64::new(0);
static LANDINGS_AT: [AtomicU64; LANDINGS_MAX] = [const { AtomicU64::new(0) }; LANDINGS_MAX];

global_asm!(
    include_str!("ring0.s"),
    landed = sym LANDED,
    landings = sym LANDINGS_AT,
    landings_max = const LANDINGS_MAX,
);

unsafe extern "C" {
    fn entropy_spin();
    fn entropy_timer_interrupt();
}

fn start() {
    LANDED.store(0, Ordering::Relaxed);
    // SAFETY: a handler written for this line.
    unsafe { interrupts::set_handler(interrupts::TIMER_LINE, entropy_timer_interrupt) };
    interrupts::open(interrupts::bit(interrupts::TIMER_LINE));
    timer::periodic(PERIOD_COUNTS);
}

fn finish(name: &str, spun: u64) {
    timer::stop();
    interrupts::open(0);
    let landed = LANDED.load(Ordering::Relaxed);
    let mut report = Report::new(name);
    report.note("landed", landed);
    report.note("spun", spun);
    for at in LANDINGS_AT.iter().take(landed as usize) {
        report.value(at.load(Ordering::Relaxed));
    }
    report.print();
}

/// Lands interrupts in one exit-free loop in ring 0. Where the host cannot stop it at an exact
/// instruction, the loop ends by its count and nothing has landed.
pub fn ring_0(options: CommandLine<'_>) {
    start();
    let arguments = [
        options.number("spin0", SPIN_RING_0),
        options.number("landings", LANDINGS),
        0,
    ];
    // SAFETY: the routine takes a limit and a number of landings.
    let spun = unsafe { ring0::call(entropy_spin, arguments) };
    finish("timer0", spun);
}

/// Lands interrupts in a loop in ring 3 that has an exit now and then.
pub fn ring_3(options: CommandLine<'_>) {
    let (step, wanted) = (
        options.number("spin3", SPIN_RING_3),
        options.number("landings", LANDINGS),
    );
    start();
    interrupts::enable();
    let mut spun = 0;
    for _ in 0..wanted.saturating_mul(4) {
        spun = spin(spun, step, wanted);
        if LANDED.load(Ordering::Relaxed) >= wanted {
            break;
        }
    }
    interrupts::disable();
    finish("timer3", spun);
}

/// Counts on from `spun` by at most `step`, then makes an exit. R8 holds the count all the while.
fn spin(spun: u64, step: u64, wanted: u64) -> u64 {
    let reached;
    // SAFETY: reads the count of landings and writes to a port that nothing listens on.
    unsafe {
        asm!(
            "2: inc r8",
            "cmp [{landed}], {wanted}",
            "jae 3f",
            "cmp r8, {limit}",
            "jb 2b",
            "3: out dx, al",
            landed = sym LANDED,
            wanted = in(reg) wanted,
            limit = in(reg) spun.saturating_add(step),
            inout("r8") spun => reached,
            in("dx") NOWHERE,
            in("al") 0_u8,
        );
    }
    reached
}
