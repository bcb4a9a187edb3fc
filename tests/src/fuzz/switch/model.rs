//! Frames that a switch may let through, in few words: a frame that entered by another port, whose
//! generation was not over; of a replica that is not live, a question to a witness.

use std::collections::{BTreeMap, BTreeSet};

use lockstep_logging_channel::{Digest, Generation};
use lockstep_network::{Announcement, CONTROL_ETHERTYPE, FRAME_BYTES_MAX, PairName, Refusal};

use super::frames::HOST;

/// Who has sent what, and who is fenced.
#[derive(Default)]
pub struct Model {
    streams: BTreeMap<u32, Vec<u8>>,
    entered: BTreeMap<[u8; 16], BTreeSet<u32>>,
    announced: BTreeMap<u32, (PairName, Generation)>,
    highest: BTreeMap<PairName, Generation>,
}

impl Model {
    /// Takes bytes of the stream at `port`; whether it is a stream of frames so far.
    pub fn receive(&mut self, port: u32, bytes: &[u8]) -> bool {
        let mut stream = self.streams.remove(&port).unwrap_or_default();
        stream.extend_from_slice(bytes);
        let mut rest = stream.as_slice();
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let length = u32::from_be_bytes(*length) as usize;
            if length > FRAME_BYTES_MAX {
                return false;
            }
            let Some((frame, next)) = after.split_at_checked(length) else {
                break;
            };
            self.enter(port, frame);
            rest = next;
        }
        self.streams.insert(port, rest.to_vec());
        true
    }

    /// Forgets what a machine was; what it sent may still arrive, and its pair's generation stays.
    pub fn detach(&mut self, port: u32) {
        self.streams.remove(&port);
        self.announced.remove(&port);
    }

    /// Fails where `frame` may not leave by `port`.
    pub fn assert_may_leave(&self, port: u32, frame: &[u8]) {
        // The switch itself tells a machine that its address is another's.
        if Refusal::from_frame(frame).is_some() {
            return;
        }
        let senders = self.entered.get(&Digest::of(frame).0);
        let sent_by_another = senders.is_some_and(|ports| ports.iter().any(|sender| *sender != port));
        assert!(
            sent_by_another,
            "a frame leaves by port {port} that no other port let in"
        );
    }

    fn enter(&mut self, port: u32, frame: &[u8]) {
        if let Some(announcement) = Announcement::from_frame(frame) {
            self.announce(port, &announcement);
        } else if !is_control(frame)
            && (!self.is_fenced(port) || self.is_standby(port) && is_probe(frame))
            && frame.get(6..12) != Some(HOST.as_slice())
        {
            self.entered.entry(Digest::of(frame).0).or_default().insert(port);
        }
    }

    fn announce(&mut self, port: u32, announcement: &Announcement) {
        let (pair, generation) = (announcement.pair, announcement.generation);
        let own = self.announced.entry(port).or_insert((pair, generation));
        if own.0 == pair {
            own.1 = own.1.max(generation);
            let highest = self.highest.entry(pair).or_insert(generation);
            *highest = (*highest).max(generation);
        }
    }

    fn is_standby(&self, port: u32) -> bool {
        let own = self.announced.get(&port);
        own.is_some_and(|(_, generation)| *generation == Generation(0))
    }

    fn is_fenced(&self, port: u32) -> bool {
        self.announced
            .get(&port)
            .is_some_and(|(pair, generation)| *generation < self.highest[pair])
    }
}

/// An ARP request whose sender has no IP address.
fn is_probe(frame: &[u8]) -> bool {
    frame.get(12..14) == Some(&[8, 6])
        && frame.get(20..22) == Some(&[0, 1])
        && frame.get(28..32) == Some(&[0; 4])
}

fn is_control(frame: &[u8]) -> bool {
    frame.get(12..14) == Some(CONTROL_ETHERTYPE.to_be_bytes().as_slice())
}
