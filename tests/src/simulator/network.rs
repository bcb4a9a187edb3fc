//! The connection between the two replicas: bytes in order, late, cut, damaged; and how they become
//! records.

use std::collections::VecDeque;

use lockstep_core::replica::cpu::FromCpu;
use lockstep_core::replica::driving::{Received, together};
use lockstep_core::replica::role::{Closed, Input};
use lockstep_logging_channel::{LogError, Order, Record, codec};

use super::joining::Image;
use super::plan::MS;

/// What is under way from one side to the other.
#[derive(Debug)]
pub enum Parcel {
    /// Bytes of the stream.
    Bytes(Vec<u8>),
    /// Bytes of the stream that it had brought before.
    Again(Vec<u8>),
    /// The saved state of a machine, all of it.
    State(Box<Image>),
    /// The sending side has closed.
    Closed,
}

/// One direction of the connection.
#[derive(Debug, Default)]
pub struct Link {
    /// When the last parcel arrives: none overtakes another.
    pub last_arrival_ns: u64,
    /// Nothing arrives before; what was sent meanwhile comes then.
    pub cut_until_ns: u64,
    /// So much later than usual, until then.
    pub delay: (u64, u64),
    /// Bytes that it carries in a millisecond; 0 is as many as there are.
    pub bytes_per_ms: u64,
    /// What was sent before has passed the narrowest place.
    free_at_ns: u64,
    /// A bit of the next parcel will be wrong.
    pub corrupt: bool,
    /// Parcels sent before this one are lost: their sender's kernel has reset.
    pub lost_before: u64,
    /// Parcels sent before this one were sent over an earlier connection.
    pub earlier: u64,
    /// Parcels sent.
    pub sent: u64,
    /// The last of them, where the plan will repeat them.
    pub newest: VecDeque<Vec<u8>>,
}

/// Parcels that are repeated.
const REPEATED: usize = 3;

impl Link {
    /// A new connection begins.
    pub fn begin(&mut self, now_ns: u64) {
        self.earlier = self.sent;
        self.newest.clear();
        self.corrupt = false;
        (self.last_arrival_ns, self.free_at_ns) = (now_ns, now_ns);
    }

    /// Remembers what is sent, to repeat it.
    pub fn remember(&mut self, bytes: &[u8]) {
        self.newest.push_back(bytes.to_vec());
        if self.newest.len() > REPEATED {
            self.newest.pop_front();
        }
    }

    /// When `bytes` that are sent at `now_ns` arrive.
    pub fn arrival_ns(&mut self, now_ns: u64, latency_ns: u64, bytes: usize) -> u64 {
        let delay_ns = if now_ns < self.delay.1 { self.delay.0 } else { 0 };
        let passing_ns = (bytes as u64 * MS).checked_div(self.bytes_per_ms).unwrap_or(0);
        self.free_at_ns = self.free_at_ns.max(now_ns) + passing_ns;
        let earliest_ns = self.free_at_ns + latency_ns + delay_ns;
        self.last_arrival_ns = earliest_ns.max(self.cut_until_ns).max(self.last_arrival_ns + 1);
        self.last_arrival_ns
    }
}

/// The receiving end: bytes become what the replica is told.
#[derive(Debug)]
pub struct Decoder {
    bytes: Vec<u8>,
    order: Order,
    broken: bool,
}

impl Default for Decoder {
    fn default() -> Self {
        Self {
            bytes: Vec::new(),
            order: Order::of_stream(),
            broken: false,
        }
    }
}

impl Decoder {
    /// What the bytes that arrive say. Damage is the last thing they say.
    pub fn take(&mut self, bytes: &[u8]) -> VecDeque<FromCpu> {
        if self.broken {
            return VecDeque::new();
        }
        self.bytes.extend_from_slice(bytes);
        let (mut used, mut records) = (0, Vec::new());
        let damage = loop {
            let rest = self.bytes.get(used..).unwrap_or_default();
            match codec::decode(rest) {
                Ok((record, length)) => {
                    used += length;
                    if let Record::Entry(entry) = &record
                        && let Err(why) = self.order.take(entry)
                    {
                        break Some(why);
                    }
                    records.push((record, length as u64));
                }
                Err(LogError::Truncated { .. }) => break None,
                Err(why) => break Some(why),
            }
        };
        self.bytes.drain(..used);
        self.broken = damage.is_some();
        let told = together(records).into_iter().map(|received| match received {
            Received::Message(message) => Input::Received(message),
            Received::Entries(batch) => Input::ReceivedEntries(batch),
        });
        let broke = |why: LogError| Input::PeerClosed(Closed::Here { why: why.to_string() });
        told.chain(damage.map(broke)).collect()
    }
}
