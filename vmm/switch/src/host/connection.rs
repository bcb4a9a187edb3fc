//! One TCP connection to a guest, in a smoltcp interface of its own.
//!
//! An interface with a single socket makes the work for a segment independent of the number of
//! connections; the Ethernet header and the address resolution that it leaves out are the host's,
//! once for all.
//!
//! **Time.** smoltcp never retransmits earlier than one second, the minimum of RFC 6298 for the
//! internet. Here the guest is on the same host, so its clock runs [`CLOCK_RATE`] times faster: at
//! least 200 ms, what Linux does. [`Connection::hasten`] goes further: when a machine has gone live
//! elsewhere, the clock of a connection that waits for an acknowledgement is put forward to its
//! next retransmission.

use std::net::SocketAddrV4;
use std::task::Waker;
use std::time::{Duration, Instant};

use smoltcp::iface::{Config, Interface, PollResult, SocketHandle, SocketSet};
use smoltcp::socket::tcp::{ConnectError, Socket, SocketBuffer, State};
use smoltcp::time::{Duration as TcpDuration, Instant as TcpInstant};
use smoltcp::wire::{HardwareAddress, IpCidr, Ipv4Cidr};

use super::device::HostDevice;
use crate::HostAddress;

/// smoltcp seconds in a second.
const CLOCK_RATE: u32 = 5;

/// Bytes buffered in each direction: the largest window without scaling, and what the round trip of
/// a protected guest (1 ms) moves at 500 Mbit/s.
const BUFFER_BYTES: usize = 65_535;

/// Time that an acknowledgement waits for data to travel with. Every frame is an event for the
/// guest, and in its log; a client that answers within this time spares one. Far below the
/// retransmission timeout of the guest.
const ACKNOWLEDGE_DELAY: Duration = Duration::from_millis(5);

/// A guest that acknowledges nothing for this long while something waits for it is given up.
const SILENCE_MAX: Duration = Duration::from_secs(120);

/// The same in the time of smoltcp.
fn acknowledge_delay() -> TcpDuration {
    TcpDuration::from_micros((ACKNOWLEDGE_DELAY * CLOCK_RATE).as_micros() as u64)
}

/// A connection and the task that moves its bytes.
pub(crate) struct Connection {
    interface: Interface,
    sockets: SocketSet<'static>,
    handle: SocketHandle,
    guest: SocketAddrV4,
    epoch: Instant,
    /// By how much its clock was put forward, in its own time.
    skew: TcpDuration,
    /// When it began to wait for an acknowledgement without hearing anything.
    silent_since: Option<Instant>,
    waker: Option<Waker>,
    /// It has more to send than the queue of the guest's port takes now.
    pub(super) stalled: bool,
    /// When its timer is set to, at the latest; see [`crate::timers`].
    pub(crate) armed: Option<Instant>,
}

impl Connection {
    /// Begins to connect from `port` to `guest`. `seed` makes its sequence numbers.
    pub(super) fn open(
        device: &mut HostDevice<'_>,
        host: HostAddress,
        port: u16,
        guest: SocketAddrV4,
        seed: u64,
    ) -> Result<Self, ConnectError> {
        let mut config = Config::new(HardwareAddress::Ip);
        config.random_seed = seed;
        let mut interface = Interface::new(config, device, TcpInstant::ZERO);
        interface.update_ip_addrs(|addresses| {
            let address = IpCidr::Ipv4(Ipv4Cidr::new(host.address, host.prefix_bits));
            // There is room: the list holds at least one.
            let _ = addresses.push(address);
        });
        let buffer = || SocketBuffer::new(vec![0; BUFFER_BYTES]);
        let mut socket = Socket::new(buffer(), buffer());
        socket.set_nagle_enabled(false);
        socket.set_ack_delay(Some(acknowledge_delay()));
        socket.connect(
            interface.context(),
            (*guest.ip(), guest.port()),
            (host.address, port),
        )?;
        let mut sockets = SocketSet::new(Vec::with_capacity(1));
        let handle = sockets.add(socket);
        Ok(Self {
            interface,
            sockets,
            handle,
            guest,
            epoch: Instant::now(),
            skew: TcpDuration::ZERO,
            silent_since: None,
            waker: None,
            stalled: false,
            armed: None,
        })
    }

