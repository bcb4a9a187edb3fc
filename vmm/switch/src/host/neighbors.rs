//! MAC addresses of the guests that forwards lead to.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use lockstep_network::MacAddress;

/// Between two questions for the same address: often enough that the first client of a guest that
/// has just started does not notice, rare enough that a thousand waiting clients are one question.
pub(crate) const QUESTION_INTERVAL: Duration = Duration::from_millis(100);

#[derive(Debug, Default)]
struct Neighbor {
    mac: Option<MacAddress>,
    asked: Option<Instant>,
}

/// The guests that may be asked for: bounded by the forwards given at start.
#[derive(Debug)]
pub(crate) struct Neighbors {
    known: BTreeMap<Ipv4Addr, Neighbor>,
}

impl Neighbors {
    /// Only `guests` will be remembered.
    pub(super) fn of(guests: impl Iterator<Item = Ipv4Addr>) -> Self {
        Self {
            known: guests.map(|guest| (guest, Neighbor::default())).collect(),
        }
    }

    /// Takes what an ARP packet told. True where it is about a guest and new.
    pub(super) fn learn(&mut self, address: Ipv4Addr, mac: MacAddress) -> bool {
        self.known
            .get_mut(&address)
            .is_some_and(|neighbor| neighbor.mac.replace(mac) != Some(mac))
    }

    /// Where the guest is, as far as known.
    pub(super) fn mac_of(&self, guest: Ipv4Addr) -> Option<MacAddress> {
        self.known.get(&guest)?.mac
    }

    /// Whether it is time to ask for the guest; notes that it is asked then.
    pub(super) fn must_ask(&mut self, guest: Ipv4Addr, now: Instant) -> bool {
        let Some(neighbor) = self.known.get_mut(&guest) else {
            return false;
        };
        let is_recent = |asked: Instant| now.saturating_duration_since(asked) < QUESTION_INTERVAL;
        let must = !neighbor.asked.is_some_and(is_recent);
        if must {
            neighbor.asked = Some(now);
        }
        must
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_guests_are_remembered_and_the_latest_counts() {
        let (guest, stranger) = (Ipv4Addr::new(10, 0, 2, 15), Ipv4Addr::new(10, 0, 2, 16));
        let mut neighbors = Neighbors::of([guest].into_iter());

        assert!(neighbors.learn(guest, [2; 6]));
        assert!(!neighbors.learn(guest, [2; 6]));
        assert!(neighbors.learn(guest, [4; 6]));
        assert!(!neighbors.learn(stranger, [6; 6]));

        assert_eq!(
            (neighbors.mac_of(guest), neighbors.mac_of(stranger)),
            (Some([4; 6]), None)
        );
    }

    #[test]
    fn a_guest_is_asked_for_once_an_interval() {
        let guest = Ipv4Addr::new(10, 0, 2, 15);
        let mut neighbors = Neighbors::of([guest].into_iter());
        let start = Instant::now();

        assert!(neighbors.must_ask(guest, start));
        assert!(!neighbors.must_ask(guest, start + QUESTION_INTERVAL / 2));
        assert!(neighbors.must_ask(guest, start + QUESTION_INTERVAL));
        assert!(!neighbors.must_ask(Ipv4Addr::LOCALHOST, start));
    }
}
