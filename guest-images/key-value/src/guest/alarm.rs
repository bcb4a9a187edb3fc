//! The timer as the TCP stack wants it: an interrupt no later than a given time.
//!
//! Starting it is an exit, so a running one that is early enough is left alone, and one that turns out to
//! have been needless is let run out.

use lockstep_guest_runtime::interrupts::{self, TIMER_LINE};
use lockstep_guest_runtime::timer::{self, COUNTS_PER_SECOND};

/// One step of the timer: 256 counts, 0.2146 ms.
const STEP_NS: u64 = 256 * 1_000_000_000 / COUNTS_PER_SECOND;

/// How long the timer is to run.
pub struct Steps {
    count: u8,
    rings_at_ns: u64,
}

/// What the timer is doing.
pub struct Alarm {
    rings_at_ns: Option<u64>,
    interrupts: u64,
}

impl Alarm {
    /// A timer that is not running.
    pub fn new() -> Self {
        timer::set_up_coarse();
        Self {
            rings_at_ns: None,
            interrupts: interrupts::count(TIMER_LINE),
        }
    }

    /// What [`Alarm::start`] needs to be called with at `now_ns`, for an interrupt at `deadline_ns`, or before if
    /// that is more than 54 ms away. Nothing where what is running will do.
    pub fn needs(&mut self, now_ns: u64, deadline_ns: Option<u64>) -> Option<Steps> {
        let interrupts = interrupts::count(TIMER_LINE);
        if interrupts != self.interrupts {
            self.interrupts = interrupts;
            self.rings_at_ns = None;
        }
        let deadline_ns = deadline_ns?.max(now_ns);
        if self
            .rings_at_ns
            .is_some_and(|rings_at_ns| rings_at_ns <= deadline_ns)
        {
            return None;
        }
        let count = (deadline_ns - now_ns)
            .div_ceil(STEP_NS)
            .clamp(1, u64::from(u8::MAX));
        Some(Steps {
            count: count as u8,
            rings_at_ns: now_ns + count * STEP_NS,
        })
    }

    /// Starts the timer.
    pub fn start(&mut self, steps: Steps) {
        timer::restart_coarse(steps.count);
        self.rings_at_ns = Some(steps.rings_at_ns);
    }
}
