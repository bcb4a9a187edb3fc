//! Lines that say how far something long is, for people.

use lockstep_process::writing::standard;
use std::time::{Duration, Instant};

/// Between two lines on a terminal.
const ON_TERMINAL: Duration = Duration::from_secs(1);
/// The same elsewhere: a log file wants few.
const ELSEWHERE: Duration = Duration::from_secs(10);

/// Times of the lines.
#[derive(Debug)]
pub struct Lines {
    every: Duration,
    at: Instant,
}

impl Lines {
    /// The first is due after a while: what is soon done says nothing.
    #[must_use]
    pub fn begin() -> Self {
        let every = if standard::error_is_terminal() {
            ON_TERMINAL
        } else {
            ELSEWHERE
        };
        Self {
            every,
            at: Instant::now() + every,
        }
    }

    /// True where a line is due. The next one is due a while after it.
    pub fn is_due(&mut self) -> bool {
        let now = Instant::now();
        let is_due = now >= self.at;
        if is_due {
            self.at = now + self.every;
        }
        is_due
    }
}
