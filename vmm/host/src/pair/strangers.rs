//! Connections to a waiting primary that are not its backup: port scans, health checks, browsers.
//!
//! The first is told at once, and those of the next minute together, when it is over: one quiet
//! line a minute at most, whatever comes.

use lockstep_process::once_a_minute::OnceAMinute;

/// Strangers that have come.
#[derive(Debug, Default)]
pub struct Strangers {
    lines: OnceAMinute,
    /// Description of what the last of them did.
    last: String,
}

impl Strangers {
    /// Counts a stranger. Gives the line to write now, if one is due.
    #[must_use]
    pub fn note(&mut self, what: &str) -> Option<String> {
        if self.lines.note() {
            return Some(format!("closed a connection that was not a backup: {what}"));
        }
        what.clone_into(&mut self.last);
        None
    }

    /// Waits for the end of the minute; for ever where there was no line. Cancel-safe.
    pub async fn due(&self) {
        self.lines.due().await;
    }

    /// The line about those that are counted and have none, which begins the next minute.
    #[must_use]
    pub fn tell(&mut self) -> Option<String> {
        let count = self.lines.take()?;
        let connections = if count == 1 { "connection" } else { "connections" };
        Some(format!(
            "closed {count} {connections} that were not a backup in the last minute; the last: {}",
            self.last
        ))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_process::once_a_minute::INTERVAL;
    use tokio::time::Instant;

    #[tokio::test(start_paused = true)]
    async fn the_first_is_told_and_the_rest_of_the_minute_is_counted() {
        let mut strangers = Strangers::default();
        let first = strangers.note("it sent GET");
        assert_eq!(
            first.as_deref(),
            Some("closed a connection that was not a backup: it sent GET")
        );
        for _ in 0..3 {
            assert_eq!(strangers.note("it was reset"), None);
        }
        let start = Instant::now();
        strangers.due().await;
        assert_eq!(start.elapsed(), INTERVAL);
        let line = strangers.tell();
        assert_eq!(
            line.as_deref(),
            Some("closed 3 connections that were not a backup in the last minute; the last: it was reset")
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_minute_without_strangers_ends_the_counting() {
        let mut strangers = Strangers::default();
        assert!(strangers.note("it was reset").is_some());
        strangers.due().await;
        assert_eq!(strangers.tell(), None);
        assert!(
            strangers.note("it was reset").is_some(),
            "the next is the first again"
        );
        for minute in 0..3 {
            assert!(strangers.note("a health check").is_none());
            strangers.due().await;
            assert!(strangers.tell().is_some(), "minute {minute}");
        }
    }
}
