//! ARP probes: whether a station answers in the guest's network.
//!
//! They are asked by the replica, not by the guest, whose MAC address must not be seen behind a
//! backup's port before the backup is live: every bridge on the way would send the guest's frames
//! there. So they have MAC addresses of the replica's own, locally administered and random, and no
//! IP address, as RFC 5227 section 1.1 has it for probes: nobody learns a wrong address from them.
//! A reply does not say which probe it answers. The probe's number modulo [`SLOTS`] is therefore in
//! the last two bits of the address it comes from and the reply goes to: replies that have waited
//! in the socket of a stopped process are known as old.

use lockstep_network::{ArpPacket, EthernetHeader, MacAddress};
use std::net::Ipv4Addr;
use zerocopy::FromBytes;

/// Probes that are told apart: those of half a timeout, beyond which a reply counts for nothing.
const SLOTS: usize = 4;
const SLOT_MASK: u8 = SLOTS as u8 - 1;

/// A station that does not answer is asked by broadcast once in so many probes, which is once in a
/// timeout: every station of the network receives a broadcast, the guest among them.
const BROADCAST_INTERVAL: u32 = 8;

const BROADCAST: MacAddress = [0xFF; 6];

#[derive(Debug)]
struct Station {
    witness: usize,
    address: Ipv4Addr,
    /// Address from which it answered last.
    mac: Option<MacAddress>,
    /// Probes since then.
    unanswered: u32,
}

/// Asks stations, and knows their replies.
#[derive(Debug)]
pub(super) struct ArpProber {
    /// The address of slot 0.
    mac: MacAddress,
    stations: Vec<Station>,
    slot: usize,
    asked_at_ns: [u64; SLOTS],
}

impl ArpProber {
    /// Asks `stations`, each with its number as a witness. `random` makes the addresses.
    pub(super) fn new(stations: impl Iterator<Item = (usize, Ipv4Addr)>, random: [u8; 16]) -> Self {
        let [first, second, third, fourth, fifth, sixth, ..] = random;
        let stations = stations.map(|(witness, address)| Station {
            witness,
            address,
            mac: None,
            unanswered: 0,
        });
        Self {
            // Locally administered, and one station.
            mac: [
                first & 0xFE | 0x02,
                second,
                third,
                fourth,
                fifth,
                sixth & !SLOT_MASK,
            ],
            stations: stations.collect(),
            slot: 0,
            asked_at_ns: [0; SLOTS],
        }
    }

    /// True if there is a witness to ask.
    pub(super) fn is_needed(&self) -> bool {
        !self.stations.is_empty()
    }

    /// The frames of the next question to all.
    pub(super) fn probes(&mut self, now_ns: u64) -> Vec<Vec<u8>> {
        self.slot = (self.slot + 1) % SLOTS;
        if let Some(asked_at_ns) = self.asked_at_ns.get_mut(self.slot) {
            *asked_at_ns = now_ns;
        }
        let [prefix @ .., last] = self.mac;
        let mut source = [0; 6];
        source
            .iter_mut()
            .zip(prefix.into_iter().chain([last | self.slot as u8]))
            .for_each(|(to, from)| *to = from);
        let probe = |station: &mut Station| {
            let number = station.unanswered;
            station.unanswered = number.wrapping_add(1);
            let is_broadcast =
                number.is_multiple_of(BROADCAST_INTERVAL) && (number > 0 || station.mac.is_none());
            let destination = if is_broadcast { BROADCAST } else { station.mac? };
            Some(ArpPacket::probe_frame(source, station.address, destination))
        };
        self.stations.iter_mut().filter_map(probe).collect()
    }

