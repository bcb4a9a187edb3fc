//! Where a frame goes: learning, flooding, fencing. Pure: no socket, no task, no clock.

use std::collections::BTreeMap;

use zerocopy::FromBytes;

use super::capture::Capture;
use super::fence::{Announced, Fence};
use super::owners::{Address, Owners};
use super::port_id::{PORTS_MAX, PortId};
use super::queue::{HOST_BYTES_MAX, PortQueue};
use super::table::{Learned, StationTable};
use lockstep_network::{Announcement, ArpPacket, CONTROL_ETHERTYPE, EthernetHeader, MacAddress};

/// Addresses of which a machine is told that they are another pair's, at most: so many lines and
/// frames in its life.
const REFUSALS_TOLD_MAX: usize = 16;

/// What a frame that entered means for the host.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Verdict {
    /// The host's own station is to receive it.
    pub(super) for_host: bool,
    /// A machine speaks from another place than before, or says that it is live.
    pub(super) moved: bool,
}

/// One attached machine.
#[derive(Debug, Default)]
pub(super) struct Port {
    pub(super) queue: PortQueue,
    /// True once a frame came: from then on it is a machine, and not a health check that connects
    /// and closes.
    is_machine: bool,
    fenced: bool,
    refused_frames: u64,
    /// Addresses that were refused to it, of which it has been told.
    refused: Vec<Address>,
}

/// The ports and what is known about them.
pub(super) struct Fabric {
    host_mac: MacAddress,
    ports: BTreeMap<PortId, Port>,
    attached: u32,
    stations: StationTable,
    fence: Fence,
    owners: Owners,
    capture: Option<Capture>,
}

impl Fabric {
    /// A fabric with no port but the host's own.
    pub(super) fn new(host_mac: MacAddress, capture: Option<Capture>) -> Self {
        Self {
            host_mac,
            ports: BTreeMap::new(),
            attached: 0,
            stations: StationTable::default(),
            fence: Fence::default(),
            owners: Owners::default(),
            capture,
        }
    }

    /// A new port, or none where there are [`PORTS_MAX`].
    pub(super) fn attach(&mut self) -> Option<PortId> {
        if self.ports.len() >= PORTS_MAX {
            return None;
        }
        self.attached += 1;
        let id = PortId(self.attached);
        self.ports.insert(id, Port::default());
        Some(id)
    }

    /// Removes a port with everything known about it, and logs what it lost.
    pub(super) fn detach(&mut self, id: PortId) {
        self.stations.forget_port(id);
        if let Some(pair) = self.fence.forget_port(id) {
            self.owners.forget(pair);
        }
        if let Some(port) = self.ports.remove(&id) {
            let (dropped, refused) = (port.queue.dropped_frames(), port.refused_frames);
            if port.is_machine {
                tracing::info!(port = id.0, dropped, refused, "machine detached");
            }
        }
    }

    /// An attached port.
    pub(super) fn port_mut(&mut self, id: PortId) -> Option<&mut Port> {
        self.ports.get_mut(&id)
    }

    /// True where the host may send to `mac` now without crowding its port, and where the port is
    /// unknown.
    pub(super) fn has_room_for_host(&self, mac: &MacAddress) -> bool {
        let port = self.stations.port_of(mac).and_then(|id| self.ports.get(&id));
        port.is_none_or(|port| port.queue.waiting_bytes() < HOST_BYTES_MAX)
    }

    /// Takes a frame in and queues it where it belongs.
    pub(super) fn enter(&mut self, from: PortId, frame: &[u8]) -> Verdict {
        if let Some(capture) = &mut self.capture {
            capture.frame(from, frame);
        }
        if let Some(port) = self.ports.get_mut(&from)
            && !port.is_machine
        {
            port.is_machine = true;
            tracing::info!(port = from.0, "machine attached");
        }
        let Ok((header, _)) = EthernetHeader::ref_from_prefix(frame) else {
            return Verdict::default();
        };
        if header.ethertype.get() == CONTROL_ETHERTYPE {
            return self.control(from, frame);
        }
        if self.is_refused(from, header, frame) {
            return Verdict::default();
        }
        let moved = from != PortId::HOST && self.learn(header.source, from) == Learned::Moved;
        Verdict {
            for_host: self.deliver(from, header.destination, frame),
            moved,
        }
    }

