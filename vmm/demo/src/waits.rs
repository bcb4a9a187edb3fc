//! Waits of clients for replies. Times are in nanoseconds.

use std::time::Duration;

/// After the loss of a replica, requests sent this long count as around it.
const AROUND_LOSS: Duration = Duration::from_secs(5);

/// Replies after the loss whose times are kept: the first ones matter. 800 KiB.
const REPLIES_KEPT_MAX: usize = 100_000;

/// Waits of the clients for replies: around a loss, or at all where there was none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Waits {
    longest_ns: u64,
    lost_at_ns: Option<u64>,
    longest_around_loss_ns: Option<u64>,
    replies_after_loss_ns: Vec<u64>,
}

impl Waits {
    /// A replica is lost.
    pub(super) fn lost(&mut self, at_ns: u64) {
        self.lost_at_ns = Some(at_ns);
    }

    /// Notes a request sent and answered at these times.
    pub(super) fn note(&mut self, sent_ns: u64, replied_ns: u64) {
        let waited_ns = replied_ns.saturating_sub(sent_ns);
        self.longest_ns = self.longest_ns.max(waited_ns);
        let Some(lost_at_ns) = self.lost_at_ns.filter(|lost_at_ns| replied_ns >= *lost_at_ns) else {
            return;
        };
        if sent_ns <= lost_at_ns + AROUND_LOSS.as_nanos() as u64 {
            let longest = self.longest_around_loss_ns.unwrap_or(0).max(waited_ns);
            self.longest_around_loss_ns = Some(longest);
        }
        if self.replies_after_loss_ns.len() < REPLIES_KEPT_MAX {
            self.replies_after_loss_ns.push(replied_ns);
        }
    }

    /// The longest any client waited for a reply: around the loss, or at all where there was none.
    pub(super) fn gap_ns(&self) -> u64 {
        self.longest_around_loss_ns.unwrap_or(self.longest_ns)
    }

    /// Time of the first reply at or after a time after the loss.
    pub(super) fn first_reply_since(&self, at_ns: u64) -> Option<u64> {
        let replies = self.replies_after_loss_ns.iter().copied();
        replies.filter(|replied_ns| *replied_ns >= at_ns).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(notes: &[(u64, u64)], lost_at_ns: Option<u64>) -> Waits {
        let mut waits = Waits::default();
        lost_at_ns.into_iter().for_each(|at_ns| waits.lost(at_ns));
        notes
            .iter()
            .for_each(|(sent, replied)| waits.note(*sent, *replied));
        waits
    }

    #[test]
    fn the_gap_is_the_longest_wait_around_the_loss() {
        let after = AROUND_LOSS.as_nanos() as u64 + 101;
        let notes = [(0, 90), (95, 105), (after, after + 500), (90, 120)];
        assert_eq!(waits(&notes, Some(100)).gap_ns(), 30);
    }

    #[test]
    fn without_a_loss_it_is_the_longest_of_all() {
        assert_eq!(waits(&[(0, 90), (5, 7)], None).gap_ns(), 90);
        assert_eq!(waits(&[], None).gap_ns(), 0);
    }

    #[test]
    fn the_first_reply_is_that_of_any_client() {
        let all = waits(&[(90, 130), (131, 150), (99, 140)], Some(100));
        assert_eq!(all.first_reply_since(100), Some(130));
        assert_eq!(all.first_reply_since(135), Some(140));
        assert_eq!(all.first_reply_since(151), None);
    }
}
