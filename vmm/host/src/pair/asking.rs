//! Asks clients to send again what died with the primary.
//!
//! A request that the primary had, and that has not reached the log, is lost. Its client finds that
//! out by its retransmission timer, 200 ms and more. A TCP that is told the same acknowledgement
//! three times more retransmits at once (RFC 5681 section 3.2). So a survivor says again what the
//! guest said last on each connection, without its data.
//!
//! Nothing is invented: sequence number, acknowledgement, window and options are those of the
//! guest's last frame, which the replay has made here and which this side may send. Where that is
//! the bare acknowledgement that a guest sends for a segment which it does not expect. Nothing is
//! said on a connection that is not established, or that the guest has closed or reset.
//!
//! Whom it helps is in [docs/network.md]; a Linux client that has negotiated SACK is not among
//! them.
//!
//! [docs/network.md]: ../../../../../docs/network.md

use super::Payload;
use crate::configuration::Configuration;
use lockstep_core::replica::role::Output;
use lockstep_logging_channel::OutputKind;
use lockstep_network::{Attachment, NetworkSender};
use smoltcp::phy::ChecksumCapabilities;
use smoltcp::wire::{
    EthernetFrame, EthernetProtocol, EthernetRepr, IpAddress, IpProtocol, Ipv4Packet, Ipv4Repr, TcpControl,
    TcpPacket, TcpRepr,
};
use std::collections::BTreeMap;
use std::net::Ipv4Addr;

/// Connections remembered; of more, the one on which the guest was silent for longest is forgotten.
/// With [`REPEATS`] frames for each that is 1,024 frames of 94 bytes at most: under 100 KiB, once
/// in the life of a replica.
const CONNECTIONS_MAX: usize = 256;
/// A connection on which the guest has said nothing for longer has no request under way that it has
/// not answered.
const AGE_NS_MAX: u64 = 1_000_000_000;
/// Acknowledgements on each connection: one, and the three repetitions of it that start a
/// retransmission. After a frame with data, Linux takes the first for a window update, and does not
/// count it.
pub const REPEATS: usize = 4;

/// Addresses and ports of a connection, the guest's first.
type Ends = ((Ipv4Addr, u16), (Ipv4Addr, u16));

/// The guest's last acknowledgement on a connection.
#[derive(Clone, Debug)]
struct Said {
    ethernet: EthernetRepr,
    ip: Ipv4Repr,
    tcp: TcpRepr<'static>,
    at_ns: u64,
}

/// The connections of the guest, as its frames show them.
#[derive(Debug, Default)]
pub struct Asking {
    /// By default nobody is asked.
    is_wanted: bool,
    connections: BTreeMap<Ends, Said>,
}

impl Asking {
    /// Asks on a TAP, where it is not switched off: `lockstep switch` sends again by itself.
    #[must_use]
    pub fn over(configuration: &Configuration) -> Self {
        let is_tap = matches!(configuration.network, Attachment::Tap(_));
        Self {
            is_wanted: is_tap && configuration.pair.ask_for_retransmission,
            connections: BTreeMap::new(),
        }
    }

    /// Takes what the replay has said.
    pub fn replayed(&mut self, outputs: &[Output<Payload>], at_ns: u64) {
        let is_wanted = self.is_wanted;
        for output in outputs.iter().filter(|_| is_wanted) {
            let (target, bytes) = &output.payload;
            if target.kind == OutputKind::Frame {
                self.said(bytes, at_ns);
            }
        }
    }

    /// Asks, once this side is live and everything the replay has said has left.
    pub fn ask(&mut self, network: &mut NetworkSender, now_ns: u64) {
        let frames = self.frames(now_ns);
        network.send_batch(frames.iter().map(Vec::as_slice));
        *self = Self::default();
    }

    /// Takes a frame that the guest has sent at this time.
    pub fn said(&mut self, frame: &[u8], at_ns: u64) {
        let Some(Segment {
            ethernet,
            ip,
            mut tcp,
            is_open,
        }) = segment(frame)
        else {
            return;
        };
        let ends = ((ip.src_addr, tcp.src_port), (ip.dst_addr, tcp.dst_port));
        if !is_open {
            self.connections.remove(&ends);
            return;
        }
        match self.connections.get(&ends) {
            // Old data again: the sequence of the guest has come further before.
            Some(before) if before.tcp.seq_number > tcp.seq_number => tcp.seq_number = before.tcp.seq_number,
            Some(_) => {}
            None if self.connections.len() >= CONNECTIONS_MAX => self.forget_oldest(),
            None => {}
        }
        let said = Said {
            ethernet,
            ip,
            tcp,
            at_ns,
        };
        self.connections.insert(ends, said);
    }

    /// The frames to send, [`REPEATS`] of each connection in a row.
    pub fn frames(&self, now_ns: u64) -> Vec<Vec<u8>> {
        let recent = self
            .connections
            .values()
            .filter(|said| now_ns.saturating_sub(said.at_ns) <= AGE_NS_MAX);
        recent
            .flat_map(|said| std::iter::repeat_n(said.frame(), REPEATS))
            .collect()
    }

