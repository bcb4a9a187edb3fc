//! When connections have something to do without being spoken to: delayed acknowledgements,
//! retransmissions.
//!
//! One heap for all. A connection is added for a deadline that is earlier than the one it waits for;
//! one that has become later is found out when the earlier one fires, so that the common case, an
//! acknowledgement that found data to travel with, costs nothing.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::task::Waker;
use std::time::Instant;

/// The deadlines of connections, by local port.
#[derive(Debug, Default)]
pub(super) struct Timers {
    deadlines: BinaryHeap<Reverse<(Instant, u16)>>,
    waker: Option<Waker>,
}

impl Timers {
    /// Adds a deadline of the connection at `port`.
    pub(super) fn add(&mut self, deadline: Instant, port: u16) {
        let is_first = self.first().is_none_or(|first| deadline < first);
        self.deadlines.push(Reverse((deadline, port)));
        if is_first && let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    /// The earliest deadline.
    fn first(&self) -> Option<Instant> {
        self.deadlines.peek().map(|Reverse((deadline, _))| *deadline)
    }

    /// The earliest deadline. `waker` is woken once there is an earlier one.
    pub(super) fn watch(&mut self, waker: &Waker) -> Option<Instant> {
        self.waker = Some(waker.clone());
        self.first()
    }

    /// Takes the earliest deadline that has passed.
    pub(super) fn take_due(&mut self, now: Instant) -> Option<(Instant, u16)> {
        self.first().filter(|first| *first <= now)?;
        self.deadlines.pop().map(|Reverse(due)| due)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    #[test]
    fn deadlines_come_in_order_and_not_before_their_time() {
        let start = Instant::now();
        let at = |milliseconds| start + Duration::from_millis(milliseconds);
        let mut timers = Timers::default();
        timers.add(at(30), 3);
        timers.add(at(10), 1);
        timers.add(at(20), 2);

        assert_eq!(timers.take_due(at(9)), None);
        assert_eq!(timers.take_due(at(20)), Some((at(10), 1)));
        assert_eq!(timers.take_due(at(20)), Some((at(20), 2)));
        assert_eq!(timers.take_due(at(20)), None);
        assert_eq!(timers.first(), Some(at(30)));
    }
}
