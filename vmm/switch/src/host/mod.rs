//! The station with the host's address: answers ARP and ping, and holds the forwarded connections.

mod connection;
mod device;
mod neighbors;

use std::net::{Ipv4Addr, SocketAddrV4};
use std::rc::Rc;
use std::time::Instant;

use smoltcp::iface::{Config, Interface, SocketSet};
use smoltcp::socket::tcp::{ConnectError, State};
use smoltcp::time::Instant as TcpInstant;
use smoltcp::wire::{EthernetAddress, HardwareAddress, IpCidr, IpProtocol, Ipv4Cidr, Ipv4Packet, TcpPacket};
use tokio::sync::Notify;
use zerocopy::FromBytes;

pub(super) use connection::Connection;
use device::HostDevice;
use neighbors::Neighbors;
pub(super) use neighbors::QUESTION_INTERVAL;

use super::HostAddress;
use super::fabric::Fabric;
use super::port_id::PortId;
use lockstep_network::{ArpPacket, EthernetHeader, IPV4_ETHERTYPE, MacAddress};

/// MAC address of the host's station: locally administered, "LCKS" and the end of its usual
/// address.
pub(super) const HOST_MAC: MacAddress = [0x02, b'L', b'C', b'K', b'S', 2];

/// Forwarded connections at a time: 256 MiB of buffers.
pub(super) const CONNECTIONS_MAX: usize = 2048;

/// First local port of connections to guests; they are taken in turn up to 65,535, so that one is
/// used again only after the other side has forgotten it.
const FIRST_PORT: u16 = 32_768;

/// Local ports there are.
const PORTS: usize = (u16::MAX - FIRST_PORT) as usize + 1;

/// The host's station.
pub(super) struct Host {
    address: HostAddress,
    responder: Interface,
    neighbors: Neighbors,
    /// Told whenever a guest was found.
    found: Rc<Notify>,
    /// By local port, from [`FIRST_PORT`].
    connections: Vec<Option<Box<Connection>>>,
    last_slot: usize,
    seed: u64,
    /// Local ports of connections that wait for room in the queue of a port.
    stalled: Vec<u16>,
    scratch: Vec<u8>,
    epoch: Instant,
}

impl Host {
    /// A station with `address` that may connect to `guests`. `seed` makes its sequence numbers.
    pub(super) fn new(
        address: HostAddress,
        guests: impl Iterator<Item = Ipv4Addr>,
        seed: u64,
        fabric: &mut Fabric,
    ) -> Self {
        let mut config = Config::new(HardwareAddress::Ethernet(EthernetAddress(HOST_MAC)));
        config.random_seed = seed;
        let mut scratch = Vec::new();
        let mut device = HostDevice::frames(fabric, &mut scratch);
        let mut responder = Interface::new(config, &mut device, TcpInstant::ZERO);
        responder.update_ip_addrs(|addresses| {
            // There is room: the list holds at least one.
            let _ = addresses.push(IpCidr::Ipv4(Ipv4Cidr::new(address.address, address.prefix_bits)));
        });
        Self {
            address,
            responder,
            neighbors: Neighbors::of(guests),
            found: Rc::new(Notify::new()),
            connections: Vec::new(),
            last_slot: PORTS - 1,
            seed,
            stalled: Vec::new(),
            scratch,
            epoch: Instant::now(),
        }
    }

    /// Takes a frame that is for the host, at `now`.
    pub(super) fn receive(&mut self, frame: &[u8], now: Instant, fabric: &mut Fabric) {
        if let Some((port, packet)) = self.segment_for(frame)
            && self.connection(port).is_some()
        {
            self.with_device(port, fabric, Some(packet), |connection, device| {
                connection.receive(now, device)
            });
            return;
        }
        if let Some((address, mac)) = ArpPacket::sender_of(frame)
            && self.neighbors.learn(address, mac)
        {
            tracing::debug!(%address, "guest found");
            self.found.notify_waiters();
        }
        // A replica asks without an address of its own, which smoltcp does not answer.
        if let Some((_, asker)) =
            ArpPacket::probed(frame).filter(|(wanted, _)| *wanted == self.address.address)
        {
            fabric.enter(
                PortId::HOST,
                &ArpPacket::reply_frame((HOST_MAC, self.address.address), asker),
            );
            return;
        }
        let mut device = HostDevice::frames(fabric, &mut self.scratch).with_incoming(frame);
        let mut no_sockets = SocketSet::new([]);
        let time = TcpInstant::from_micros(now.saturating_duration_since(self.epoch).as_micros() as i64);
        self.responder
            .poll_ingress_single(time, &mut device, &mut no_sockets);
    }

