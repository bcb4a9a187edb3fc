//! Notes of the interrupt handlers, and ring 3's reading of them.
#![allow(unsafe_code)]

use alloc::vec::Vec;
use core::arch::global_asm;
use core::mem::offset_of;
use core::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use lockstep_guest_runtime::interrupts::{self, CONSOLE_LINE, NETWORK_LINE, TIMER_LINE};
use lockstep_guest_runtime::{clock, console};
use lockstep_guest_steady::statistics::{self, KEPT};
use lockstep_guest_steady::{ATTENTION, STACK};

/// Bytes typed that are kept until they are read: as many as one byte counts.
const TYPED: usize = 256;

/// Counts and times, written by the handlers.
#[derive(Debug)]
#[repr(C)]
struct Record {
    wanted: AtomicU64,
    counted: AtomicU64,
    in_loop: AtomicU64,
    wrong_frames: AtomicU64,
    wrong_frame: [AtomicU64; 5],
    backwards: AtomicU64,
    last_ns: AtomicU64,
    longest_ns: AtomicU64,
    asks_clock: AtomicU64,
    clock_page: AtomicU64,
    typed_count: AtomicU64,
    typed: [AtomicU8; TYPED],
    distances_ns: [AtomicU64; KEPT],
}

static RECORD: Record = Record {
    wanted: AtomicU64::new(0),
    counted: AtomicU64::new(0),
    in_loop: AtomicU64::new(0),
    wrong_frames: AtomicU64::new(0),
    wrong_frame: [const { AtomicU64::new(0) }; 5],
    backwards: AtomicU64::new(0),
    last_ns: AtomicU64::new(0),
    longest_ns: AtomicU64::new(0),
    asks_clock: AtomicU64::new(0),
    clock_page: AtomicU64::new(0),
    typed_count: AtomicU64::new(0),
    typed: [const { AtomicU8::new(0) }; TYPED],
    distances_ns: [const { AtomicU64::new(0) }; KEPT],
};

global_asm!(
    include_str!("interrupts.s"),
    record = sym RECORD,
    attention = sym ATTENTION,
    stack = sym STACK,
    wanted = const offset_of!(Record, wanted),
    counted = const offset_of!(Record, counted),
    in_loop = const offset_of!(Record, in_loop),
    wrong_frames = const offset_of!(Record, wrong_frames),
    wrong_frame = const offset_of!(Record, wrong_frame),
    backwards = const offset_of!(Record, backwards),
    last_ns = const offset_of!(Record, last_ns),
    longest_ns = const offset_of!(Record, longest_ns),
    asks_clock = const offset_of!(Record, asks_clock),
    clock_page = const offset_of!(Record, clock_page),
    typed_count = const offset_of!(Record, typed_count),
    typed = const offset_of!(Record, typed),
    distances_ns = const offset_of!(Record, distances_ns),
    kept_mask = const KEPT - 1,
    monotonic_low = const clock::MONOTONIC_LOW,
    monotonic_high = const clock::MONOTONIC_HIGH,
    line_status = const console::LINE_STATUS,
    console_data = const console::DATA,
);

unsafe extern "C" {
    fn steady_timer_interrupt();
    fn steady_console_interrupt();
    fn steady_network_interrupt();
}

/// Timer interrupts as they came.
#[derive(Debug)]
pub struct Seen {
    /// All of them.
    pub counted: u64,
    /// Those that came into the loop that makes no exit.
    pub in_loop: u64,
    /// Those whose frame is not one of ring 3 with interrupts on, or not on the loop's stack.
    pub wrong_frames: u64,
    /// The first of these frames: RIP, CS, RFLAGS, RSP, SS.
    pub wrong_frame: [u64; 5],
    /// Those at which the clock had gone backwards.
    pub backwards: u64,
    /// The guest time of the last.
    pub last_ns: u64,
    /// The longest distance between two.
    pub longest_ns: u64,
    /// The distance in the middle, of the last [`KEPT`].
    pub median_ns: u64,
}

/// Installs the handlers. The clock is asked at every interrupt of the timer, or its page is read.
pub fn install(wanted: u64, asks_clock: bool) {
    RECORD.wanted.store(wanted, Ordering::Relaxed);
    RECORD.asks_clock.store(u64::from(asks_clock), Ordering::Relaxed);
    RECORD.clock_page.store(clock::page_address(), Ordering::Relaxed);
    // SAFETY: written for these lines.
    unsafe {
        interrupts::set_handler(TIMER_LINE, steady_timer_interrupt);
        interrupts::set_handler(CONSOLE_LINE, steady_console_interrupt);
    }
}

/// Has the network's interrupt noticed as well. To be called once the driver has been started.
pub fn notice_network() {
    // SAFETY: written for this line.
    unsafe { interrupts::set_handler(NETWORK_LINE, steady_network_interrupt) };
}

/// Takes `now_ns` for the time before the first interrupt.
pub fn begin(now_ns: u64) {
    RECORD.last_ns.store(now_ns, Ordering::Relaxed);
}

/// Timer interrupts so far.
pub fn counted() -> u64 {
    RECORD.counted.load(Ordering::Relaxed)
}

/// The typed byte of this number, where it has come in; `Err` where it has been overwritten.
pub fn typed(number: u64) -> Option<Result<u8, ()>> {
    let count = RECORD.typed_count.load(Ordering::Relaxed);
    let byte = RECORD.typed.get(number as usize % TYPED)?;
    let kept = number.saturating_add(TYPED as u64) >= count;
    (number < count).then(|| {
        if kept {
            Ok(byte.load(Ordering::Relaxed))
        } else {
            Err(())
        }
    })
}

/// All of it. Interrupts are off.
pub fn seen() -> Seen {
    let read = |value: &AtomicU64| value.load(Ordering::Relaxed);
    let counted = counted();
    let kept = RECORD.distances_ns.iter().take(counted.min(KEPT as u64) as usize);
    let mut distances: Vec<u64> = kept.map(read).collect();
    Seen {
        counted,
        in_loop: read(&RECORD.in_loop),
        wrong_frames: read(&RECORD.wrong_frames),
        wrong_frame: core::array::from_fn(|part| RECORD.wrong_frame.get(part).map_or(0, read)),
        backwards: read(&RECORD.backwards),
        last_ns: read(&RECORD.last_ns),
        longest_ns: read(&RECORD.longest_ns),
        median_ns: statistics::median(&mut distances),
    }
}
