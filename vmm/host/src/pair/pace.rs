//! The pace at which a newcomer is sent what it needs.

use crate::configuration::Pace;
use std::time::Duration;
use tokio::time::Instant;

/// Time that a pace may catch up: what was not used longer ago is lost.
const BURST: Duration = Duration::from_millis(50);

/// Schedule of the records.
#[derive(Debug)]
pub struct Paced {
    pace: Pace,
    next_at: Instant,
}

impl Paced {
    /// Records leave at this pace from now on.
    #[must_use]
    pub fn new(pace: Pace) -> Self {
        Self {
            pace,
            next_at: Instant::now(),
        }
    }

    /// So many bytes leave now; gives the time at which the next may.
    pub fn sent(&mut self, bytes: usize) -> Instant {
        let Some(rate) = self.pace.bytes_per_second else {
            return self.next_at;
        };
        let ns = (bytes as u128) * 1_000_000_000 / u128::from(rate.max(1));
        let takes = Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX));
        let earliest = Instant::now().checked_sub(BURST).unwrap_or(self.next_at);
        self.next_at = self.next_at.max(earliest) + takes;
        self.next_at
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pace_bounds_the_bytes_and_catches_up_for_a_moment_only() {
        let mut paced = Paced::new(Pace {
            bytes_per_second: Some(1_000),
        });
        let start = Instant::now();
        assert_eq!(paced.sent(1_000), start + Duration::from_secs(1));
        assert_eq!(paced.sent(500), start + Duration::from_millis(1_500));
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(
            paced.sent(1_000),
            start + Duration::from_secs(61) - BURST,
            "a minute of silence is not made up for"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_bound_nothing_waits() {
        let mut paced = Paced::new(Pace::default());
        assert!(paced.sent(usize::MAX) <= Instant::now());
    }
}