    /// The local port to which a TCP segment goes, and its IP packet.
    fn segment_for<'a>(&self, frame: &'a [u8]) -> Option<(u16, &'a [u8])> {
        let (header, packet) = EthernetHeader::ref_from_prefix(frame).ok()?;
        if header.ethertype.get() != IPV4_ETHERTYPE {
            return None;
        }
        let checked = Ipv4Packet::new_checked(packet).ok()?;
        let is_ours = checked.dst_addr() == self.address.address && checked.next_header() == IpProtocol::Tcp;
        let port = TcpPacket::new_checked(checked.payload()).ok()?.dst_port();
        is_ours.then_some((port, packet))
    }

    /// A live connection by its local port.
    pub(super) fn connection(&mut self, port: u16) -> Option<&mut Connection> {
        let slot = usize::from(port).checked_sub(usize::from(FIRST_PORT))?;
        self.connections.get_mut(slot)?.as_deref_mut()
    }

    /// Begins a connection to `guest`; gives its local port.
    pub(super) fn connect(&mut self, guest: SocketAddrV4, fabric: &mut Fabric) -> Result<u16, ConnectError> {
        let free = (1..=PORTS).map(|step| (self.last_slot + step) % PORTS);
        let mut free = free.filter(|slot| self.connections.get(*slot).is_none_or(Option::is_none));
        let slot = free.next().ok_or(ConnectError::Unaddressable)?;
        let port = FIRST_PORT + slot as u16;
        // Sequence numbers are drawn from it: odd steps never repeat a value.
        self.seed = self.seed.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let header = self.header_to(*guest.ip());
        let mut device = HostDevice::packets(fabric, &mut self.scratch, header);
        let connection = Connection::open(&mut device, self.address, port, guest, self.seed)?;
        if slot >= self.connections.len() {
            self.connections.resize_with(slot + 1, || None);
        }
        if let Some(place) = self.connections.get_mut(slot) {
            *place = Some(Box::new(connection));
        }
        self.last_slot = slot;
        Ok(port)
    }

    /// Sends what the connection at `port` has to send.
    pub(super) fn emit(&mut self, port: u16, now: Instant, fabric: &mut Fabric) {
        self.with_device(port, fabric, None, |connection, device| {
            connection.emit(now, device)
        });
    }

    /// Ends the connection at `port`, with a reset where it is not over.
    pub(super) fn close(&mut self, port: u16, now: Instant, fabric: &mut Fabric) {
        let Some(connection) = self.connection(port) else {
            return;
        };
        match connection.socket().state() {
            State::Closed => {}
            State::TimeWait => {
                // The last acknowledgement is not to be lost with the connection.
                self.with_device(port, fabric, None, |connection, device| {
                    connection.acknowledge(now, device)
                });
            }
            _ => {
                connection.socket().abort();
                self.emit(port, now, fabric);
            }
        }
        let slot = usize::from(port).checked_sub(usize::from(FIRST_PORT));
        if let Some(place) = slot.and_then(|slot| self.connections.get_mut(slot)) {
            *place = None;
        }
    }

    /// Sends again at once what is unacknowledged anywhere: a machine has gone live in another
    /// place.
    pub(super) fn hasten(&mut self, now: Instant, fabric: &mut Fabric) {
        for slot in 0..self.connections.len() {
            if self.connections.get(slot).is_some_and(Option::is_some) {
                let port = FIRST_PORT + slot as u16;
                self.with_device(port, fabric, None, |connection, device| {
                    connection.hasten(now, device)
                });
            }
        }
    }

    /// Wakes the connections that waited for room in the queue of a port.
    pub(super) fn wake_stalled(&mut self) {
        for port in std::mem::take(&mut self.stalled) {
            if let Some(connection) = self.connection(port) {
                connection.wake();
            }
        }
    }

    /// Whether the MAC address of `guest` is known; where it is not, asks for it if it is time to.
    pub(super) fn find(&mut self, guest: Ipv4Addr, now: Instant, fabric: &mut Fabric) -> bool {
        if self.neighbors.mac_of(guest).is_some() {
            return true;
        }
        if self.neighbors.must_ask(guest, now) {
            let question = ArpPacket::request_frame((HOST_MAC, self.address.address), guest);
            fabric.enter(PortId::HOST, &question);
        }
        false
    }

    /// Told whenever a guest was found.
    pub(super) fn found(&self) -> Rc<Notify> {
        Rc::clone(&self.found)
    }

    fn header_to(&self, guest: Ipv4Addr) -> EthernetHeader {
        // Unknown it is sent to everybody, as a switch would send on an address it does not know.
        let destination = self.neighbors.mac_of(guest).unwrap_or([0xFF; 6]);
        EthernetHeader {
            destination,
            source: HOST_MAC,
            ethertype: IPV4_ETHERTYPE.into(),
        }
    }

    fn with_device(
        &mut self,
        port: u16,
        fabric: &mut Fabric,
        incoming: Option<&[u8]>,
        action: impl FnOnce(&mut Connection, &mut HostDevice<'_>),
    ) {
        let Some(guest) = self.connection(port).map(|connection| *connection.guest().ip()) else {
            return;
        };
        let header = self.header_to(guest);
        let slot = usize::from(port - FIRST_PORT);
        let Some(connection) = self.connections.get_mut(slot).and_then(Option::as_deref_mut) else {
            return;
        };
        let mut device = HostDevice::packets(fabric, &mut self.scratch, header);
        if let Some(packet) = incoming {
            device = device.with_incoming(packet);
        }
        action(connection, &mut device);
        connection.stalled = device.is_exhausted();
        if connection.stalled && !self.stalled.contains(&port) {
            self.stalled.push(port);
        }
    }
}
