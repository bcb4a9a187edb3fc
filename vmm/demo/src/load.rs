//! Observations of all clients of the demonstration together.

use super::client::ClientRecord;

/// Observations of all clients.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct LoadResult {
    /// Number of clients.
    pub(super) clients: u64,
    /// Writes acknowledged.
    pub(super) acknowledged_writes: u64,
    /// Answers that were not the right one.
    pub(super) wrong_reads: u64,
    /// Reasons why connections broke, one for each that did.
    pub(super) broken: Vec<String>,
    /// Some of the wrong answers, for people.
    pub(super) complaints: Vec<String>,
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
        }
        result
    }
}
