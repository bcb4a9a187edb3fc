//! Which ports speak in a generation that is over.
//!
//! For each pair the highest generation ever announced is kept, and for each port the pair and
//! generation it announced itself. A port whose generation is below the highest of its pair is
//! fenced. Invariants: generations only rise; a port stays with the first pair it names; a port
//! that announced nothing is never fenced.

use std::collections::BTreeMap;

use lockstep_logging_channel::Generation;

use super::port_id::{PORTS_MAX, PortId};
use lockstep_core::replica::mutant::{self, Mutant};
use lockstep_network::{Announcement, PairName};

/// Pairs remembered: twice the ports, so that when it is full there is always a pair with no port
/// to forget.
const PAIRS_MAX: usize = 2 * PORTS_MAX;

/// What an announcement changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Announced {
    /// Nothing: the generation of the pair is a higher one.
    Stale,
    /// Nothing for other ports: the generation of the pair is this one.
    Current,
    /// The generation of the pair rose: ports with a lower one are fenced from now on.
    Advanced,
    /// The port speaks for another pair: the announcement does not count.
    Foreign,
}

/// The generations announced.
#[derive(Debug, Default)]
pub(super) struct Fence {
    highest: BTreeMap<PairName, Generation>,
    ports: BTreeMap<PortId, Announcement>,
}

impl Fence {
    /// Takes what `port` announced.
    pub(super) fn announce(&mut self, port: PortId, announcement: Announcement) -> Announced {
        let own = self.ports.entry(port).or_insert(announcement);
        if own.pair != announcement.pair {
            return Announced::Foreign;
        }
        own.generation = own.generation.max(announcement.generation);
        match self.highest.get_mut(&announcement.pair) {
            Some(highest) if *highest > announcement.generation => Announced::Stale,
            Some(highest) if *highest == announcement.generation => Announced::Current,
            Some(highest) => {
                *highest = announcement.generation;
                Announced::Advanced
            }
            None => {
                self.make_room();
                self.highest.insert(announcement.pair, announcement.generation);
                Announced::Current
            }
        }
    }

    /// Whether what `port` sends must be refused.
    pub(super) fn is_fenced(&self, port: PortId) -> bool {
        let over = |own: &Announcement| {
            self.highest
                .get(&own.pair)
                .is_some_and(|highest| own.generation < *highest)
        };
        self.ports.get(&port).is_some_and(over) && !mutant::is(Mutant::AcceptOldGeneration)
    }

    /// The pair that `port` has named.
    pub(super) fn pair_of(&self, port: PortId) -> Option<PairName> {
        self.ports.get(&port).map(|own| own.pair)
    }

    /// True if `port` is that of a replica that is not live.
    pub(super) fn is_standby(&self, port: PortId) -> bool {
        let own = self.ports.get(&port);
        own.is_some_and(|own| *own == Announcement::standby(own.pair))
    }

    /// Forgets a port that is gone; gives its pair if that was the last port of it. The pair's
    /// generation stays.
    pub(super) fn forget_port(&mut self, port: PortId) -> Option<PairName> {
        let pair = self.ports.remove(&port)?.pair;
        let is_gone = self.ports.values().all(|own| own.pair != pair);
        is_gone.then_some(pair)
    }

    fn make_room(&mut self) {
        if self.highest.len() < PAIRS_MAX {
            return;
        }
        let is_absent = |pair: &PairName| !self.ports.values().any(|own| own.pair == *pair);
        let absent = self.highest.keys().find(|pair| is_absent(pair)).copied();
        if let Some(pair) = absent {
            self.highest.remove(&pair);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn announcement(pair: u8, generation: u32) -> Announcement {
        Announcement {
            pair: [pair; 16],
            generation: Generation(generation),
        }
    }

    #[test]
    fn a_higher_generation_fences_the_lower() {
        let mut fence = Fence::default();
        assert_eq!(fence.announce(PortId(1), announcement(7, 0)), Announced::Current);
        assert_eq!(fence.announce(PortId(2), announcement(7, 0)), Announced::Current);

        assert_eq!(fence.announce(PortId(2), announcement(7, 1)), Announced::Advanced);

        assert!(fence.is_fenced(PortId(1)));
        assert!(!fence.is_fenced(PortId(2)));
    }

    #[test]
    fn a_late_port_with_a_lower_generation_is_fenced_at_once_and_can_rise() {
        let mut fence = Fence::default();
        fence.announce(PortId(1), announcement(7, 3));
        fence.forget_port(PortId(1));
        assert_eq!(fence.announce(PortId(2), announcement(7, 2)), Announced::Stale);
        assert!(fence.is_fenced(PortId(2)));
        assert_eq!(fence.announce(PortId(2), announcement(7, 3)), Announced::Current);
        assert!(!fence.is_fenced(PortId(2)));
    }

    #[test]
    fn generations_never_fall_and_pairs_do_not_mix() {
        let mut fence = Fence::default();
        fence.announce(PortId(1), announcement(7, 3));
        assert_eq!(fence.announce(PortId(1), announcement(7, 1)), Announced::Stale);
        assert_eq!(fence.announce(PortId(1), announcement(8, 9)), Announced::Foreign);
        fence.announce(PortId(2), announcement(8, 0));
        assert!(!fence.is_fenced(PortId(1)) && !fence.is_fenced(PortId(2)));
        assert!(
            !fence.is_fenced(PortId(3)),
            "a port that announced nothing is free"
        );
    }

    #[test]
    fn pairs_without_a_port_make_room() {
        let mut fence = Fence::default();
        fence.announce(PortId(1), announcement(0, 5));
        for number in 0..4 * PAIRS_MAX as u32 {
            let pair = [&number.to_le_bytes()[..], &[1; 12]].concat();
            let pair = pair.try_into().unwrap();
            fence.announce(
                PortId(2),
                Announcement {
                    pair,
                    generation: Generation(1),
                },
            );
            fence.forget_port(PortId(2));
        }
        assert_eq!(fence.highest.len(), PAIRS_MAX);
        assert_eq!(fence.highest.get(&[0; 16]), Some(&Generation(5)));
    }
}