    fn control(&mut self, from: PortId, frame: &[u8]) -> Verdict {
        let Some(announcement) = Announcement::from_frame(frame) else {
            return Verdict::default();
        };
        let announced = self.fence.announce(from, announcement);
        let generation = announcement.generation.0;
        match announced {
            Announced::Current => tracing::debug!(port = from.0, generation, "generation announced"),
            _ if generation == 0 => tracing::debug!(port = from.0, "a replica stands by"),
            Announced::Stale => tracing::warn!(
                port = from.0,
                generation,
                "a generation that is over was announced"
            ),
            Announced::Advanced => tracing::info!(port = from.0, generation, "generation advanced"),
            Announced::Foreign => tracing::warn!(port = from.0, "announces for a second pair: not heard"),
        }
        self.refresh_fence();
        Verdict {
            for_host: false,
            moved: matches!(announced, Announced::Advanced | Announced::Current),
        }
    }

    fn refresh_fence(&mut self) {
        for (id, port) in &mut self.ports {
            let fenced = self.fence.is_fenced(*id);
            if fenced && !port.fenced {
                if self.fence.is_standby(*id) {
                    tracing::debug!(port = id.0, "not heard until it is live");
                } else {
                    tracing::info!(port = id.0, "fenced: its generation is over");
                }
                self.stations.forget_port(*id);
            }
            port.fenced = fenced;
        }
    }

    /// True if a frame must not enter: its port is fenced or gone, or it claims an address of the
    /// host or of another pair.
    fn is_refused(&mut self, from: PortId, header: &EthernetHeader, frame: &[u8]) -> bool {
        if from == PortId::HOST {
            return false;
        }
        let is_fenced = self.ports.get(&from).is_none_or(|port| port.fenced)
            && !self.is_probe_of_standby(from, header, frame);
        let refused =
            is_fenced || header.source == self.host_mac || self.is_of_another_pair(from, header, frame);
        if let Some(port) = self.ports.get_mut(&from) {
            port.refused_frames += u64::from(refused);
        }
        refused
    }

    /// True for an ARP probe by which a replica that is not live asks a witness. It shows no
    /// address of the guest: one that is known elsewhere does not move by it. Without an answer the
    /// replica would wait before it claims.
    fn is_probe_of_standby(&self, from: PortId, header: &EthernetHeader, frame: &[u8]) -> bool {
        self.fence.is_standby(from)
            && ArpPacket::probed(frame).is_some_and(|(_, asker)| asker == header.source)
            && self
                .stations
                .port_of(&header.source)
                .is_none_or(|port| port == from)
    }

    /// True if the frame uses an address of another pair; its machine is told once for each
    /// address.
    fn is_of_another_pair(&mut self, from: PortId, header: &EthernetHeader, frame: &[u8]) -> bool {
        let mac = (!is_group(&header.source)).then_some(Address::Mac(header.source));
        let ip = ArpPacket::sender_of(frame).map(|(ip, _)| Address::Ip(ip));
        let pair = self.fence.pair_of(from);
        let mut used = [mac, ip].into_iter().flatten();
        let Some(refused) = used.find(|address| !self.owners.admits(pair, *address)) else {
            return false;
        };
        if let Some(port) = self.ports.get_mut(&from)
            && port.refused.len() < REFUSALS_TOLD_MAX
            && !port.refused.contains(&refused)
        {
            port.refused.push(refused);
            port.queue.push(&refused.refusal().to_frame());
            tracing::warn!(port = from.0, "{}", refused.refusal());
        }
        true
    }

