//! Answers to frames of the network, made in place: address questions (ARP), ICMP echo requests,
//! UDP to port 7.
//!
//! Exchanging addresses or ports leaves the sums over them as they are (RFC 1071: a sum does not
//! depend on the order).

const ETHERNET_BYTES: usize = 14;
const ETHERTYPE: usize = 12;
const ARP: [u8; 2] = [0x08, 0x06];
const IPV4: [u8; 2] = [0x08, 0x00];
/// Shortest IPv4 header, the only one answered.
const IPV4_FIRST_BYTE: u8 = 0x45;
const IPV4_BYTES: usize = 20;
/// Offsets in the IPv4 header.
const FRAGMENT: usize = 6;
const PROTOCOL: usize = 9;
const SOURCE: usize = 12;
const DESTINATION: usize = 16;
const ICMP: u8 = 1;
const UDP: u8 = 17;
/// Port of the echo protocol (RFC 862).
const ECHO_PORT: [u8; 2] = [0, 7];

/// The station that answers.
#[derive(Clone, Copy, Debug)]
pub struct Station {
    /// Its Ethernet address.
    pub mac: [u8; 6],
    /// Its IPv4 address.
    pub ip: [u8; 4],
}

impl Station {
    /// Makes the answer to `frame` of it. False where there is none.
    pub fn answer(&self, frame: &mut [u8]) -> bool {
        let Some((header, body)) = frame.split_first_chunk_mut::<ETHERNET_BYTES>() else {
            return false;
        };
        let answered = match [header[ETHERTYPE], header[ETHERTYPE + 1]] {
            ARP => self.answer_arp(body),
            IPV4 => self.answer_ipv4(body),
            _ => false,
        };
        if answered {
            header.copy_within(6..12, 0);
            header[6..12].copy_from_slice(&self.mac);
        }
        answered
    }

    /// RFC 826: a request for this station's address.
    fn answer_arp(&self, body: &mut [u8]) -> bool {
        let Some(packet) = body.first_chunk_mut::<28>() else {
            return false;
        };
        if packet[..8] != [0, 1, 8, 0, 6, 4, 0, 1] || packet[24..] != self.ip {
            return false;
        }
        packet[7] = 2;
        packet.copy_within(8..18, 18);
        packet[8..14].copy_from_slice(&self.mac);
        packet[14..18].copy_from_slice(&self.ip);
        true
    }

    fn answer_ipv4(&self, body: &mut [u8]) -> bool {
        let Some((header, content)) = body.split_first_chunk_mut::<IPV4_BYTES>() else {
            return false;
        };
        // No fragments: neither an offset nor the flag that more follow.
        let whole = header[FRAGMENT] & 0x3f == 0 && header[FRAGMENT + 1] == 0;
        if header[0] != IPV4_FIRST_BYTE || !whole || header[DESTINATION..] != self.ip {
            return false;
        }
        let answered = match header[PROTOCOL] {
            ICMP => answer_icmp(content),
            UDP => answer_udp(content),
            _ => false,
        };
        if answered {
            header.copy_within(SOURCE..DESTINATION, DESTINATION);
            header[SOURCE..DESTINATION].copy_from_slice(&self.ip);
        }
        answered
    }
}

/// RFC 792: an echo request becomes an echo reply; its sum grows by what its type becomes less.
fn answer_icmp(content: &mut [u8]) -> bool {
    let Some([kind @ 8, code @ 0, sum @ ..]) = content.first_chunk_mut::<4>() else {
        return false;
    };
    let grown = u32::from(u16::from_be_bytes(*sum)) + 0x0800;
    // The carry comes back in at the low end.
    *sum = ((grown & 0xffff) as u16 + (grown >> 16) as u16).to_be_bytes();
    (*kind, *code) = (0, 0);
    true
}

