//! Frames by which a machine that goes live tells the network where it is now.
//!
//! Two kinds. [`gratuitous_arp`] is for every switch and station: they relearn the port of the MAC
//! address. [`Announcement`] is for `lockstep switch` alone: it carries the generation in which the
//! sender acts, and from then on the switch refuses what ports with a lower generation of the same
//! pair send. A primary that was stopped and wakes after the failover is silenced there too, not
//! only by its own test-and-set.
//!
//! ```text
//!   Announcement: Ethernet header (ethertype 0x88B5, IEEE 802 local experimental 1), then
//!     0  magic       4 bytes  "LSGN"
//!     4  pair       16 bytes  name of the pair
//!    20  generation  4 bytes  little-endian
//!   zero to the 60 bytes of the shortest Ethernet frame
//! ```
//!
//! The switch answers with a [`Refusal`] where another pair has an address that the machine uses:
//!
//! ```text
//!   Refusal: Ethernet header (ethertype 0x88B5), then
//!     0  magic       4 bytes  "LSNO"
//!     4  MAC         6 bytes  zero where the IP address is meant
//!    10  IP          4 bytes  zero where the MAC address is meant
//! ```
//!
//! ARP is RFC 826, its announcement RFC 5227 section 3, RARP (for a guest whose address is unknown)
//! RFC 903.

use std::fmt;
use std::net::Ipv4Addr;

use lockstep_logging_channel::Generation;
use zerocopy::byteorder::{big_endian, little_endian};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// An Ethernet address.
pub type MacAddress = [u8; 6];

/// Name of a pair, as in the environment entry of its log.
pub type PairName = [u8; 16];

/// Ethertype of [`Announcement`] frames.
pub const CONTROL_ETHERTYPE: u16 = 0x88B5;

/// True for a frame between a replica and the switch.
pub(super) fn is_control(frame: &[u8]) -> bool {
    EthernetHeader::ref_from_prefix(frame)
        .is_ok_and(|(header, _)| header.ethertype.get() == CONTROL_ETHERTYPE)
}

pub const ARP_ETHERTYPE: u16 = 0x0806;
/// Ethertype of IPv4.
pub const IPV4_ETHERTYPE: u16 = 0x0800;
const RARP_ETHERTYPE: u16 = 0x8035;
const BROADCAST: MacAddress = [0xFF; 6];
const MAGIC: [u8; 4] = *b"LSGN";
const REFUSAL_MAGIC: [u8; 4] = *b"LSNO";

/// Bytes of the shortest Ethernet frame, without its check sequence.
const SHORTEST_FRAME_BYTES: usize = 60;

/// The first 14 bytes of every frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct EthernetHeader {
    /// Address that the frame is for.
    pub destination: MacAddress,
    /// Address of the sender.
    pub source: MacAddress,
    /// Protocol of the payload that follows.
    pub ethertype: big_endian::U16,
}

/// What an ARP or RARP packet says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ArpOperation {
    Request,
    Reply,
    ReverseRequest,
}

impl ArpOperation {
    fn number(self) -> u16 {
        match self {
            Self::Request => 1,
            Self::Reply => 2,
            Self::ReverseRequest => 3,
        }
    }
}

/// An ARP packet for IPv4 over Ethernet.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct ArpPacket {
    hardware: big_endian::U16,
    protocol: big_endian::U16,
    hardware_bytes: u8,
    protocol_bytes: u8,
    operation: big_endian::U16,
    sender_mac: MacAddress,
    sender_ip: [u8; 4],
    target_mac: MacAddress,
    target_ip: [u8; 4],
}

impl ArpPacket {
    /// A packet in which `sender` speaks of `target`.
    pub fn new(
        operation: ArpOperation,
        sender: (MacAddress, Ipv4Addr),
        target: (MacAddress, Ipv4Addr),
    ) -> Self {
        Self {
            hardware: 1.into(),
            protocol: IPV4_ETHERTYPE.into(),
            hardware_bytes: 6,
            protocol_bytes: 4,
            operation: operation.number().into(),
            sender_mac: sender.0,
            sender_ip: sender.1.octets(),
            target_mac: target.0,
            target_ip: target.1.octets(),
        }
    }

    /// Whose address a received frame tells, if it is an ARP packet that tells one.
    pub fn sender_of(frame: &[u8]) -> Option<(Ipv4Addr, MacAddress)> {
        let (header, payload) = EthernetHeader::ref_from_prefix(frame).ok()?;
        let (packet, _) = Self::ref_from_prefix(payload).ok()?;
        let is_arp = header.ethertype.get() == ARP_ETHERTYPE && packet.protocol.get() == IPV4_ETHERTYPE;
        let address = Ipv4Addr::from(packet.sender_ip);
        (is_arp && !address.is_unspecified()).then_some((address, packet.sender_mac))
    }

