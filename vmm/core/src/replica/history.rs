//! The entries before a divergence.

use lockstep_logging_channel::{Body, Entry};
use std::collections::VecDeque;

/// Entries before the differing one that a report shows.
pub const ENTRIES_BEFORE_MAX: usize = 8;

/// The last few entries met.
#[derive(Clone, Debug, Default)]
pub struct History(VecDeque<Entry>);

impl History {
    /// Remembers `entry`, forgets the oldest.
    pub fn push(&mut self, entry: Entry) {
        if self.0.len() == ENTRIES_BEFORE_MAX {
            self.0.pop_front();
        }
        self.0.push_back(entry);
    }

    /// True where the newest is a common point.
    #[must_use]
    pub fn ends_with_common_point(&self) -> bool {
        let newest = self.0.back();
        newest.is_some_and(|entry| matches!(entry.body, Body::CommonPoint(_)))
    }

    /// The entries, oldest first.
    #[must_use]
    pub fn entries(&self) -> Vec<Entry> {
        self.0.iter().cloned().collect()
    }
}