    fn learn(&mut self, source: MacAddress, from: PortId) -> Learned {
        if is_group(&source) {
            return Learned::Nothing;
        }
        self.stations.hear(source, from)
    }

    /// Queues the frame; true where the host is among its receivers.
    fn deliver(&mut self, from: PortId, destination: MacAddress, frame: &[u8]) -> bool {
        if destination == self.host_mac {
            return from != PortId::HOST;
        }
        match self
            .stations
            .port_of(&destination)
            .filter(|_| !is_group(&destination))
        {
            Some(to) if to == from => {}
            Some(to) => {
                if let Some(port) = self.ports.get_mut(&to) {
                    port.queue.push(frame);
                }
            }
            None => {
                let others = self
                    .ports
                    .iter_mut()
                    .filter(|(id, port)| **id != from && !port.fenced);
                others.for_each(|(_, port)| port.queue.push(frame));
            }
        }
        from != PortId::HOST && is_group(&destination)
    }
}

/// Whether an address means several stations.
fn is_group(mac: &MacAddress) -> bool {
    let [first, ..] = mac;
    first & 1 == 1
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_logging_channel::Generation;
    use lockstep_network::{Refusal, gratuitous_arp};

    const HOST: MacAddress = [2, 0, 0, 0, 0, 0xFE];
    const ALICE: MacAddress = [2, 0, 0, 0, 0, 1];
    const BOB: MacAddress = [2, 0, 0, 0, 0, 2];
    const ALL: MacAddress = [0xFF; 6];
    const TO_HOST: Verdict = Verdict {
        for_host: true,
        moved: false,
    };
    const NOTHING: Verdict = Verdict {
        for_host: false,
        moved: false,
    };

    fn frame(from: MacAddress, to: MacAddress) -> Vec<u8> {
        [&to[..], &from, &[8, 0], &[0; 46]].concat()
    }

    fn announcement(generation: u32) -> Vec<u8> {
        Announcement {
            pair: [1; 16],
            generation: Generation(generation),
        }
        .to_frame()
    }

    fn three_ports() -> (Fabric, [PortId; 3]) {
        let mut fabric = Fabric::new(HOST, None);
        let ports = std::array::from_fn(|_| fabric.attach().unwrap());
        (fabric, ports)
    }

    /// How many frames wait at each port since this was asked last.
    fn queued(fabric: &mut Fabric) -> Vec<usize> {
        let drain = |port: &mut Port| {
            let bytes = port.queue.waiting_bytes();
            port.queue.written(bytes);
            bytes / 64
        };
        fabric.ports.values_mut().map(drain).collect()
    }

    #[test]
    fn an_unknown_station_is_flooded_to_a_known_one_is_not() {
        let (mut fabric, [a, b, _]) = three_ports();

        assert_eq!(fabric.enter(a, &frame(ALICE, BOB)), NOTHING);
        assert_eq!(queued(&mut fabric), [0, 1, 1]);
        assert_eq!(fabric.enter(b, &frame(BOB, ALICE)), NOTHING);
        assert_eq!(queued(&mut fabric), [1, 0, 0]);
        assert_eq!(fabric.enter(a, &frame(ALICE, BOB)), NOTHING);
        assert_eq!(queued(&mut fabric), [0, 1, 0]);
    }

    #[test]
    fn a_broadcast_goes_to_all_and_to_the_host() {
        let (mut fabric, [a, ..]) = three_ports();
        assert_eq!(fabric.enter(a, &frame(ALICE, ALL)), TO_HOST);
        assert_eq!(queued(&mut fabric), [0, 1, 1]);
        assert_eq!(fabric.enter(PortId::HOST, &frame(HOST, ALL)), NOTHING);
        assert_eq!(queued(&mut fabric), [1, 1, 1]);
    }

    #[test]
    fn the_host_is_a_station_nobody_else_can_be() {
        let (mut fabric, [a, b, _]) = three_ports();
        assert_eq!(fabric.enter(a, &frame(ALICE, HOST)), TO_HOST);
        assert_eq!(fabric.enter(b, &frame(HOST, ALICE)), NOTHING);
        assert_eq!(queued(&mut fabric), [0, 0, 0]);
        fabric.enter(PortId::HOST, &frame(HOST, ALICE));
        assert_eq!(queued(&mut fabric), [1, 0, 0]);
    }

    #[test]
    fn a_station_that_speaks_elsewhere_has_moved() {
        let (mut fabric, [a, b, _]) = three_ports();
        fabric.enter(a, &frame(ALICE, HOST));
        assert_eq!(
            fabric.enter(b, &frame(ALICE, HOST)),
            Verdict {
                for_host: true,
                moved: true
            }
        );
        fabric.enter(PortId::HOST, &frame(HOST, ALICE));
        assert_eq!(queued(&mut fabric), [0, 1, 0]);
    }

    #[test]
    fn a_port_that_is_gone_is_flooded_around() {
        let (mut fabric, [a, ..]) = three_ports();
        fabric.enter(a, &frame(ALICE, HOST));
        fabric.detach(a);
        fabric.enter(PortId::HOST, &frame(HOST, ALICE));
        assert_eq!(queued(&mut fabric), [1, 1]);
        assert_eq!(fabric.enter(a, &frame(ALICE, HOST)), NOTHING);
    }

    #[test]
    fn a_fenced_port_neither_speaks_nor_is_spoken_to() {
        let (mut fabric, [old, new, _]) = three_ports();
        fabric.enter(old, &announcement(0));
        fabric.enter(new, &announcement(0));
        fabric.enter(old, &frame(ALICE, HOST));

        let advanced = fabric.enter(new, &announcement(1));

        assert_eq!(
            advanced,
            Verdict {
                for_host: false,
                moved: true
            }
        );
        assert_eq!(queued(&mut fabric), [0, 0, 0], "announcements are not passed on");
        assert_eq!(fabric.enter(old, &frame(ALICE, HOST)), NOTHING);
        assert_eq!(fabric.enter(old, &frame(ALICE, ALL)), NOTHING);
        fabric.enter(PortId::HOST, &frame(HOST, ALICE));
        assert_eq!(queued(&mut fabric), [0, 1, 1]);
        assert_eq!(fabric.enter(new, &frame(ALICE, HOST)), TO_HOST);
    }

    fn of_pair(pair: u8, generation: u32) -> Vec<u8> {
        let announcement = Announcement {
            pair: [pair; 16],
            generation: Generation(generation),
        };
        announcement.to_frame()
    }

    #[test]
    fn an_address_of_another_pair_is_refused_and_its_machine_told_once() {
        let (mut fabric, [first, standby, second]) = three_ports();
        fabric.enter(first, &of_pair(1, 1));
        fabric.enter(standby, &of_pair(1, 0));
        fabric.enter(first, &frame(ALICE, HOST));
        fabric.enter(second, &of_pair(2, 1));
        queued(&mut fabric);

        for _ in 0..3 {
            assert_eq!(fabric.enter(second, &frame(ALICE, HOST)), NOTHING);
        }
        let told = fabric.port_mut(second).unwrap().queue.waiting().to_vec();
        assert_eq!(
            Refusal::from_frame(&told[4..]),
            Some(Address::Mac(ALICE).refusal())
        );
        assert_eq!(queued(&mut fabric), [0, 0, 1]);
        assert_eq!(fabric.enter(first, &frame(ALICE, HOST)), TO_HOST);

        // The pair keeps it while its other replica is attached, and that one may use it when it is
        // live.
        fabric.detach(first);
        assert_eq!(fabric.enter(second, &frame(ALICE, HOST)), NOTHING);
        fabric.enter(standby, &of_pair(1, 2));
        assert!(fabric.enter(standby, &frame(ALICE, HOST)).for_host);
        fabric.detach(standby);
        assert!(fabric.enter(second, &frame(ALICE, HOST)).for_host);
    }

    #[test]
    fn probes_of_all_replicas_of_two_pairs_are_heard_and_answered_and_nothing_else_of_a_standby() {
        const HOST_IP: std::net::Ipv4Addr = std::net::Ipv4Addr::new(10, 0, 2, 2);
        let mut fabric = Fabric::new(HOST, None);
        let ports: Vec<PortId> = (0..4).filter_map(|_| fabric.attach()).collect();
        for (place, port) in ports.iter().enumerate() {
            fabric.enter(*port, &of_pair(place as u8 / 2, 0));
        }
        fabric.enter(ports[0], &of_pair(0, 1));
        fabric.enter(ports[2], &of_pair(1, 1));
        fabric.enter(ports[0], &frame(ALICE, HOST));
        fabric.enter(ports[2], &frame(BOB, HOST));
        // Four addresses for each replica; a replica that attaches again has four others, often.
        for process in 0..8 {
            for (place, port) in ports.iter().enumerate() {
                for slot in 0..4 {
                    let mac = [0x0A, 1, 1, place as u8, process, slot];
                    let probe = ArpPacket::probe_frame(mac, HOST_IP, HOST);
                    assert!(fabric.enter(*port, &probe).for_host, "{mac:?}");
                    queued(&mut fabric);
                    fabric.enter(PortId::HOST, &ArpPacket::reply_frame((HOST, HOST_IP), mac));
                    let mut answered = [0; 4];
                    answered[place] = 1;
                    assert_eq!(queued(&mut fabric), answered);
                }
            }
        }
        // The guest's address does not move by a probe, and other frames do not pass.
        assert_eq!(
            fabric.enter(ports[1], &ArpPacket::probe_frame(ALICE, HOST_IP, HOST)),
            NOTHING
        );
        assert_eq!(
            fabric.enter(ports[1], &frame([0x0A, 9, 9, 9, 9, 9], HOST)),
            NOTHING
        );
        // Nor does anything of a generation that is over.
        fabric.enter(ports[1], &of_pair(0, 2));
        let late = ArpPacket::probe_frame([0x0A, 1, 1, 0, 0, 0], HOST_IP, HOST);
        assert_eq!(fabric.enter(ports[0], &late), NOTHING);
    }

    #[test]
    fn an_ip_address_of_another_pair_is_refused() {
        let (mut fabric, [first, second, _]) = three_ports();
        let claim = |mac| gratuitous_arp(mac, Some([10, 0, 2, 15].into()));
        fabric.enter(first, &of_pair(1, 1));
        assert!(fabric.enter(first, &claim(ALICE)).for_host);

        fabric.enter(second, &of_pair(2, 1));
        assert_eq!(fabric.enter(second, &claim(BOB)), NOTHING);
        assert!(fabric.enter(second, &frame(BOB, HOST)).for_host);
    }

    #[test]
    fn what_is_no_frame_goes_nowhere() {
        let (mut fabric, [a, ..]) = three_ports();
        for junk in [
            &[][..],
            &[1; 13],
            &[[0; 12].as_slice(), &[0x88, 0xB5], b"LSGX"].concat(),
        ] {
            assert_eq!(fabric.enter(a, junk), NOTHING);
        }
        assert_eq!(queued(&mut fabric), [0, 0, 0]);
    }

    #[test]
    fn ports_are_bounded() {
        let mut fabric = Fabric::new(HOST, None);
        let ids: Vec<_> = std::iter::from_fn(|| fabric.attach()).collect();
        assert_eq!(ids.len(), PORTS_MAX);
        fabric.detach(PortId(1));
        assert!(fabric.attach().is_some_and(|id| !ids.contains(&id)));
    }
}