    /// The frame that takes this packet from its sender to `destination`.
    pub fn to_frame(self, destination: MacAddress, ethertype: u16) -> Vec<u8> {
        let header = EthernetHeader {
            destination,
            source: self.sender_mac,
            ethertype: ethertype.into(),
        };
        padded(&[header.as_bytes(), self.as_bytes()])
    }

    /// The frame by which `mac` asks `destination` whether somebody has the address `wanted`,
    /// without one of its own: an ARP probe (RFC 5227 section 1.1), from which nobody learns
    /// anything but the port of `mac`.
    pub fn probe_frame(mac: MacAddress, wanted: Ipv4Addr, destination: MacAddress) -> Vec<u8> {
        let nobody = Ipv4Addr::UNSPECIFIED;
        Self::new(ArpOperation::Request, (mac, nobody), ([0; 6], wanted)).to_frame(destination, ARP_ETHERTYPE)
    }

    /// The address that a frame asks for, and who asks, if it is an ARP probe.
    pub fn probed(frame: &[u8]) -> Option<(Ipv4Addr, MacAddress)> {
        let (header, payload) = EthernetHeader::ref_from_prefix(frame).ok()?;
        let (packet, _) = Self::ref_from_prefix(payload).ok()?;
        let is_probe = header.ethertype.get() == ARP_ETHERTYPE
            && packet.protocol.get() == IPV4_ETHERTYPE
            && packet.operation.get() == ArpOperation::Request.number()
            && packet.sender_ip == [0; 4];
        is_probe.then_some((packet.target_ip.into(), packet.sender_mac))
    }

    /// The frame that answers a probe of `asker`: `sender` has the address.
    pub fn reply_frame(sender: (MacAddress, Ipv4Addr), asker: MacAddress) -> Vec<u8> {
        let nobody = Ipv4Addr::UNSPECIFIED;
        Self::new(ArpOperation::Reply, sender, (asker, nobody)).to_frame(asker, ARP_ETHERTYPE)
    }

    /// The frame that asks everybody for the MAC address of `wanted`.
    pub fn request_frame(sender: (MacAddress, Ipv4Addr), wanted: Ipv4Addr) -> Vec<u8> {
        Self::new(ArpOperation::Request, sender, ([0; 6], wanted)).to_frame(BROADCAST, ARP_ETHERTYPE)
    }
}

/// The broadcast frame that tells switches and stations where `mac` is now: an ARP announcement
/// where the address of the guest is known, otherwise a RARP request, which says the same to
/// switches.
#[must_use]
pub fn gratuitous_arp(mac: MacAddress, address: Option<Ipv4Addr>) -> Vec<u8> {
    match address {
        Some(address) => ArpPacket::new(ArpOperation::Request, (mac, address), ([0; 6], address))
            .to_frame(BROADCAST, ARP_ETHERTYPE),
        None => {
            let nobody = Ipv4Addr::UNSPECIFIED;
            ArpPacket::new(ArpOperation::ReverseRequest, (mac, nobody), (mac, nobody))
                .to_frame(BROADCAST, RARP_ETHERTYPE)
        }
    }
}

