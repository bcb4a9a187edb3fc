//! The network outside: the real switch, with both replicas and the clients at its ports. Each of
//! them has a connection of its own to it, in order; between two connections there is no order.

use std::net::Ipv4Addr;
use std::time::Duration;

use lockstep_logging_channel::Generation;
use lockstep_network::{Announcement, MacAddress, gratuitous_arp};
use lockstep_switch::{Backplane, HostAddress};

use super::plan::Side;

/// The guest's Ethernet address, on either side.
const GUEST: MacAddress = [2, 0, 0, 0, 0, 1];

/// All clients are one station.
const CLIENTS: MacAddress = [2, 0, 0, 0, 0, 2];

/// An ethertype that the switch only forwards: IEEE 802 local experimental 2.
const ETHERTYPE: [u8; 2] = [0x88, 0xb6];

const HEADER_BYTES: usize = 14;

/// The pair's name.
const PAIR: [u8; 16] = [7; 16];

/// The switch.
pub struct Switch {
    backplane: Backplane,
    sides: [u32; 2],
    clients: u32,
    /// The newest generation announced, and by whom.
    announced: u32,
    /// What each side sends arrives in order.
    last_arrival_ns: [u64; 2],
    /// A frame with its length before it.
    stream: Vec<u8>,
}

/// What a frame from the guest came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Passed {
    /// The clients have it: its payload.
    ToClients(Vec<u8>),
    /// It did not leave the switch.
    Refused,
}

impl Switch {
    /// A switch to which both sides and the clients are attached.
    #[must_use]
    #[expect(clippy::expect_used, reason = "a fresh switch has room for three")]
    pub fn new() -> Self {
        let mut backplane = Backplane::new(HostAddress::default(), &[Ipv4Addr::new(10, 0, 2, 15)], 7);
        let mut attach = || backplane.attach().expect("a free port");
        let (sides, clients) = ([attach(), attach()], attach());
        Self {
            backplane,
            sides,
            clients,
            announced: 0,
            last_arrival_ns: [0; 2],
            stream: Vec::new(),
        }
    }

    /// When what a side sends now arrives, not before what it sent before.
    pub fn arrival_ns(&mut self, side: Side, earliest_ns: u64) -> u64 {
        let last = &mut self.last_arrival_ns[side.index()];
        *last = earliest_ns.max(*last + 1);
        *last
    }

    /// A new process of a side is attached.
    #[expect(clippy::expect_used, reason = "old processes give their ports back")]
    pub fn attach(&mut self, side: Side) {
        self.sides[side.index()] = self.backplane.attach().expect("a free port");
    }

    /// The port of a side's process.
    #[must_use]
    pub fn port(&self, side: Side) -> u32 {
        self.sides[side.index()]
    }

    /// The announcement of the process at `port` arrives.
    pub fn announce(&mut self, port: u32, generation: u32, now_ns: u64) {
        let announcement = Announcement {
            pair: PAIR,
            generation: Generation(generation),
        };
        self.announced = self.announced.max(generation);
        self.enter(port, [&announcement.to_frame()], now_ns);
        self.enter(port, [&gratuitous_arp(GUEST, None)], now_ns);
        // Everybody hears it; nobody here has to act on it.
        self.discard();
    }

    /// Whether somebody has announced a generation after this one.
    #[must_use]
    pub fn is_over(&self, generation: u32) -> bool {
        generation < self.announced
    }

    /// An output of the guest of the process at `port` arrives.
    pub fn output(&mut self, port: u32, payload: &[u8], now_ns: u64) -> Passed {
        self.enter(port, [&CLIENTS, &GUEST, &ETHERTYPE, payload], now_ns);
        let left = self.take(self.clients);
        self.discard();
        left.into_iter().next().map_or(Passed::Refused, Passed::ToClients)
    }

    /// A frame of the clients arrives. Gives the sides that it goes to: one, or both where the
    /// switch knows neither.
    pub fn request(&mut self, payload: &[u8], now_ns: u64) -> [Option<Vec<u8>>; 2] {
        self.enter(self.clients, [&GUEST, &CLIENTS, &ETHERTYPE, payload], now_ns);
        let sides = self.sides;
        sides.map(|port| self.take(port).into_iter().next())
    }

    /// The process at `port` is gone.
    pub fn detach(&mut self, port: u32) {
        self.backplane.detach(port);
    }

    /// A frame, given in parts, enters by `port`.
    fn enter<const PARTS: usize>(&mut self, port: u32, parts: [&[u8]; PARTS], now_ns: u64) {
        let bytes: usize = parts.iter().map(|part| part.len()).sum();
        self.stream.clear();
        self.stream.extend((bytes as u32).to_be_bytes());
        parts.iter().for_each(|part| self.stream.extend_from_slice(part));
        // The frames here are well made; one to a port that is gone goes nowhere.
        let _ = self
            .backplane
            .receive(port, &self.stream, Duration::from_nanos(now_ns));
    }

    fn discard(&mut self) {
        let [primary, backup] = self.sides;
        for port in [primary, backup, self.clients] {
            self.take(port);
        }
    }

    /// The payloads of the model's own frames that wait to leave by `port`.
    fn take(&mut self, port: u32) -> Vec<Vec<u8>> {
        if self.backplane.waiting_bytes(port).unwrap_or(0) == 0 {
            return Vec::new();
        }
        let stream = self.backplane.take_sent(port);
        let (mut rest, mut payloads) = (&stream[..], Vec::new());
        while let Some((length, after)) = rest.split_first_chunk::<4>() {
            let length = u32::from_be_bytes(*length) as usize;
            let (frame, next) = after.split_at(length.min(after.len()));
            if frame.get(12..HEADER_BYTES) == Some(&ETHERTYPE) {
                payloads.extend(frame.get(HEADER_BYTES..).map(<[u8]>::to_vec));
            }
            rest = next;
        }
        payloads
    }
}
