//! What the clients and the director of the demonstration share, and what all clients together saw.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use super::client::ClientRecord;

/// After the loss of a replica, requests sent this long count as around it.
const AROUND_LOSS: Duration = Duration::from_secs(5);

/// Orders to the clients, and their progress. Written by one side, looked at by the other: nothing else hangs on
/// the order in which the values become visible.
#[derive(Debug, Default)]
pub(super) struct Control {
    stop: AtomicBool,
    lost_at_ns: AtomicU64,
    acknowledged: AtomicU64,
}

impl Control {
    /// No request is to be made any more.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether to stop.
    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// A replica was lost at this time.
    pub(super) fn lost(&self, at_ns: u64) {
        self.lost_at_ns.store(at_ns, Ordering::Relaxed);
    }

    /// When a replica was lost, if one was.
    pub(super) fn lost_at_ns(&self) -> Option<u64> {
        Some(self.lost_at_ns.load(Ordering::Relaxed)).filter(|at_ns| *at_ns > 0)
    }

    /// A write was acknowledged.
    pub(super) fn acknowledge(&self) {
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
    }

    /// Writes acknowledged so far.
    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }
}

/// How long a client waited for replies.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Waits {
    longest_ns: u64,
    longest_around_loss_ns: Option<u64>,
    replies_after_loss_ns: Vec<u64>,
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

/// What all clients saw.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LoadResult {
    /// How many there were.
    pub(super) clients: u64,
    /// Writes acknowledged.
    pub(super) acknowledged_writes: u64,
    /// Answers that were not the right one.
    pub(super) wrong_reads: u64,
    /// Why connections broke, for each that did.
    pub(super) broken: Vec<String>,
    /// Some of the wrong answers, for people.
    pub(super) complaints: Vec<String>,
    /// How long each client waited.
    pub(super) waits: Vec<Waits>,
}

/// Wrong answers quoted.
const COMPLAINTS_MAX: usize = 5;

impl LoadResult {
    /// Everything together.
    pub(super) fn of<'a>(records: impl Iterator<Item = &'a ClientRecord>) -> Self {
        let mut result = Self::default();
        for record in records {
            result.clients += 1;
            result.acknowledged_writes += record.acknowledged_writes;
            result.wrong_reads += record.wrong_answers;
            result.broken.extend(record.broken.clone());
            let room = COMPLAINTS_MAX.saturating_sub(result.complaints.len());
            result
                .complaints
                .extend(record.complaint.iter().take(room).cloned());
            result.waits.push(record.waits.clone());
        }
        result
    }

    /// The longest any client waited for a reply: around the loss, or at all where there was none. In nanoseconds.
    pub(super) fn client_gap_ns(&self) -> u64 {
        let around = self
            .waits
            .iter()
            .filter_map(|waits| waits.longest_around_loss_ns)
            .max();
        around.unwrap_or_else(|| self.waits.iter().map(|waits| waits.longest_ns).max().unwrap_or(0))
    }

    /// When the first reply came at or after a time after the loss, in nanoseconds.
    pub(super) fn first_reply_since(&self, at_ns: u64) -> Option<u64> {
        let replies = self.waits.iter().flat_map(|waits| &waits.replies_after_loss_ns);
        replies.copied().filter(|replied_ns| *replied_ns >= at_ns).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waits(notes: &[(u64, u64)], lost_at_ns: Option<u64>) -> Waits {
        let mut waits = Waits::default();
        notes
            .iter()
            .for_each(|(sent, replied)| waits.note(*sent, *replied, lost_at_ns));
        waits
    }

    fn result(waits: Vec<Waits>) -> LoadResult {
        LoadResult {
            waits,
            ..LoadResult::default()
        }
    }

    #[test]
    fn the_gap_is_the_longest_wait_around_the_loss() {
        let after = AROUND_LOSS.as_nanos() as u64 + 101;
        let first = waits(&[(0, 90), (95, 105), (after, after + 500)], Some(100));
        let second = waits(&[(90, 120)], Some(100));
        assert_eq!(result(vec![first, second]).client_gap_ns(), 30);
    }

    #[test]
    fn without_a_loss_it_is_the_longest_of_all() {
        assert_eq!(
            result(vec![waits(&[(0, 90)], None), waits(&[(5, 7)], None)]).client_gap_ns(),
            90
        );
        assert_eq!(result(Vec::new()).client_gap_ns(), 0);
    }

    #[test]
    fn the_first_reply_is_that_of_any_client() {
        let all = result(vec![
            waits(&[(90, 130), (131, 150)], Some(100)),
            waits(&[(99, 140)], Some(100)),
        ]);
        assert_eq!(all.first_reply_since(100), Some(130));
        assert_eq!(all.first_reply_since(135), Some(140));
        assert_eq!(all.first_reply_since(151), None);
    }
}
