//! What the tasks of a switch share: the fabric, the host's station and its timers, on one thread.

use std::cell::RefCell;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::rc::Rc;
use std::time::Instant;

use smoltcp::socket::tcp::ConnectError;

use super::HostAddress;
use super::capture::Capture;
use super::fabric::Fabric;
use super::host::{Connection, HOST_MAC, Host};
use super::port_id::PortId;
use super::queue::HOST_BYTES_MAX;
use super::timers::Timers;
use lockstep_network::{FrameDecoder, FramingError};

/// The core, as tasks hold it. Never borrowed across an await.
pub(super) type Shared = Rc<RefCell<Core>>;

/// The state of a switch.
pub(super) struct Core {
    pub(super) fabric: Fabric,
    pub(super) host: Host,
    pub(super) timers: Timers,
}

impl Core {
    /// A switch without ports.
    pub(super) fn new(
        address: HostAddress,
        guests: impl Iterator<Item = Ipv4Addr>,
        seed: u64,
        capture: Option<Capture>,
    ) -> Self {
        let mut fabric = Fabric::new(HOST_MAC, capture);
        let host = Host::new(address, guests, seed, &mut fabric);
        Self {
            fabric,
            host,
            timers: Timers::default(),
        }
    }

    /// Takes a frame that came by `port`.
    pub(super) fn frame_from(&mut self, port: PortId, frame: &[u8], now: Instant) {
        let verdict = self.fabric.enter(port, frame);
        if verdict.for_host {
            self.host.receive(frame, now, &mut self.fabric);
        }
        if verdict.moved {
            self.host.hasten(now, &mut self.fabric);
        }
    }

    /// Takes the whole frames that `decoder` holds, which came by `port`.
    ///
    /// # Errors
    /// What came is no stream of frames.
    pub(super) fn frames_from(
        &mut self,
        port: PortId,
        decoder: &mut FrameDecoder,
        now: Instant,
    ) -> Result<(), FramingError> {
        while let Some(frame) = decoder.next_frame()? {
            self.frame_from(port, frame, now);
        }
        Ok(())
    }

    /// Tells that `count` bytes left by `port`.
    pub(super) fn written(&mut self, port: PortId, count: usize) {
        let Some(port) = self.fabric.port_mut(port) else {
            return;
        };
        port.queue.written(count);
        if port.queue.waiting_bytes() < HOST_BYTES_MAX / 2 {
            self.host.wake_stalled();
        }
    }

    /// Removes a port. Who waited for room in its queue need not any more.
    pub(super) fn detach(&mut self, port: PortId) {
        self.fabric.detach(port);
        self.host.wake_stalled();
    }

    /// Begins a connection to a guest; gives its local port.
    pub(super) fn connect(&mut self, guest: SocketAddrV4) -> Result<u16, ConnectError> {
        self.host.connect(guest, &mut self.fabric)
    }

    /// A live connection by its local port.
    pub(super) fn connection(&mut self, port: u16) -> Option<&mut Connection> {
        self.host.connection(port)
    }

    /// Sends what a connection has to send, and sets its timer.
    pub(super) fn emit(&mut self, port: u16, now: Instant) {
        self.host.emit(port, now, &mut self.fabric);
        let Some(connection) = self.host.connection(port) else {
            return;
        };
        let Some(deadline) = connection.deadline(now) else {
            return;
        };
        if connection.armed.is_none_or(|armed| deadline < armed) {
            connection.armed = Some(deadline);
            self.timers.add(deadline, port);
        }
    }

    /// Ends a connection, with a reset where it is not over.
    pub(super) fn close(&mut self, port: u16, now: Instant) {
        self.host.close(port, now, &mut self.fabric);
    }

    /// Wakes the connections whose deadline has passed.
    pub(super) fn fire_timers(&mut self, now: Instant) {
        while let Some((deadline, port)) = self.timers.take_due(now) {
            if let Some(connection) = self
                .host
                .connection(port)
                .filter(|known| known.armed == Some(deadline))
            {
                connection.armed = None;
                connection.give_up_if_silent(now);
                connection.wake();
            }
        }
    }