/// "On this port speaks generation `generation` of `pair`."
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Announcement {
    /// The pair.
    pub pair: PairName,
    /// The generation in which the sender acts, or would.
    pub generation: Generation,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct AnnouncementBody {
    magic: [u8; 4],
    pair: PairName,
    generation: little_endian::U32,
}

impl Announcement {
    /// The announcement of a machine of `pair` that is not live: no generation is as low, so the
    /// switch takes nothing from it.
    #[must_use]
    pub fn standby(pair: PairName) -> Self {
        Self {
            pair,
            generation: Generation(0),
        }
    }

    /// The frame that says this to the switch. It names no station: the switch learns nothing from
    /// it and never passes it on.
    #[must_use]
    pub fn to_frame(&self) -> Vec<u8> {
        let body = AnnouncementBody {
            magic: MAGIC,
            pair: self.pair,
            generation: self.generation.0.into(),
        };
        control_frame(body.as_bytes())
    }

    /// What the frame announces, or none where it is no announcement.
    #[must_use]
    pub fn from_frame(frame: &[u8]) -> Option<Self> {
        let (body, _) = AnnouncementBody::ref_from_prefix(control_body(frame)?).ok()?;
        (body.magic == MAGIC).then(|| Self {
            pair: body.pair,
            generation: Generation(body.generation.get()),
        })
    }
}

/// A frame of the switch's own protocol. It names no station.
fn control_frame(body: &[u8]) -> Vec<u8> {
    let header = EthernetHeader {
        destination: BROADCAST,
        source: [0; 6],
        ethertype: CONTROL_ETHERTYPE.into(),
    };
    padded(&[header.as_bytes(), body])
}

/// The body of such a frame; none where it is another one.
fn control_body(frame: &[u8]) -> Option<&[u8]> {
    let (header, body) = EthernetHeader::ref_from_prefix(frame).ok()?;
    (header.ethertype.get() == CONTROL_ETHERTYPE).then_some(body)
}

/// "Another pair has this address": from the switch to a machine whose frames it refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The address that was used, all zero where it is not the Ethernet address.
    pub mac: MacAddress,
    /// The address that was used, unspecified where it is not the IP address.
    pub ip: Ipv4Addr,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct RefusalBody {
    magic: [u8; 4],
    mac: MacAddress,
    ip: [u8; 4],
}

impl Refusal {
    /// The frame that says this to the machine.
    #[must_use]
    pub fn to_frame(&self) -> Vec<u8> {
        let body = RefusalBody {
            magic: REFUSAL_MAGIC,
            mac: self.mac,
            ip: self.ip.octets(),
        };
        control_frame(body.as_bytes())
    }

    /// The refusal in the frame, or none where it is something else.
    #[must_use]
    pub fn from_frame(frame: &[u8]) -> Option<Self> {
        let (body, _) = RefusalBody::ref_from_prefix(control_body(frame)?).ok()?;
        (body.magic == REFUSAL_MAGIC).then(|| Self {
            mac: body.mac,
            ip: body.ip.into(),
        })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("another pair has the address ")?;
        if self.ip.is_unspecified() {
            let [a, b, c, d, e, f] = self.mac;
            write!(
                formatter,
                "{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}: frames from it are refused; give each \
                 pair a --mac of its own, and its guest an IP address of its own (guests of this project: \
                 --command-line ip=ADDRESS)"
            )
        } else {
            write!(
                formatter,
                "{}: frames that claim it are refused; give each guest an address of its own (guests of this \
                 project: --command-line ip=ADDRESS)",
                self.ip
            )
        }
    }
}

fn padded(parts: &[&[u8]]) -> Vec<u8> {
    let mut frame = parts.concat();
    frame.resize(frame.len().max(SHORTEST_FRAME_BYTES), 0);
    frame
}

#[cfg(test)]
mod tests {
    use super::*;
    use smoltcp::wire::{ArpPacket as Checked, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol};

    const MAC: MacAddress = [0x02, 1, 2, 3, 4, 5];

    #[test]
    fn a_gratuitous_arp_is_read_as_one_by_another_stack() {
        let address = Ipv4Addr::new(10, 0, 2, 15);

        let frame = gratuitous_arp(MAC, Some(address));

        let frame = EthernetFrame::new_checked(frame.as_slice()).unwrap();
        assert_eq!(frame.ethertype(), EthernetProtocol::Arp);
        assert_eq!(
            (frame.src_addr(), frame.dst_addr()),
            (EthernetAddress(MAC), EthernetAddress::BROADCAST)
        );
        let packet = ArpRepr::parse(&Checked::new_checked(frame.payload()).unwrap()).unwrap();
        let ArpRepr::EthernetIpv4 {
            source_hardware_addr,
            source_protocol_addr,
            target_protocol_addr,
            ..
        } = packet
        else {
            panic!("not IPv4 over Ethernet: {packet:?}")
        };
        assert_eq!(source_hardware_addr, EthernetAddress(MAC));
        assert_eq!((source_protocol_addr, target_protocol_addr), (address, address));
    }

    #[test]
    fn without_an_address_it_is_a_reverse_request_from_the_mac() {
        let frame = gratuitous_arp(MAC, None);
        assert_eq!(frame.len(), SHORTEST_FRAME_BYTES);
        assert_eq!(
            &frame[..14],
            &[255, 255, 255, 255, 255, 255, 2, 1, 2, 3, 4, 5, 0x80, 0x35]
        );
        assert_eq!(&frame[20..22], &[0, 3]);
        assert_eq!(ArpPacket::sender_of(&frame), None);
    }

    #[test]
    fn an_announcement_survives_its_frame() {
        let announcement = Announcement {
            pair: *b"0123456789abcdef",
            generation: Generation(0x0102_0304),
        };
        assert_eq!(
            Announcement::from_frame(&announcement.to_frame()),
            Some(announcement)
        );
    }

    #[test]
    fn other_frames_announce_nothing() {
        let mut foreign = Announcement {
            pair: [0; 16],
            generation: Generation(1),
        }
        .to_frame();
        foreign[14] ^= 1;
        assert_eq!(Announcement::from_frame(&foreign), None);
        assert_eq!(Announcement::from_frame(&gratuitous_arp(MAC, None)), None);
        assert_eq!(Announcement::from_frame(&foreign[..30]), None);
    }
}
