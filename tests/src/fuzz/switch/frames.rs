//! Frames, good and bad: of any kind, announcements, ARP, and TCP segments that answer the host's
//! (RFC 791, 826, 9293).

use std::net::Ipv4Addr;

use lockstep_logging_channel::Generation;
use lockstep_network::{Announcement, MacAddress, gratuitous_arp};

use super::super::input::Input;

/// The host's own station: locally administered, "LCKS", 2.
pub const HOST: MacAddress = [0x02, b'L', b'C', b'K', b'S', 2];

/// The guest that the host connects to.
pub const GUEST: Ipv4Addr = Ipv4Addr::new(10, 0, 2, 15);

const STATIONS: [MacAddress; 6] = [
    [2, 0, 0, 0, 0, 1],
    [2, 0, 0, 0, 0, 2],
    [2, 0, 0, 0, 0, 3],
    HOST,
    [0xff; 6],
    [1, 0, 0x5e, 0, 0, 1],
];

const ETHERNET_BYTES: usize = 14;
const IP_BYTES: usize = 20;
const TCP_BYTES: usize = 20;
const TCP_PROTOCOL: u8 = 6;
const SYN: u8 = 2;
const FIN: u8 = 1;
const ACK: u8 = 16;

/// What counts in a segment of the host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tcp {
    addresses: [u8; 8],
    ports: [u8; 4],
    sequence: u32,
    acknowledged: u32,
    flags: u8,
    payload_bytes: u32,
}

/// `frame` as it stands in a stream.
pub fn framed(frame: &[u8]) -> Vec<u8> {
    [&(frame.len() as u32).to_be_bytes()[..], frame].concat()
}

/// The frames of a stream of whole ones.
pub fn unframed(stream: &[u8]) -> Vec<&[u8]> {
    let (mut rest, mut frames) = (stream, Vec::new());
    while let Some((length, after)) = rest.split_first_chunk::<4>() {
        let (frame, next) = after.split_at(u32::from_be_bytes(*length) as usize);
        frames.push(frame);
        rest = next;
    }
    assert!(rest.is_empty(), "a port is sent whole frames");
    frames
}

/// Who sent a frame, as far as it says.
pub fn source(frame: &[u8]) -> &[u8] {
    frame.get(6..12).unwrap_or_default()
}

/// A frame from one station to another, with a choice of ethertype and any payload.
pub fn any(input: &mut Input<'_>) -> Vec<u8> {
    let (to, from) = (input.pick(&STATIONS), input.pick(&STATIONS));
    let ethertype = match input.byte() % 8 {
        0..=2 => 0x0800,
        3 => 0x0806,
        4 => 0x88b5,
        5 => 0x86dd,
        _ => input.word(),
    };
    let count = usize::from(input.byte());
    [&to[..], &from, &ethertype.to_be_bytes(), input.take(count)].concat()
}

/// An announcement of one of two pairs, or what is nearly one.
pub fn announcement(input: &mut Input<'_>) -> Vec<u8> {
    let (pair, generation) = ([input.byte() % 2; 16], u32::from(input.byte() % 8));
    let mut frame = Announcement {
        pair,
        generation: Generation(generation),
    }
    .to_frame();
    spoil(&mut frame, input);
    frame
}

/// A station telling its address, or something near to it.
pub fn arp(input: &mut Input<'_>) -> Vec<u8> {
    let mac = input.pick(&STATIONS[..3]);
    let address = input.pick(&[
        Some(GUEST),
        Some(Ipv4Addr::new(10, 0, 2, 16)),
        Some(Ipv4Addr::new(10, 0, 2, 2)),
        None,
    ]);
    let mut frame = gratuitous_arp(mac, address);
    spoil(&mut frame, input);
    frame
}

/// Changes a byte of one frame in four, or cuts one in eight.
fn spoil(frame: &mut Vec<u8>, input: &mut Input<'_>) {
    match input.byte() % 8 {
        0 | 1 => {
            let at = usize::from(input.byte()) % frame.len();
            frame[at] = input.byte();
        }
        2 => frame.truncate(usize::from(input.byte())),
        _ => {}
    }
}

