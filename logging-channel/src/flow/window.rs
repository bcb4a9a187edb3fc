//! Bytes under way.

use std::collections::VecDeque;

use super::FlowError;
use crate::Sequence;

/// The largest window: at 100 Mbit/s of log, more than a second of a backup that stands still.
pub const WINDOW_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// Bytes of entries appended that the peer has not replayed yet, and how many there may be.
///
/// An entry is 56 bytes at least, so a full window holds at most 299,593 entries, 4 bytes each here.
#[derive(Clone, Debug)]
pub struct Window {
    limit_bytes: u64,
    under_way_bytes: u64,
    /// Lengths of the entries under way; the last is that of the entry before `next`.
    lengths: VecDeque<u32>,
    next: Sequence,
}

impl Window {
    /// A window of `limit_bytes`, at most [`WINDOW_BYTES_MAX`], whose first entry will be `next`.
    #[must_use]
    pub fn new(limit_bytes: u64, next: Sequence) -> Self {
        let limit_bytes = limit_bytes.min(WINDOW_BYTES_MAX);
        Self {
            limit_bytes,
            under_way_bytes: 0,
            lengths: VecDeque::new(),
            next,
        }
    }

    /// Counts the next entry, of `length_bytes` encoded. It counts even when the window is full: the
    /// entry exists, and it is the caller who waits before making another.
    pub fn append(&mut self, length_bytes: u32) {
        self.lengths.push_back(length_bytes);
        self.under_way_bytes += u64::from(length_bytes);
        self.next = self.next.next();
    }

    /// Takes the peer's word that it has replayed everything up to `replayed`. An older word than the
    /// last changes nothing.
    ///
    /// # Errors
    /// [`FlowError::NeverAppended`]; nothing is changed.
    pub fn acknowledge(&mut self, replayed: Sequence) -> Result<(), FlowError> {
        if replayed >= self.next {
            return Err(FlowError::NeverAppended {
                acknowledged: replayed,
                appended: self.next,
            });
        }
        let remaining = self.next.0 - replayed.0 - 1;
        while self.lengths.len() as u64 > remaining {
            let length = self.lengths.pop_front().unwrap_or_default();
            self.under_way_bytes -= u64::from(length);
        }
        Ok(())
    }

    /// Whether the primary must wait for its backup before it appends more. With nothing under way it need
    /// not, however small the window: there would be nothing to wait for.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.under_way_bytes > 0 && self.under_way_bytes >= self.limit_bytes
    }

    /// Bytes appended and not replayed.
    #[must_use]
    pub fn under_way_bytes(&self) -> u64 {
        self.under_way_bytes
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn is_full_until_the_peer_has_replayed_enough() {
        let mut window = Window::new(200, Sequence(5));
        window.append(100);
        assert!(!window.is_full());
        window.append(150);
        assert!(window.is_full());
        window.acknowledge(Sequence(5)).unwrap();
        assert!(!window.is_full());
        assert_eq!(window.under_way_bytes(), 150);
    }

    #[test]
    fn an_old_acknowledgement_changes_nothing() {
        let mut window = Window::new(200, Sequence(0));
        (0..3).for_each(|_| window.append(60));
        window.acknowledge(Sequence(1)).unwrap();
        window.acknowledge(Sequence(0)).unwrap();
        assert_eq!(window.under_way_bytes(), 60);
    }

    #[test]
    fn what_was_never_appended_cannot_be_acknowledged() {
        let mut window = Window::new(200, Sequence(0));
        window.append(60);
        let error = FlowError::NeverAppended {
            acknowledged: Sequence(1),
            appended: Sequence(1),
        };
        assert_eq!(window.acknowledge(Sequence(1)), Err(error));
        assert_eq!(window.under_way_bytes(), 60);
    }

    #[test]
    fn the_smallest_window_lets_one_entry_through() {
        let mut window = Window::new(0, Sequence(0));
        assert!(!window.is_full());
        window.append(60);
        assert!(window.is_full());
        window.acknowledge(Sequence(0)).unwrap();
        assert!(!window.is_full());
    }

    #[test]
    fn no_window_is_larger_than_the_largest() {
        let mut window = Window::new(u64::MAX, Sequence(0));
        window.append(WINDOW_BYTES_MAX as u32);
        assert!(window.is_full());
    }

    proptest! {
        #[test]
        fn counts_what_is_not_acknowledged(
            lengths in prop::collection::vec(56_u32..2000, 1..50), picks in prop::collection::vec(0_usize..50, 0..10)
        ) {
            let mut window = Window::new(1000, Sequence(7));
            lengths.iter().for_each(|length| window.append(*length));
            let mut replayed = 0;
            for pick in picks.iter().map(|pick| pick % lengths.len()) {
                window.acknowledge(Sequence(7 + pick as u64)).unwrap();
                replayed = replayed.max(pick + 1);
                let expected: u64 = lengths[replayed..].iter().copied().map(u64::from).sum();
                prop_assert_eq!(window.under_way_bytes(), expected);
            }
        }
    }
}
