//! Sources that are devices: clocks, the timer, random bytes, console input.

use crate::report::Report;
use lockstep_guest_runtime::interrupts::{CONSOLE_LINE, TIMER_LINE, bit};
use lockstep_guest_runtime::{clock, console, interrupts, port, timer};

const RANDOM_PORT: u16 = 0x520;

/// Asks both clocks, `rounds` times.
pub fn clocks(rounds: u64) {
    let mut report = Report::new("clock");
    let (mut last, mut backwards) = (0, 0);
    for _ in 0..rounds {
        let now_ns = clock::monotonic_ns();
        backwards += u64::from(now_ns < last);
        last = now_ns;
        report.value(now_ns);
        report.value(clock::wall_ns());
    }
    report.note("backwards", backwards);
    report.print();
}

/// Reads the count of the running timer, `rounds` times.
pub fn counter(rounds: u64) {
    let mut report = Report::new("counter");
    timer::periodic(timer::COUNT_MAX);
    for _ in 0..rounds {
        report.value(u64::from(timer::read()));
    }
    timer::stop();
    report.print();
}

/// Takes random bytes, `rounds` times.
pub fn random(rounds: u64) {
    let mut report = Report::new("random");
    for _ in 0..rounds {
        report.value(u64::from(port::read_u32(RANDOM_PORT)));
    }
    report.print();
}

/// Halts until the timer interrupts, `rounds` times, and asks what time it is then.
pub fn halt(rounds: u64) {
    let mut report = Report::new("halt");
    interrupts::open(bit(TIMER_LINE));
    let before = interrupts::count(TIMER_LINE);
    for round in 0..rounds {
        // 0.1 ms to 1.6 ms.
        timer::one_shot(timer::counts((round % 16 + 1) * 100_000));
        interrupts::wait();
        report.value(clock::monotonic_ns());
    }
    interrupts::open(0);
    report.note("interrupts", interrupts::count(TIMER_LINE) - before);
    report.print();
}

/// Takes what is typed until a line ends or `wait_ms` are over.
pub fn console(wait_ms: u64) {
    let mut report = Report::new("console");
    console::set_up(true);
    interrupts::open(bit(CONSOLE_LINE) | bit(TIMER_LINE));
    let deadline = Deadline::after_ms(wait_ms);
    let (mut bytes, mut ended) = (0, false);
    while !ended && deadline.wait_on(interrupts::wait) {
        while let Some(byte) = console::read() {
            report.value(u64::from(byte));
            bytes += 1;
            // The key of a terminal whose line ends reach the guest as they are typed is CR.
            ended |= byte == b'\n' || byte == b'\r';
        }
    }
    timer::stop();
    interrupts::open(0);
    report.note("bytes", bytes);
    report.print();
}

/// An end of waiting, kept with the timer.
#[derive(Clone, Copy)]
pub struct Deadline {
    at_ns: u64,
}

impl Deadline {
    /// `wait_ms` from now.
    pub fn after_ms(wait_ms: u64) -> Self {
        Self {
            at_ns: clock::monotonic_ns().saturating_add(wait_ms.saturating_mul(1_000_000)),
        }
    }

    /// Runs `wait`, which some interrupt ends, the timer's at the latest. False once the time is over.
    pub fn wait_on(self, wait: impl FnOnce()) -> bool {
        let now_ns = clock::monotonic_ns();
        if now_ns >= self.at_ns {
            return false;
        }
        timer::one_shot(timer::counts(self.at_ns - now_ns));
        wait();
        true
    }
}
