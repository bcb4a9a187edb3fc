//! A switch without its sockets: bytes come in by ports and leave by them, and the time is told.
//!
//! It is what the tasks of a switch do, as a function: the frame decoder of each port, the fabric,
//! the host's station and its timers. For those who have frames and no sockets: tests and fuzzers
//! from outside.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::time::{Duration, Instant};

use smoltcp::socket::tcp::State;

use super::HostAddress;
use super::core::Core;
use super::port_id::PortId;
use lockstep_network::{FrameDecoder, FramingError};

/// A switch without its sockets.
pub struct Backplane {
    core: Core,
    decoders: BTreeMap<PortId, FrameDecoder>,
    /// Local ports of the connections to guests.
    connections: Vec<u16>,
    epoch: Instant,
}

impl Backplane {
    /// A switch without ports, on which the host has `address` and may connect to `guests`. `seed`
    /// makes its sequence numbers.
    #[must_use]
    pub fn new(address: HostAddress, guests: &[Ipv4Addr], seed: u64) -> Self {
        Self {
            core: Core::new(address, guests.iter().copied(), seed, None),
            decoders: BTreeMap::new(),
            connections: Vec::new(),
            epoch: Instant::now(),
        }
    }

    /// Attaches a machine: the number of its port, or none where every port is taken.
    pub fn attach(&mut self) -> Option<u32> {
        let id = self.core.fabric.attach()?;
        self.decoders.insert(id, FrameDecoder::new());
        Some(id.0)
    }

    /// Detaches the machine at `port`.
    pub fn detach(&mut self, port: u32) {
        self.decoders.remove(&PortId(port));
        self.core.detach(PortId(port));
    }

    /// Takes bytes of the stream that the machine at `port` sends, `at` after the start.
    ///
    /// # Errors
    /// The machine sends no frames. It is then detached.
    pub fn receive(&mut self, port: u32, mut bytes: &[u8], at: Duration) -> Result<(), FramingError> {
        let id = PortId(port);
        while let (Some(decoder), false) = (self.decoders.get_mut(&id), bytes.is_empty()) {
            let space = decoder.space();
            let count = space.len().min(bytes.len());
            let (taken, rest) = bytes.split_at(count);
            if let Some(space) = space.get_mut(..count) {
                space.copy_from_slice(taken);
            }
            bytes = rest;
            decoder.filled(count);
            if let Err(error) = self.core.frames_from(id, decoder, self.epoch + at) {
                self.detach(port);
                return Err(error);
            }
        }
        Ok(())
    }

    /// Bytes that wait to leave by `port`; none where it is not attached.
    pub fn waiting_bytes(&mut self, port: u32) -> Option<usize> {
        self.core
            .fabric
            .port_mut(PortId(port))
            .map(|port| port.queue.waiting_bytes())
    }

    /// Takes everything that waits to leave by `port`.
    pub fn take_sent(&mut self, port: u32) -> Vec<u8> {
        let id = PortId(port);
        let waiting = self
            .core
            .fabric
            .port_mut(id)
            .map_or_else(Vec::new, |port| port.queue.waiting().to_vec());
        self.core.written(id, waiting.len());
        waiting
    }

    /// Begins a connection of the host to `guest`; whether there was room for it.
    pub fn connect(&mut self, guest: SocketAddrV4, at: Duration) -> bool {
        let now = self.epoch + at;
        self.core.find(*guest.ip(), now);
        let Ok(connection) = self.core.connect(guest) else {
            return false;
        };
        self.connections.push(connection);
        self.core.emit(connection, now);
        true
    }

    /// Gives every connection `bytes` to send, as far as it takes them.
    pub fn send(&mut self, bytes: &[u8], at: Duration) {
        for port in self.connections.clone() {
            if let Some(connection) = self.core.connection(port) {
                // A connection that is not open takes nothing, which does not concern the sender of
                // the bytes.
                let _ = connection.socket().send_slice(bytes);
            }
            self.core.emit(port, self.epoch + at);
        }
    }

    /// Lets the time pass to `at` after the start: timers fire, and connections take and send what
    /// there is. Returns the bytes they took, and forgets those that are over.
    pub fn pass(&mut self, at: Duration) -> usize {
        let now = self.epoch + at;
        self.core.fire_timers(now);
        let mut taken_bytes = 0;
        for port in std::mem::take(&mut self.connections) {
            taken_bytes += self.take_received(port);
            self.core.emit(port, now);
            if self.is_over(port) {
                self.core.close(port, now);
            } else {
                self.connections.push(port);
            }
        }
        taken_bytes
    }

    fn take_received(&mut self, port: u16) -> usize {
        let connection = self.core.connection(port);
        let taken = connection.map(|connection| connection.socket().recv(|bytes| (bytes.len(), bytes.len())));
        taken.and_then(Result::ok).unwrap_or(0)
    }

    fn is_over(&mut self, port: u16) -> bool {
        self.core
            .connection(port)
            .is_none_or(|connection| matches!(connection.socket().state(), State::Closed | State::TimeWait))
    }
}