fn answer_udp(content: &mut [u8]) -> bool {
    let Some([source_high, source_low, port_high, port_low]) = content.first_chunk_mut::<4>() else {
        return false;
    };
    if [*port_high, *port_low] != ECHO_PORT {
        return false;
    }
    core::mem::swap(source_high, port_high);
    core::mem::swap(source_low, port_low);
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATION: Station = Station {
        mac: [0x52, 0x54, 0, 0x4c, 0x53, 1],
        ip: [10, 0, 2, 15],
    };
    const ASKER_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x77];
    const ASKER_IP: [u8; 4] = [10, 0, 2, 2];

    fn ethernet(to: [u8; 6], kind: [u8; 2], body: &[u8]) -> Vec<u8> {
        [&to[..], &ASKER_MAC, &kind, body].concat()
    }

    /// The Internet checksum (RFC 1071).
    fn sum(bytes: &[u8]) -> u16 {
        let words = bytes
            .chunks(2)
            .map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |low| u32::from(*low)));
        let total: u32 = words.sum();
        let folded = (total & 0xffff) + (total >> 16);
        !((folded & 0xffff) + (folded >> 16)) as u16
    }

    fn ipv4(protocol: u8, content: &[u8]) -> Vec<u8> {
        let length = (IPV4_BYTES + content.len()) as u16;
        let mut header = vec![0x45, 0, 0, 0, 0, 9, 0x40, 0, 64, protocol, 0, 0];
        header[2..4].copy_from_slice(&length.to_be_bytes());
        header.extend(ASKER_IP.iter().chain(&STATION.ip));
        let checksum = sum(&header).to_be_bytes();
        header[10..12].copy_from_slice(&checksum);
        header.extend(content);
        ethernet(STATION.mac, IPV4, &header)
    }

    fn ping(payload: &[u8]) -> Vec<u8> {
        let mut content = vec![8, 0, 0, 0, 0x12, 0x34, 0, 1];
        content.extend(payload);
        let checksum = sum(&content).to_be_bytes();
        content[2..4].copy_from_slice(&checksum);
        ipv4(ICMP, &content)
    }

    #[test]
    fn an_address_question_is_answered() {
        let question = [
            &[0, 1, 8, 0, 6, 4, 0, 1][..],
            &ASKER_MAC,
            &ASKER_IP,
            &[0; 6],
            &STATION.ip,
        ];
        let mut frame = ethernet([0xff; 6], ARP, &question.concat());

        assert!(STATION.answer(&mut frame));

        let answer = [
            &[0, 1, 8, 0, 6, 4, 0, 2][..],
            &STATION.mac,
            &STATION.ip,
            &ASKER_MAC,
            &ASKER_IP,
        ];
        let expected = [&ASKER_MAC[..], &STATION.mac, &ARP, &answer.concat()].concat();
        assert_eq!(frame, expected);
    }

    #[test]
    fn a_ping_comes_back_with_sums_that_are_right() {
        // The second payload makes the sum carry over its end.
        for payload in [&b"abcdefgh"[..], &[0xf7, 0xcb, 0, 0], b"odd"] {
            let mut frame = ping(payload);
            let sent = frame.clone();

            assert!(STATION.answer(&mut frame));

            let (header, content) = frame[ETHERNET_BYTES..].split_at(IPV4_BYTES);
            assert_eq!(sum(header), 0);
            assert_eq!(sum(content), 0);
            assert_eq!(content[0], 0);
            assert_eq!(content[8..], *payload);
            assert_eq!(header[DESTINATION..], ASKER_IP);
            assert_eq!(frame[..6], sent[6..12]);
        }
    }

    #[test]
    fn a_datagram_to_the_echo_port_comes_back() {
        let mut frame = ipv4(UDP, &[0x30, 0x39, 0, 7, 0, 12, 0, 0, 1, 2, 3, 4]);

        assert!(STATION.answer(&mut frame));

        let content = &frame[ETHERNET_BYTES + IPV4_BYTES..];
        assert_eq!(content, [0, 7, 0x30, 0x39, 0, 12, 0, 0, 1, 2, 3, 4]);
    }

    #[test]
    fn what_is_for_others_or_cut_short_is_left_alone() {
        let mut elsewhere = ping(b"x");
        elsewhere[ETHERNET_BYTES + DESTINATION] = 11;
        let mut fragment = ping(b"x");
        fragment[ETHERNET_BYTES + FRAGMENT] = 0x20;
        let frames = [
            elsewhere,
            fragment,
            ipv4(UDP, &[0x30, 0x39, 0, 8, 0, 8, 0, 0]),
            ipv4(6, &[0; 20]),
        ];
        for frame in frames {
            let mut changed = frame.clone();
            assert!(!STATION.answer(&mut changed), "{frame:?}");
            assert_eq!(changed, frame);
        }
        let whole = ping(b"");
        for length in 0..ETHERNET_BYTES + IPV4_BYTES + 4 {
            assert!(!STATION.answer(&mut whole[..length].to_vec()), "{length} bytes");
        }
    }
}
