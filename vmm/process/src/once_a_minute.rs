//! Bound on lines that somebody outside can cause: the first is written at once, those of the next
//! minute are counted, and written as one line when it is over.

use std::time::Duration;
use tokio::time::{Instant, sleep_until};

/// Time between two lines.
pub const INTERVAL: Duration = Duration::from_secs(60);

/// Events of one kind.
#[derive(Debug, Default)]
pub struct OnceAMinute {
    /// Events since the last line.
    counted: u64,
    /// End of the minute that the last line began.
    quiet_until: Option<Instant>,
}

/// Bound on a line that is not worth counting, for a thread of its own: what is not said is
/// forgotten.
#[derive(Debug, Default)]
pub struct Seldom {
    said: Option<std::time::Instant>,
}

impl Seldom {
    /// True where the line may be written at `now`: a minute after the last.
    #[must_use]
    pub fn may(&mut self, now: std::time::Instant) -> bool {
        let is_quiet = self
            .said
            .is_some_and(|said| now.saturating_duration_since(said) < INTERVAL);
        if !is_quiet {
            self.said = Some(now);
        }
        !is_quiet
    }
}

impl OnceAMinute {
    /// Takes an event; true if it has a line of its own, else it is counted.
    #[must_use]
    pub fn note(&mut self) -> bool {
        let is_first = self.quiet_until.is_none();
        if is_first {
            self.quiet_until = Some(Instant::now() + INTERVAL);
        } else {
            self.counted += 1;
        }
        is_first
    }

    /// Waits for the end of the minute; for ever where there was no line. Cancel-safe.
    pub async fn due(&self) {
        match self.quiet_until {
            Some(at) => sleep_until(at).await,
            None => std::future::pending().await,
        }
    }

    /// Number of the events that were counted, for a line that begins the next minute; none if
    /// there were none.
    #[must_use]
    pub fn take(&mut self) -> Option<u64> {
        let count = std::mem::take(&mut self.counted);
        self.quiet_until = (count > 0).then(|| Instant::now() + INTERVAL);
        (count > 0).then_some(count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_said_seldom_is_said_at_once_and_then_a_minute_later() {
        let mut seldom = Seldom::default();
        let now = std::time::Instant::now();
        let said = [0, 1, 59, 60, 61].map(|seconds| seldom.may(now + Duration::from_secs(seconds)));
        assert_eq!(said, [true, false, false, true, false]);
    }
}