    /// Whether the place of `guest` is known; where it is not, asks for it if it is time to.
    pub(super) fn find(&mut self, guest: Ipv4Addr, now: Instant) -> bool {
        self.host.find(guest, now, &mut self.fabric)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_logging_channel::Generation;
    use lockstep_network::{Announcement, gratuitous_arp};
    use std::time::Duration;

    const GUEST: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(10, 0, 2, 15), 6379);
    const SYN_FRAME_BYTES: usize = 14 + 20 + 32; // with the options MSS, window scale and SACK

    /// A switch with one port, behind which the guest is known to be, and a connection that was
    /// begun.
    fn connecting() -> (Core, PortId, u16, Instant) {
        let now = Instant::now();
        let mut core = Core::new(HostAddress::default(), [*GUEST.ip()].into_iter(), 7, None);
        let port = core.fabric.attach().unwrap();
        assert!(!core.find(*GUEST.ip(), now));
        core.frame_from(
            port,
            &gratuitous_arp([2, 0, 0, 0, 0, 0x15], Some(*GUEST.ip())),
            now,
        );
        assert!(core.find(*GUEST.ip(), now));
        let connection = core.connect(GUEST).unwrap();
        sent(&mut core, port);
        (core, port, connection, now)
    }

    /// Bytes sent to the port since this was asked last.
    fn sent(core: &mut Core, port: PortId) -> usize {
        let bytes = core.fabric.port_mut(port).unwrap().queue.waiting_bytes();
        core.written(port, bytes);
        bytes
    }

    #[test]
    fn what_is_unacknowledged_is_sent_again_when_its_time_has_come() {
        let (mut core, port, connection, now) = connecting();
        core.emit(connection, now);
        assert_eq!(sent(&mut core, port), 4 + SYN_FRAME_BYTES);

        core.emit(connection, now + Duration::from_millis(190));
        assert_eq!(sent(&mut core, port), 0);
        core.emit(connection, now + Duration::from_millis(210));
        assert_eq!(sent(&mut core, port), 4 + SYN_FRAME_BYTES);
    }

    #[test]
    fn a_machine_that_goes_live_is_sent_it_at_once() {
        let (mut core, old, connection, now) = connecting();
        let new = core.fabric.attach().unwrap();
        let announcement = |generation| Announcement {
            pair: [1; 16],
            generation: Generation(generation),
        };
        core.emit(connection, now);
        assert_eq!(sent(&mut core, old), 4 + SYN_FRAME_BYTES);
        core.frame_from(old, &announcement(0).to_frame(), now);
        assert_eq!(
            (sent(&mut core, old), sent(&mut core, new)),
            (4 + SYN_FRAME_BYTES, 0)
        );

        core.frame_from(new, &announcement(1).to_frame(), now);

        assert_eq!(
            (sent(&mut core, old), sent(&mut core, new)),
            (0, 4 + SYN_FRAME_BYTES)
        );
    }

    #[test]
    fn a_guest_that_stays_silent_is_given_up() {
        let (mut core, _, connection, now) = connecting();
        core.emit(connection, now);
        for second in 1..=119 {
            core.emit(connection, now + Duration::from_secs(second));
        }
        core.connection(connection)
            .unwrap()
            .give_up_if_silent(now + Duration::from_secs(119));
        assert!(core.connection(connection).unwrap().socket().is_open());
        core.connection(connection)
            .unwrap()
            .give_up_if_silent(now + Duration::from_secs(120));
        assert!(!core.connection(connection).unwrap().socket().is_open());
    }

    #[test]
    fn a_queue_that_is_full_holds_the_connection_back_and_wakes_it() {
        let (mut core, port, connection, now) = connecting();
        let filler = vec![0; 60_000];
        while core.fabric.port_mut(port).unwrap().queue.waiting_bytes() < HOST_BYTES_MAX {
            core.fabric.port_mut(port).unwrap().queue.push(&filler);
        }
        let full = core.fabric.port_mut(port).unwrap().queue.waiting_bytes();

        core.emit(connection, now);

        assert_eq!(sent(&mut core, port), full, "the connection request waits");
        core.emit(connection, now);
        assert_eq!(sent(&mut core, port), 4 + SYN_FRAME_BYTES);
    }
}
