//! Computes in ring 3 and makes no exit, while the timer interrupts: what arrives can enter only
//! where the machine itself stops the guest.
//!
//! The loop notices interrupts by memory that their handlers change. A handler looks at the frame
//! of the interrupted program and takes the time from the clock page, which costs no exit either.
//! At the end everything is compared with what the number of passes makes of it.
//!
//! Options: `interrupts=N` (timer interrupts to end at, default 100; 0 for no end), `pages=N`
//! (pages that each pass changes, default 16), `passes=N` (where it gives up waiting, default
//! 50,000,000 visits of a page for each interrupt), `period_us=N` (time from one timer interrupt to
//! the next, 100 to 50,000, default 10,000), `clock=ask` (the handler asks the clock: two
//! exits an interrupt), `exit_passes=N` (makes an exit after each N passes, for comparison),
//! `echo=console,network` (echoes what is typed, until Ctrl-C; answers ARP, ping and UDP port 7 at
//! `ip=10.0.2.15`).
#![no_std]
#![no_main]

extern crate alloc;

mod neighbours;
mod options;
mod record;

use core::sync::atomic::Ordering;
use lockstep_guest_runtime::interrupts::{self, CONSOLE_LINE, NETWORK_LINE, TIMER_LINE, bit};
use lockstep_guest_runtime::{Machine, clock, console, guest, memory, port, println, timer};
use lockstep_guest_steady::{ATTENTION, PAGE_BYTES, Work, statistics};
use neighbours::{Frames, Typing};
use options::Options;
use record::Seen;

guest!(main);

/// A port that nothing listens on: writing to it is an exit and no more.
const NOWHERE: u16 = 0x80;

/// Something is not what it must be.
const STATUS_WRONG: u32 = 1;
/// The command line is not understood, or asks for what the machine does not have.
const STATUS_OPTIONS: u32 = 2;
/// The interrupts did not come.
const STATUS_NO_INTERRUPTS: u32 = 3;

fn main(machine: &Machine) -> u32 {
    let options = match Options::read(machine.command_line) {
        Ok(options) => options,
        Err(error) => {
            println!("steady: {error}");
            return STATUS_OPTIONS;
        }
    };
    if options.pages.saturating_mul(PAGE_BYTES) > memory::heap_bytes() / 2 {
        println!(
            "steady: {} pages do not fit into half of the memory",
            options.pages
        );
        return STATUS_OPTIONS;
    }
    clock::enable_page();
    record::install(options.interrupts, options.asks_clock);
    let mut frames = None;
    if options.network {
        match Frames::start(options.ip) {
            Ok(started) => frames = Some(started),
            Err(error) => {
                println!("steady: {error}");
                return STATUS_OPTIONS;
            }
        }
    }
    println!(
        "steady: computes over {} pages until {}",
        options.pages, options.end
    );
    run(&options, frames)
}

/// Computes with interrupts on, then prints what came of it.
fn run(options: &Options, mut frames: Option<Frames>) -> u32 {
    let mut work = Work::new(options.pages);
    let mut typing = Typing::default();
    let started_ns = start(options);
    loop {
        // First: what comes after it is looked at the next time.
        ATTENTION.store(0, Ordering::Relaxed);
        typing.turn();
        frames.iter_mut().for_each(Frames::turn);
        let ended = record::counted() >= options.interrupts || typing.interrupted();
        if ended || work.passes() >= options.passes_max {
            break;
        }
        let leg = work.passes().saturating_add(options.exit_passes);
        work.compute(leg.min(options.passes_max));
        if options.exit_passes < u64::MAX {
            port::write_u8(NOWHERE, 0);
        }
    }
    interrupts::disable();
    timer::stop();
    interrupts::open(0);
    if options.console {
        println!("steady: {} bytes typed", typing.taken());
    }
    if let Some(frames) = &frames {
        println!("steady: {} frames answered", frames.answered());
    }
    let enough = record::counted() >= options.interrupts || typing.interrupted();
    judge(&work, &record::seen(), options, started_ns, enough)
}

/// Starts timer and interrupts. Gives the time before the first.
fn start(options: &Options) -> u64 {
    let console_bit = if options.console { bit(CONSOLE_LINE) } else { 0 };
    let network_bit = if options.network { bit(NETWORK_LINE) } else { 0 };
    console::set_up(options.console);
    interrupts::open(bit(TIMER_LINE) | console_bit | network_bit);
    let started_ns = clock::monotonic_ns();
    record::begin(started_ns);
    timer::periodic(options.period_counts);
    interrupts::enable();
    started_ns
}

/// Prints what has been seen, and the guest's status.
fn judge(work: &Work, seen: &Seen, options: &Options, started_ns: u64, enough: bool) -> u32 {
    let elapsed_ns = seen.last_ns.saturating_sub(started_ns);
    println!(
        "steady: {} interrupts, {} of them in the loop, {} missed; distance median {} us, longest {} us",
        seen.counted,
        seen.in_loop,
        statistics::missed(elapsed_ns, options.period_ns(), seen.counted),
        seen.median_ns / 1000,
        seen.longest_ns / 1000,
    );
    let mut wrong = false;
    if seen.wrong_frames > 0 {
        let [rip, cs, flags, rsp, ss] = seen.wrong_frame;
        println!(
            "steady: {} interrupt frames are wrong, the first: RIP {rip:#x}, CS {cs:#x}, RFLAGS {flags:#x}, \
             RSP {rsp:#x}, SS {ss:#x}",
            seen.wrong_frames
        );
        wrong = true;
    }
    if seen.backwards > 0 {
        println!("steady: the clock went backwards {} times", seen.backwards);
        wrong = true;
    }
    if let Some(difference) = work.difference() {
        println!("steady: after {} passes {difference}", work.passes());
        wrong = true;
    }
    if wrong {
        return STATUS_WRONG;
    }
    println!(
        "steady: {} passes over {} pages are as computed, checksum {:016x}",
        work.passes(),
        work.pages(),
        work.checksum()
    );
    if enough {
        0
    } else {
        println!("steady: gave up waiting for interrupts");
        STATUS_NO_INTERRUPTS
    }
}
