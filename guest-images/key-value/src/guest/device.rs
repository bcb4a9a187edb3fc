//! The network device as the TCP stack wants it.

use lockstep_guest_runtime::network::{FRAME_BYTES_MAX, Network, Receiver, Transmitter};
use smoltcp::phy::{self, DeviceCapabilities, Medium};
use smoltcp::time::Instant;
use smoltcp::wire::{
    ArpOperation, ArpPacket, ArpRepr, EthernetAddress, EthernetFrame, EthernetProtocol, EthernetRepr,
    IpEndpoint, IpProtocol, Ipv4Address, Ipv4Packet, TcpPacket,
};

/// The shortest Ethernet frame, without its check sequence.
const SHORTEST_FRAME_BYTES: usize = 60;

/// The started device.
pub struct Device(pub Network);

impl Device {
    /// Says to everybody that `address` is in use here: an ARP announcement (RFC 5227, section
    /// 2.3). Who has the same address, or watches over addresses, knows it from the start.
    pub fn announce(&mut self, address: Ipv4Address) {
        let own = EthernetAddress(self.0.mac());
        let header = EthernetRepr {
            src_addr: own,
            dst_addr: EthernetAddress::BROADCAST,
            ethertype: EthernetProtocol::Arp,
        };
        let packet = ArpRepr::EthernetIpv4 {
            operation: ArpOperation::Request,
            source_hardware_addr: own,
            source_protocol_addr: address,
            target_hardware_addr: EthernetAddress([0; 6]),
            target_protocol_addr: address,
        };
        self.0.transmitter.send(SHORTEST_FRAME_BYTES, |bytes| {
            bytes.fill(0);
            let mut frame = EthernetFrame::new_unchecked(bytes);
            header.emit(&mut frame);
            packet.emit(&mut ArpPacket::new_unchecked(frame.payload_mut()));
        });
    }

    /// The client that asks for a connection to `port` with the next frame.
    pub fn next_opens(&self, port: u16) -> Option<IpEndpoint> {
        let (client, asked) = self.0.receiver.peek().and_then(opens)?;
        (asked == port).then_some(client)
    }
}

/// The client that `frame` asks for a connection from, and the port to which.
fn opens(frame: &[u8]) -> Option<(IpEndpoint, u16)> {
    let frame = EthernetFrame::new_checked(frame).ok()?;
    if frame.ethertype() != EthernetProtocol::Ipv4 {
        return None;
    }
    let packet = Ipv4Packet::new_checked(frame.payload()).ok()?;
    if packet.next_header() != IpProtocol::Tcp {
        return None;
    }
    let segment = TcpPacket::new_checked(packet.payload()).ok()?;
    let client = IpEndpoint::new(packet.src_addr().into(), segment.src_port());
    (segment.syn() && !segment.ack()).then(|| (client, segment.dst_port()))
}

/// The oldest frame that came in.
pub struct Received<'a>(&'a mut Receiver);

impl phy::RxToken for Received<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, read: F) -> R {
        let result = read(self.0.peek().unwrap_or_default());
        self.0.drop_frame();
        result
    }
}

/// Room for a frame to send.
pub struct ToSend<'a>(&'a mut Transmitter);

impl phy::TxToken for ToSend<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length_bytes: usize, fill: F) -> R {
        self.0.send(length_bytes, fill)
    }
}

impl phy::Device for Device {
    type RxToken<'a> = Received<'a>;
    type TxToken<'a> = ToSend<'a>;

    fn receive(&mut self, _now: Instant) -> Option<(Received<'_>, ToSend<'_>)> {
        let Network {
            receiver,
            transmitter,
            ..
        } = &mut self.0;
        // A frame is taken only where it can be answered.
        (receiver.peek().is_some() && transmitter.has_room())
            .then_some((Received(receiver), ToSend(transmitter)))
    }

    fn transmit(&mut self, _now: Instant) -> Option<ToSend<'_>> {
        self.0
            .transmitter
            .has_room()
            .then_some(ToSend(&mut self.0.transmitter))
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        capabilities.medium = Medium::Ethernet;
        capabilities.max_transmission_unit = FRAME_BYTES_MAX;
        capabilities
    }
}
