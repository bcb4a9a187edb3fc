//! Which pair has which address.
//!
//! Two pairs with the same Ethernet or IP address would take it from each other with every frame.
//! The first to use an address keeps it as long as one of its replicas is attached. A machine that
//! has named no pair (QEMU, `lockstep run`) owns nothing: its address moves with it, and that of a
//! pair is refused to it. Within a pair, generations decide ([`super::fence`]).

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use lockstep_network::{MacAddress, PairName, Refusal};

/// Addresses owned by a pair, at most: a guest has one of each kind, the questions of its two
/// replicas to witnesses have eight, and this leaves room for a few more. What is beyond it is
/// admitted, and owned by nobody. A guest that makes addresses up owns no further ones. With 128
/// ports that is 2,048 in all.
const ADDRESSES_MAX: usize = 16;

/// An address that only one machine can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Address {
    Mac(MacAddress),
    Ip(Ipv4Addr),
}

impl Address {
    /// What a machine is told that must not use it.
    pub(super) fn refusal(self) -> Refusal {
        let (mac, ip) = match self {
            Self::Mac(mac) => (mac, Ipv4Addr::UNSPECIFIED),
            Self::Ip(ip) => ([0; 6], ip),
        };
        Refusal { mac, ip }
    }
}

/// The addresses in use.
#[derive(Debug, Default)]
pub(super) struct Owners {
    owners: BTreeMap<Address, PairName>,
}

impl Owners {
    /// True if a machine of `pair` may use `address`. What nobody owns becomes the pair's.
    pub(super) fn admits(&mut self, pair: Option<PairName>, address: Address) -> bool {
        if let Some(owner) = self.owners.get(&address) {
            return Some(*owner) == pair;
        }
        if let Some(pair) = pair
            && self.owners.values().filter(|owner| **owner == pair).count() < ADDRESSES_MAX
        {
            self.owners.insert(address, pair);
        }
        true
    }

    /// Frees the addresses of a pair that is gone.
    pub(super) fn forget(&mut self, pair: PairName) {
        self.owners.retain(|_, owner| *owner != pair);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALICE: Option<PairName> = Some([1; 16]);
    const BOB: Option<PairName> = Some([2; 16]);

    fn mac(number: u8) -> Address {
        Address::Mac([2, 0, 0, 0, 0, number])
    }

    #[test]
    fn the_first_pair_keeps_an_address_until_it_is_gone() {
        let mut owners = Owners::default();
        assert!(owners.admits(ALICE, mac(1)));
        assert!(!owners.admits(BOB, mac(1)));
        assert!(!owners.admits(None, mac(1)));
        assert!(owners.admits(ALICE, mac(1)));

        owners.forget([1; 16]);

        assert!(owners.admits(BOB, mac(1)));
        assert!(!owners.admits(ALICE, mac(1)));
    }

    #[test]
    fn who_is_of_no_pair_owns_nothing() {
        let mut owners = Owners::default();
        assert!(owners.admits(None, mac(1)));
        assert!(owners.admits(ALICE, mac(1)));
    }

    #[test]
    fn a_guest_that_makes_addresses_up_owns_few() {
        let mut owners = Owners::default();
        for number in 0..=u8::MAX {
            assert!(owners.admits(ALICE, mac(number)));
        }
        assert_eq!(owners.owners.len(), ADDRESSES_MAX);
        assert!(owners.admits(BOB, mac(u8::MAX)));
    }
}
