//! Epochs of a live machine whose backup does not run (docs/determinism.md, Checkpoint mode).

use lockstep_process::once_a_minute::Seldom;
use std::time::{Duration, Instant};

/// The clock of the epochs.
#[derive(Debug)]
pub struct Epochs {
    /// None: the backup replays, and there are none.
    length: Option<Duration>,
    /// End of the one that runs.
    ends: Option<Instant>,
    told: Seldom,
}

impl Epochs {
    /// Epochs of this length.
    #[must_use]
    pub fn of(length: Option<Duration>) -> Self {
        Self {
            length,
            ends: None,
            told: Seldom::default(),
        }
    }

    /// One begins, unless one runs.
    pub fn begin(&mut self, now: Instant) {
        if let (Some(length), None) = (self.length, self.ends) {
            self.ends = Some(now + length);
        }
    }

    /// The one that runs ends with a common point, which has taken until now.
    pub fn end(&mut self, now: Instant) {
        if let (Some(length), Some(ends)) = (self.length, self.ends.take()) {
            self.warn(length, now.saturating_duration_since(ends), now);
        }
    }

    /// End of the one that runs.
    #[must_use]
    pub fn ends(&self) -> Option<Instant> {
        self.ends
    }

    /// Says that a common point took longer than an epoch.
    fn warn(&mut self, length: Duration, took: Duration, now: Instant) {
        if took > length && self.told.may(now) {
            tracing::warn!(
                epoch_ms = length.as_millis(),
                took_ms = took.as_millis(),
                "a checkpoint took longer than an epoch: the guest writes much memory, and stands meanwhile"
            );
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: Duration = Duration::from_millis(20);

    #[test]
    fn an_epoch_begins_with_the_first_change_and_lasts_its_time() {
        let mut epochs = Epochs::of(Some(LENGTH));
        let now = Instant::now();
        assert_eq!(epochs.ends(), None, "an idle guest has none");
        epochs.begin(now);
        epochs.begin(now + LENGTH / 2);
        assert_eq!(epochs.ends(), Some(now + LENGTH));
        epochs.end(now + LENGTH);
        assert_eq!(epochs.ends(), None);
        epochs.begin(now + 2 * LENGTH);
        assert_eq!(epochs.ends(), Some(now + 3 * LENGTH));
    }

    #[test]
    fn where_the_backup_replays_there_are_none() {
        let mut epochs = Epochs::of(None);
        epochs.begin(Instant::now());
        assert_eq!(epochs.ends(), None);
    }
}
