//! The host's own station as a smoltcp device: packets go straight into the fabric, in the same
//! call.

use smoltcp::phy::{Device, DeviceCapabilities, Medium, RxToken, TxToken};
use smoltcp::time::Instant;
use zerocopy::IntoBytes;

use crate::fabric::Fabric;
use crate::port_id::PortId;
use lockstep_network::EthernetHeader;

/// Bytes of payload in the frames the host sends, at most: standard Ethernet.
const PAYLOAD_BYTES_MAX: usize = 1500;

/// Bytes of the Ethernet header.
const HEADER_BYTES: usize = size_of::<EthernetHeader>();

/// A device for the time of one call into smoltcp.
pub(super) struct HostDevice<'a> {
    fabric: &'a mut Fabric,
    scratch: &'a mut Vec<u8>,
    /// Put before every packet; none where smoltcp makes Ethernet frames itself.
    header: Option<EthernetHeader>,
    incoming: Option<&'a [u8]>,
    exhausted: bool,
}

impl<'a> HostDevice<'a> {
    /// A device whose packets are Ethernet frames.
    pub(super) fn frames(fabric: &'a mut Fabric, scratch: &'a mut Vec<u8>) -> Self {
        Self {
            fabric,
            scratch,
            header: None,
            incoming: None,
            exhausted: false,
        }
    }

    /// A device whose packets are IP packets, sent with `header`.
    pub(super) fn packets(fabric: &'a mut Fabric, scratch: &'a mut Vec<u8>, header: EthernetHeader) -> Self {
        Self {
            fabric,
            scratch,
            header: Some(header),
            incoming: None,
            exhausted: false,
        }
    }

    /// Has `packet` received next.
    pub(super) fn with_incoming(mut self, packet: &'a [u8]) -> Self {
        self.incoming = Some(packet);
        self
    }

    /// Whether a packet could not be sent because the way to the guest is full.
    pub(super) fn is_exhausted(&self) -> bool {
        self.exhausted
    }

    fn outgoing(&mut self) -> Outgoing<'_> {
        Outgoing {
            fabric: self.fabric,
            scratch: self.scratch,
            header: self.header,
        }
    }
}

/// The packet that was received.
pub(super) struct Incoming<'a>(&'a [u8]);

impl RxToken for Incoming<'_> {
    fn consume<R, F: FnOnce(&[u8]) -> R>(self, parse: F) -> R {
        parse(self.0)
    }
}

/// Leave to send one packet.
pub(super) struct Outgoing<'a> {
    fabric: &'a mut Fabric,
    scratch: &'a mut Vec<u8>,
    header: Option<EthernetHeader>,
}

impl TxToken for Outgoing<'_> {
    fn consume<R, F: FnOnce(&mut [u8]) -> R>(self, length: usize, build: F) -> R {
        self.scratch.clear();
        if let Some(header) = &self.header {
            self.scratch.extend_from_slice(header.as_bytes());
        }
        let from = self.scratch.len();
        self.scratch.resize(from + length, 0);
        let built = build(self.scratch.get_mut(from..).unwrap_or_default());
        self.fabric.enter(PortId::HOST, self.scratch);
        built
    }
}

impl Device for HostDevice<'_> {
    type RxToken<'t>
        = Incoming<'t>
    where
        Self: 't;
    type TxToken<'t>
        = Outgoing<'t>
    where
        Self: 't;

    fn receive(&mut self, _now: Instant) -> Option<(Incoming<'_>, Outgoing<'_>)> {
        let packet = self.incoming.take()?;
        Some((Incoming(packet), self.outgoing()))
    }

    fn transmit(&mut self, _now: Instant) -> Option<Outgoing<'_>> {
        let has_room = self
            .header
            .is_none_or(|header| self.fabric.has_room_for_host(&header.destination));
        self.exhausted |= !has_room;
        has_room.then(|| self.outgoing())
    }

    fn capabilities(&self) -> DeviceCapabilities {
        let mut capabilities = DeviceCapabilities::default();
        (capabilities.medium, capabilities.max_transmission_unit) = match self.header {
            Some(_) => (Medium::Ip, PAYLOAD_BYTES_MAX),
            None => (Medium::Ethernet, PAYLOAD_BYTES_MAX + HEADER_BYTES),
        };
        capabilities
    }
}