/// The segment in a frame of the host, if it is one.
pub fn tcp(frame: &[u8]) -> Option<Tcp> {
    let (packet, segment) = (
        frame.get(ETHERNET_BYTES..)?,
        frame.get(ETHERNET_BYTES + IP_BYTES..)?,
    );
    if frame[12..14] != [8, 0] || packet[9] != TCP_PROTOCOL || segment.len() < TCP_BYTES {
        return None;
    }
    let long = |at: usize| u32::from_be_bytes(segment[at..at + 4].try_into().expect("four bytes"));
    let header_bytes = usize::from(segment[12] >> 4) * 4;
    Some(Tcp {
        addresses: packet[12..20].try_into().ok()?,
        ports: segment[..4].try_into().ok()?,
        sequence: long(4),
        acknowledged: long(8),
        flags: segment[13],
        payload_bytes: segment.len().checked_sub(header_bytes)? as u32,
    })
}

/// A segment that answers `heard` as a guest does; choices make it differ.
pub fn answer(heard: &Tcp, input: &mut Input<'_>) -> Vec<u8> {
    let opens = heard.flags & SYN != 0;
    let counted = heard.payload_bytes + u32::from(heard.flags & (SYN | FIN) != 0);
    let (mut sequence, mut acknowledged) = (heard.acknowledged, heard.sequence.wrapping_add(counted));
    let mut flags = if opens { SYN | ACK } else { ACK };
    let mut payload: &[u8] = &[];
    match input.byte() % 8 {
        0 => sequence = sequence.wrapping_add(u32::from(input.word())),
        1 => acknowledged = acknowledged.wrapping_sub(u32::from(input.word())),
        2 => flags = input.byte(),
        3 | 4 if !opens => payload = input.take(32),
        5 if !opens => flags |= FIN,
        _ => {}
    }
    let window = input.pick(&[0xffff_u16, 0xffff, 0xffff, 0, 1]);
    let option_bytes = usize::from(input.byte() % 4) * 4;
    let mut segment = Vec::new();
    segment.extend([heard.ports[2], heard.ports[3], heard.ports[0], heard.ports[1]]);
    segment.extend(sequence.to_be_bytes());
    segment.extend(acknowledged.to_be_bytes());
    segment.extend([((TCP_BYTES + option_bytes) as u8 / 4) << 4, flags]);
    segment.extend(window.to_be_bytes());
    segment.extend([0; 4]);
    let mut options = input.take(option_bytes).to_vec();
    options.resize(option_bytes, 0);
    segment.extend(options);
    segment.extend(payload);
    packet(heard, segment)
}

/// The frame that takes `segment` from the guest to the host, with the checksums it should have.
fn packet(heard: &Tcp, mut segment: Vec<u8>) -> Vec<u8> {
    let mut addresses = heard.addresses;
    addresses.rotate_left(4);
    let length = (segment.len() as u16).to_be_bytes();
    let pseudo_header = [&addresses[..], &[0, TCP_PROTOCOL], &length].concat();
    let sum = checksum(&[pseudo_header, segment.clone()].concat());
    segment[16..18].copy_from_slice(&sum);
    let total = ((IP_BYTES + segment.len()) as u16).to_be_bytes();
    let mut header = vec![0x45, 0, total[0], total[1], 0, 0, 0x40, 0, 64, TCP_PROTOCOL, 0, 0];
    header.extend(addresses);
    let sum = checksum(&header);
    header[10..12].copy_from_slice(&sum);
    [&HOST[..], &STATIONS[0], &[8, 0], &header, &segment].concat()
}

/// The internet checksum (RFC 1071).
fn checksum(bytes: &[u8]) -> [u8; 2] {
    let word = |pair: &[u8]| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0));
    let mut sum: u32 = bytes.chunks(2).map(word).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    (!(sum as u16)).to_be_bytes()
}