    /// Where it leads.
    pub(super) fn guest(&self) -> SocketAddrV4 {
        self.guest
    }

    /// Its socket.
    pub(crate) fn socket(&mut self) -> &mut Socket<'static> {
        self.sockets.get_mut(self.handle)
    }

    /// Takes the packet in `device`, and wakes the task.
    pub(super) fn receive(&mut self, now: Instant, device: &mut HostDevice<'_>) {
        self.silent_since = None;
        let time = self.time(now);
        self.interface
            .poll_ingress_single(time, device, &mut self.sockets);
        self.wake();
    }

    /// Sends what there is to send now.
    pub(super) fn emit(&mut self, now: Instant, device: &mut HostDevice<'_>) {
        let time = self.time(now);
        while self.interface.poll_egress(time, device, &mut self.sockets) == PollResult::SocketStateChanged {}
        if !self.is_waiting() {
            self.silent_since = None;
        } else if self.silent_since.is_none() {
            self.silent_since = Some(now);
        }
    }

    /// When [`Self::emit`] has something to do again, if nothing happens before.
    pub(crate) fn deadline(&mut self, now: Instant) -> Option<Instant> {
        if self.stalled {
            // Room in the queue wakes it; this is for the giving up.
            return Some(now + SILENCE_MAX);
        }
        let time = self.time(now);
        let delay = self.interface.poll_delay(time, &self.sockets)?;
        // Rounded up: a timer that fires early only fires again.
        Some(now + Duration::from_micros(delay.total_micros().div_ceil(u64::from(CLOCK_RATE))))
    }

    /// Sends the acknowledgement that is being delayed, if one is.
    pub(super) fn acknowledge(&mut self, now: Instant, device: &mut HostDevice<'_>) {
        self.skew += acknowledge_delay();
        self.emit(now, device);
    }

    /// Sends again at once what was sent and not acknowledged, instead of at the next
    /// retransmission.
    pub(super) fn hasten(&mut self, now: Instant, device: &mut HostDevice<'_>) {
        if self.is_waiting() {
            // A delayed acknowledgement may be due before the retransmission.
            self.acknowledge(now, device);
            let time = self.time(now);
            self.skew += self
                .interface
                .poll_delay(time, &self.sockets)
                .unwrap_or(TcpDuration::ZERO);
            self.emit(now, device);
        }
        self.wake();
    }

    /// Gives up a guest that has been silent for too long.
    pub(crate) fn give_up_if_silent(&mut self, now: Instant) {
        let silent_for = self
            .silent_since
            .map(|since| now.saturating_duration_since(since));
        if silent_for.is_some_and(|silence| silence >= SILENCE_MAX) {
            self.socket().abort();
        }
    }

    /// Has `waker` woken when something happens to the connection.
    pub(crate) fn wake_with(&mut self, waker: &Waker) {
        if !self.waker.as_ref().is_some_and(|known| known.will_wake(waker)) {
            self.waker = Some(waker.clone());
        }
    }

    /// Has the task look at the connection.
    pub(crate) fn wake(&self) {
        if let Some(waker) = &self.waker {
            waker.wake_by_ref();
        }
    }

    /// Whether something was sent, or waits to be, that the guest must acknowledge.
    fn is_waiting(&mut self) -> bool {
        let socket = self.socket();
        let unacknowledged = matches!(
            socket.state(),
            State::SynSent | State::SynReceived | State::FinWait1 | State::Closing | State::LastAck
        );
        unacknowledged || (socket.is_active() && socket.send_queue() > 0)
    }

    fn time(&self, now: Instant) -> TcpInstant {
        let elapsed = now.saturating_duration_since(self.epoch).as_micros() as i64;
        TcpInstant::from_micros(elapsed * i64::from(CLOCK_RATE)) + self.skew
    }
}
