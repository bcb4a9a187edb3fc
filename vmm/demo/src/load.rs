//! What all clients of the demonstration together saw.

use super::client::ClientRecord;
use super::waits::Waits;

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
    use crate::waits::AROUND_LOSS;

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
