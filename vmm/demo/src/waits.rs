//! How long one client waited for replies. Times are in nanoseconds.

use std::time::Duration;

/// After the loss of a replica, requests sent this long count as around it.
pub(super) const AROUND_LOSS: Duration = Duration::from_secs(5);

/// How long a client waited for replies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Waits {
    /// For any reply.
    pub(super) longest_ns: u64,
    /// For one asked for around the loss of a replica.
    pub(super) longest_around_loss_ns: Option<u64>,
    /// When the first replies after it came.
    pub(super) replies_after_loss_ns: Vec<u64>,
}

/// Replies after the loss whose times are kept, a client: the first ones matter.
const REPLIES_KEPT_MAX: usize = 20_000;

impl Waits {
    /// Notes a request sent and answered at these times, with a replica lost at that time.
    pub(super) fn note(&mut self, sent_ns: u64, replied_ns: u64, lost_at_ns: Option<u64>) {
        let waited_ns = replied_ns.saturating_sub(sent_ns);
        self.longest_ns = self.longest_ns.max(waited_ns);
        let Some(lost_at_ns) = lost_at_ns.filter(|lost_at_ns| replied_ns >= *lost_at_ns) else {
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
}