    /// None for a frame that is not for the prober. Otherwise the witness that has answered and
    /// when it was asked, if it is an answer.
    #[expect(
        clippy::option_option,
        reason = "not for the prober, and for it but no answer, are two things"
    )]
    pub(super) fn take(&mut self, frame: &[u8]) -> Option<Option<(usize, u64)>> {
        let (header, _) = EthernetHeader::ref_from_prefix(frame).ok()?;
        let [prefix @ .., last] = header.destination;
        let [own @ .., own_last] = self.mac;
        if !self.is_needed() || prefix != own || last & !SLOT_MASK != own_last {
            return None;
        }
        Some(self.answer(frame, usize::from(last & SLOT_MASK)))
    }

    fn answer(&mut self, frame: &[u8], slot: usize) -> Option<(usize, u64)> {
        let (address, mac) = ArpPacket::sender_of(frame)?;
        let asked_at_ns = self.asked_at_ns.get(slot).copied().filter(|at_ns| *at_ns > 0)?;
        let station = self
            .stations
            .iter_mut()
            .find(|station| station.address == address)?;
        station.mac = Some(mac);
        station.unanswered = 0;
        Some((station.witness, asked_at_ns))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WITNESS: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
    const WITNESS_MAC: MacAddress = [2, 0, 0, 0, 0, 9];
    const GUEST: MacAddress = [0x52, 0x54, 0, 0x4c, 0x53, 1];

    fn prober() -> ArpProber {
        ArpProber::new([(3, WITNESS)].into_iter(), [0xFF; 16])
    }

    fn source(frame: &[u8]) -> MacAddress {
        EthernetHeader::ref_from_prefix(frame).unwrap().0.source
    }

    fn destination(frame: &[u8]) -> MacAddress {
        EthernetHeader::ref_from_prefix(frame).unwrap().0.destination
    }

    fn reply_to(frame: &[u8]) -> Vec<u8> {
        ArpPacket::reply_frame((WITNESS_MAC, WITNESS), source(frame))
    }

    #[test]
    fn a_reply_counts_from_the_time_of_its_question() {
        let mut prober = prober();
        let first = prober.probes(100).remove(0);
        prober.probes(200);
        assert_eq!(prober.take(&reply_to(&first)), Some(Some((3, 100))));
    }

    #[test]
    fn a_probe_names_neither_the_guest_nor_an_address_and_is_a_station_of_its_own() {
        let frame = prober().probes(1).remove(0);
        assert_eq!(source(&frame)[0] & 3, 2, "locally administered, not a group");
        assert_eq!(
            ArpPacket::sender_of(&frame),
            None,
            "nobody learns an address from it"
        );
        assert_eq!(ArpPacket::probed(&frame), Some((WITNESS, source(&frame))));
        assert_eq!(destination(&frame), BROADCAST);
    }

    #[test]
    fn a_known_station_is_asked_alone_and_a_lost_one_by_broadcast_once_in_eight() {
        let mut prober = prober();
        let first = prober.probes(1).remove(0);
        prober.take(&reply_to(&first));
        let destinations: Vec<MacAddress> = (2..20)
            .map(|now_ns| destination(&prober.probes(now_ns)[0]))
            .collect();
        let broadcasts: Vec<usize> = (0..18)
            .filter(|place| destinations[*place] == BROADCAST)
            .collect();
        assert_eq!(broadcasts, [8, 16]);
        assert!(
            destinations
                .iter()
                .all(|to| *to == BROADCAST || *to == WITNESS_MAC)
        );
    }

    #[test]
    fn one_that_never_answered_is_asked_by_broadcast_only() {
        let mut prober = prober();
        let counts: Vec<usize> = (1..18).map(|now_ns| prober.probes(now_ns).len()).collect();
        assert_eq!(counts, [1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 1]);
    }

    #[test]
    fn frames_of_others_are_not_taken_and_nonsense_to_it_goes_nowhere() {
        let mut prober = prober();
        let probe = prober.probes(1).remove(0);
        let to_guest = ArpPacket::reply_frame((WITNESS_MAC, WITNESS), GUEST);
        assert_eq!(prober.take(&to_guest), None);
        assert_eq!(prober.take(&[0; 13]), None);
        let stranger = ArpPacket::reply_frame((WITNESS_MAC, [10, 0, 2, 9].into()), source(&probe));
        assert_eq!(prober.take(&stranger), Some(None));
        let [prefix @ .., last] = source(&probe);
        let mut never_asked = [0; 6];
        never_asked[..5].copy_from_slice(&prefix);
        never_asked[5] = last ^ 3;
        let reply = ArpPacket::reply_frame((WITNESS_MAC, WITNESS), never_asked);
        assert_eq!(prober.take(&reply), Some(None));
    }

    #[test]
    fn without_a_station_every_frame_is_the_guests() {
        let mut prober = ArpProber::new(std::iter::empty(), [0; 16]);
        let reply = ArpPacket::reply_frame((WITNESS_MAC, WITNESS), [2, 0, 0, 0, 0, 0]);
        assert_eq!(prober.take(&reply), None);
        assert!(prober.probes(1).is_empty());
    }
}