    fn forget_oldest(&mut self) {
        let oldest = self.connections.iter().min_by_key(|(_, said)| said.at_ns);
        if let Some(ends) = oldest.map(|(ends, _)| *ends) {
            self.connections.remove(&ends);
        }
    }
}

impl Said {
    fn frame(&self) -> Vec<u8> {
        let ip = Ipv4Repr {
            payload_len: self.tcp.buffer_len(),
            ..self.ip
        };
        let checksums = ChecksumCapabilities::default();
        let mut bytes = vec![0; self.ethernet.buffer_len() + ip.buffer_len() + ip.payload_len];
        let mut frame = EthernetFrame::new_unchecked(&mut bytes);
        self.ethernet.emit(&mut frame);
        let mut packet = Ipv4Packet::new_unchecked(frame.payload_mut());
        ip.emit(&mut packet, &checksums);
        let (from, to) = (IpAddress::Ipv4(ip.src_addr), IpAddress::Ipv4(ip.dst_addr));
        let mut segment = TcpPacket::new_unchecked(packet.payload_mut());
        self.tcp.emit(&mut segment, &from, &to, &checksums);
        bytes
    }
}

/// A frame with a TCP segment.
struct Segment {
    ethernet: EthernetRepr,
    ip: Ipv4Repr,
    /// The bare acknowledgement that would follow it.
    tcp: TcpRepr<'static>,
    /// It belongs to a connection that is established, and closes it in no direction.
    is_open: bool,
}

