//! When a machine announces where it is: at once, and again with growing pauses.
//!
//! A broadcast is lost easily: a bridge port that is still learning, a queue that is full, a link
//! that comes up late. QEMU's `announce-self` repeats it for that reason, and so does this. A link
//! that comes back starts the schedule again. Pure: the time is told.

use std::time::{Duration, Instant};

use lockstep_logging_channel::Generation;

use super::{Announcement, MacAddress, PairName};

/// Pauses between the announcements of one schedule: 1.25 s in all, six announcements.
pub(super) const PAUSES: [Duration; 5] = [
    Duration::from_millis(50),
    Duration::from_millis(150),
    Duration::from_millis(250),
    Duration::from_millis(350),
    Duration::from_millis(450),
];

/// Pause before an announcement that could not leave is tried again: at most 100 attempts a second.
pub(super) const ATTEMPT_INTERVAL: Duration = Duration::from_millis(10);

/// The announcements of one machine.
#[derive(Clone, Debug)]
pub(super) struct Announcing {
    pair: PairName,
    generation: Generation,
    mac: MacAddress,
    round: usize,
    due: Option<Instant>,
}

impl Announcing {
    /// A schedule that begins now.
    pub(super) fn new(pair: PairName, generation: Generation, mac: MacAddress, now: Instant) -> Self {
        Self {
            pair,
            generation,
            mac,
            round: 0,
            due: Some(now),
        }
    }

    /// Begins the schedule again: the link is a new one.
    pub(super) fn restart(&mut self, now: Instant) {
        (self.round, self.due) = (0, Some(now));
    }

    /// Time of the next announcement, if one is left.
    pub(super) fn due(&self) -> Option<Instant> {
        self.due
    }

    /// True while the first announcement of the schedule has not left: the one that tells a switch
    /// the generation.
    pub(super) fn is_first(&self) -> bool {
        self.round == 0
    }

    /// The announcement for a switch of ours.
    pub(super) fn to_switch(&self) -> Announcement {
        Announcement {
            pair: self.pair,
            generation: self.generation,
        }
    }

    /// Ethernet address of the guest.
    pub(super) fn mac(&self) -> MacAddress {
        self.mac
    }

    /// Notes that the announcement that was due has left.
    pub(super) fn left(&mut self, now: Instant) {
        self.due = PAUSES.get(self.round).map(|pause| now + *pause);
        self.round += 1;
    }

    /// Notes that it could not leave, or must not now.
    pub(super) fn stayed(&mut self, now: Instant) {
        self.due = Some(now + ATTEMPT_INTERVAL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announcing(now: Instant) -> Announcing {
        Announcing::new([1; 16], Generation(2), [2; 6], now)
    }

    /// Times of all announcements that are left, in milliseconds after `start`.
    fn rest(announcing: &mut Announcing, start: Instant) -> Vec<u128> {
        let mut times = Vec::new();
        while let Some(due) = announcing.due() {
            times.push(due.duration_since(start).as_millis());
            announcing.left(due);
        }
        times
    }

    #[test]
    fn it_is_repeated_five_times_with_growing_pauses() {
        let start = Instant::now();
        assert_eq!(rest(&mut announcing(start), start), [0, 50, 200, 450, 800, 1250]);
    }

    #[test]
    fn one_that_could_not_leave_is_tried_again_and_none_is_missed() {
        let start = Instant::now();
        let mut announcing = announcing(start);
        announcing.stayed(start);
        announcing.stayed(start + Duration::from_millis(10));
        assert!(announcing.is_first());
        assert_eq!(rest(&mut announcing, start), [20, 70, 220, 470, 820, 1270]);
        assert!(!announcing.is_first());
    }

    #[test]
    fn a_new_link_starts_it_again() {
        let start = Instant::now();
        let mut announcing = announcing(start);
        rest(&mut announcing, start);
        announcing.restart(start);
        assert!(announcing.is_first());
        assert_eq!(rest(&mut announcing, start).len(), 6);
    }
}