/// The TCP segment in a frame, if it holds a whole one over IPv4 for one station. Checksums are
/// not looked at: a guest that makes wrong ones is not heard anyway.
fn segment(frame: &[u8]) -> Option<Segment> {
    let frame = EthernetFrame::new_checked(frame).ok()?;
    let ethernet = EthernetRepr::parse(&frame).ok()?;
    if ethernet.ethertype != EthernetProtocol::Ipv4 || !ethernet.dst_addr.is_unicast() {
        return None;
    }
    let packet = Ipv4Packet::new_checked(frame.payload()).ok()?;
    let unchecked = ChecksumCapabilities::ignored();
    let ip = Ipv4Repr::parse(&packet, &unchecked).ok()?;
    if ip.next_header != IpProtocol::Tcp {
        return None;
    }
    let segment = TcpPacket::new_checked(packet.payload()).ok()?;
    let (from, to) = (IpAddress::Ipv4(ip.src_addr), IpAddress::Ipv4(ip.dst_addr));
    let said = TcpRepr::parse(&segment, &from, &to, &unchecked).ok()?;
    let tcp = TcpRepr {
        src_port: said.src_port,
        dst_port: said.dst_port,
        control: TcpControl::None,
        seq_number: said.seq_number + said.payload.len(),
        ack_number: said.ack_number,
        window_len: said.window_len,
        // Options of a connection request.
        window_scale: None,
        max_seg_size: None,
        sack_permitted: false,
        sack_ranges: said.sack_ranges,
        timestamp: said.timestamp,
        payload: &[],
    };
    let is_open = matches!(said.control, TcpControl::None | TcpControl::Psh) && said.ack_number.is_some();
    Some(Segment {
        ethernet,
        ip,
        tcp,
        is_open,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use smoltcp::wire::{EthernetAddress, TcpSeqNumber, TcpTimestampRepr};

    const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);
    const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 2);
    const MS: u64 = 1_000_000;

    fn tcp(client_port: u16, payload: &[u8]) -> TcpRepr<'_> {
        TcpRepr {
            src_port: 6379,
            dst_port: client_port,
            control: TcpControl::Psh,
            seq_number: TcpSeqNumber(-3),
            ack_number: Some(TcpSeqNumber(7_000)),
            window_len: 501,
            window_scale: None,
            max_seg_size: None,
            sack_permitted: false,
            sack_ranges: [None; 3],
            timestamp: Some(TcpTimestampRepr::new(11, 12)),
            payload,
        }
    }

    fn frame(tcp: &TcpRepr<'_>) -> Vec<u8> {
        let ip = Ipv4Repr {
            src_addr: GUEST,
            dst_addr: CLIENT,
            next_header: IpProtocol::Tcp,
            payload_len: tcp.buffer_len(),
            hop_limit: 64,
        };
        let ethernet = EthernetRepr {
            src_addr: EthernetAddress([0x52, 0x54, 0, 0x4c, 0x53, 1]),
            dst_addr: EthernetAddress([2, 0, 0, 0, 0, 2]),
            ethertype: EthernetProtocol::Ipv4,
        };
        let mut bytes = vec![0; ethernet.buffer_len() + ip.buffer_len() + ip.payload_len];
        let mut whole = EthernetFrame::new_unchecked(&mut bytes);
        ethernet.emit(&mut whole);
        let mut packet = Ipv4Packet::new_unchecked(whole.payload_mut());
        ip.emit(&mut packet, &ChecksumCapabilities::default());
        let mut segment = TcpPacket::new_unchecked(packet.payload_mut());
        tcp.emit(
            &mut segment,
            &GUEST.into(),
            &CLIENT.into(),
            &ChecksumCapabilities::default(),
        );
        bytes
    }

    fn asked(said: &[Vec<u8>]) -> Vec<Vec<u8>> {
        let mut asking = Asking::default();
        said.iter().for_each(|frame| asking.said(frame, 0));
        asking.frames(MS)
    }

    #[test]
    fn it_repeats_the_acknowledgement_of_the_last_frame_without_its_data() {
        let last = tcp(40_000, b"answer");
        let frames = asked(&[frame(&tcp(40_000, b"")), frame(&last)]);
        let bare = TcpRepr {
            control: TcpControl::None,
            // Across the end of the sequence space.
            seq_number: TcpSeqNumber(3),
            payload: b"",
            ..last
        };
        assert_eq!(frames, vec![frame(&bare); REPEATS]);
        // Whole, with right checksums.
        let whole = EthernetFrame::new_checked(frames[0].as_slice()).unwrap();
        let packet = Ipv4Packet::new_checked(whole.payload()).unwrap();
        assert!(packet.verify_checksum());
        let segment = TcpPacket::new_checked(packet.payload()).unwrap();
        assert!(segment.verify_checksum(&GUEST.into(), &CLIENT.into()));
        assert!(segment.ack() && !segment.psh());
        assert_eq!(segment.window_len(), 501);
        assert_eq!(segment.payload(), b"");
        let (_, option) = smoltcp::wire::TcpOption::parse(segment.options()).unwrap();
        assert_eq!(
            option,
            smoltcp::wire::TcpOption::TimeStamp { tsval: 11, tsecr: 12 }
        );
    }

    #[test]
    fn old_data_sent_again_does_not_take_the_sequence_back() {
        let later = TcpRepr {
            seq_number: TcpSeqNumber(100),
            ..tcp(40_000, b"later")
        };
        let frames = asked(&[frame(&later), frame(&tcp(40_000, b"early"))]);
        let bare = TcpRepr {
            control: TcpControl::None,
            seq_number: TcpSeqNumber(105),
            payload: b"",
            ..later
        };
        assert_eq!(frames[0], frame(&bare));
    }

    #[test]
    fn connections_not_established_closed_or_reset_are_left_alone() {
        for control in [TcpControl::Syn, TcpControl::Fin, TcpControl::Rst] {
            let closing = TcpRepr {
                control,
                ..tcp(40_000, b"")
            };
            let said = [frame(&tcp(40_000, b"x")), frame(&closing)];
            assert!(asked(&said).is_empty(), "{control:?}");
            assert!(asked(&said[1..]).is_empty(), "{control:?}");
        }
        let no_acknowledgement = TcpRepr {
            ack_number: None,
            ..tcp(40_000, b"x")
        };
        assert!(asked(&[frame(&no_acknowledgement)]).is_empty());
    }

    #[test]
    fn options_of_a_request_are_not_repeated_and_the_longest_header_fits() {
        let strange = TcpRepr {
            window_scale: Some(7),
            max_seg_size: Some(1460),
            sack_ranges: [Some((1, 2)), Some((3, 4)), None],
            ..tcp(40_000, b"x")
        };
        let frames = asked(&[frame(&strange)]);
        let bare = TcpRepr {
            control: TcpControl::None,
            window_scale: None,
            max_seg_size: None,
            seq_number: TcpSeqNumber(-2),
            payload: b"",
            ..strange
        };
        assert_eq!(frames[0], frame(&bare));
    }

    #[test]
    fn what_is_no_segment_for_one_station_is_nothing() {
        let good = frame(&tcp(40_000, b"x"));
        for cut in 0..good.len() {
            asked(&[good[..cut].to_vec()]);
        }
        let change = |place: usize, byte: u8| {
            let mut bad = good.clone();
            bad[place] = byte;
            bad
        };
        // To a group, another protocol below and above, a fragment.
        for bad in [change(0, 3), change(12, 0x86), change(23, 17), change(20, 0x20)] {
            assert!(asked(&[bad]).is_empty());
        }
        assert_eq!(asked(&[good]).len(), REPEATS);
    }

    #[test]
    fn silent_connections_are_left_alone_and_the_most_recent_ones_are_kept() {
        let mut asking = Asking::default();
        let count = CONNECTIONS_MAX as u16 + 10;
        for port in 1..=count {
            asking.said(&frame(&tcp(port, b"x")), u64::from(port) * MS);
        }
        let now_ns = u64::from(count) * MS;
        let frames = asking.frames(now_ns);
        assert_eq!(frames.len(), REPEATS * CONNECTIONS_MAX);
        assert!(!frames.contains(&asked(&[frame(&tcp(10, b"x"))])[0]));
        assert_eq!(asking.frames(now_ns + AGE_NS_MAX).len(), REPEATS);
        assert!(asking.frames(now_ns + AGE_NS_MAX + 1).is_empty());
    }
}
