//! The loop.

use super::alarm::Alarm;
use super::connection::Shared;
use super::connections::Connections;
use super::device::Device;
use super::limits::Division;
use super::writer::Writer;
use super::{Options, PORT};
use crate::{Clock, Database, Session};
use alloc::vec::Vec;
use core::fmt;
use lockstep_guest_runtime::interrupts::{self, NETWORK_LINE, TIMER_LINE, bit};
use lockstep_guest_runtime::network::{Network, NetworkError};
use lockstep_guest_runtime::{clock, port};
use smoltcp::iface::{Config, Interface, PollIngressSingleResult, PollResult, SocketSet};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, IpCidr};

/// Gives four random bytes.
const RANDOM_PORT: u16 = 0x520;

/// The machine's time: that of the last event, and the wall clock.
struct GuestClock;

impl Clock for GuestClock {
    fn monotonic_ns(&mut self) -> u64 {
        clock::page_ns()
    }

    fn wall_ns(&mut self) -> u64 {
        clock::wall_ns()
    }
}

/// Everything there is.
pub struct Server {
    device: Device,
    interface: Interface,
    sockets: SocketSet<'static>,
    connections: Connections,
    database: Database,
    division: Division,
    alarm: Alarm,
    writer: Option<Writer>,
    sessions: u64,
    clients: usize,
}

impl Server {
    /// Starts device and stack.
    ///
    /// # Errors
    /// The network device's.
    pub fn start(options: &Options) -> Result<Self, NetworkError> {
        clock::enable_page();
        let mut device = Device(Network::start()?);
        let interface = interface(&mut device, options);
        let writer = (options.write_mib > 0)
            .then(|| Writer::new(options.write_mib, options.write_pages, clock::page_ns()));
        let division = Division::of_heap(options, writer.as_ref().map_or(0, Writer::bytes));
        interrupts::open(bit(NETWORK_LINE) | bit(TIMER_LINE));
        device.announce(options.address.address());
        Ok(Self {
            device,
            interface,
            sockets: SocketSet::new(Vec::new()),
            connections: Connections::new(division.database.clients_max),
            database: Database::new(division.database),
            division,
            alarm: Alarm::new(),
            writer,
            sessions: 0,
            clients: 0,
        })
    }

    /// How much it takes.
    pub fn limits(&self) -> impl fmt::Display {
        self.division
    }

    /// Serves for ever.
    pub fn run(&mut self) -> ! {
        loop {
            self.turn();
        }
    }

    /// Does what there is to do, and waits for more.
    pub fn turn(&mut self) {
        let now_ns = clock::page_ns();
        let now = Instant::from_micros((now_ns / 1000) as i64);
        if let Some(writer) = &mut self.writer {
            writer.turn(now_ns);
        }
        self.take_frames(now);
        let more = self.serve();
        self.fill_frames(now);
        self.set_alarm(now, now_ns);
        let stuck = !self.device.0.transmitter.has_room();
        self.device.0.exchange(!more && !stuck);
    }

    /// Carries out a request of the guest's own, and gives the reply.
    pub fn request(&mut self, bytes: &[u8]) -> Vec<u8> {
        let (mut own, mut reply) = (Session::new(0), Vec::new());
        let _ = own.receive(&mut self.database, &mut GuestClock, bytes, &mut reply);
        reply
    }

    /// The network device.
    pub fn network(&mut self) -> &mut Network {
        &mut self.device.0
    }

    fn take_frames(&mut self, now: Instant) {
        loop {
            if let Some(client) = self.device.next_opens(PORT) {
                let may_grow = !self.division.is_used_up();
                self.connections.listen(&mut self.sockets, client, may_grow);
            }
            let taken = self
                .interface
                .poll_ingress_single(now, &mut self.device, &mut self.sockets);
            if taken == PollIngressSingleResult::None {
                return;
            }
        }
    }

    fn serve(&mut self) -> bool {
        let mut shared = Shared {
            database: &mut self.database,
            clock: &mut GuestClock,
            division: self.division,
            sessions: &mut self.sessions,
            clients: &mut self.clients,
        };
        self.connections.serve(&mut self.sockets, &mut shared)
    }

    fn set_alarm(&mut self, now: Instant, now_ns: u64) {
        let deadline = self.interface.poll_at(now, &self.sockets);
        let deadline_ns = deadline.map(|at| at.total_micros().unsigned_abs() * 1000);
        let turn_ns = self.writer.as_ref().map(Writer::turn_at_ns);
        let deadline_ns = deadline_ns.into_iter().chain(turn_ns).min();
        if let Some(steps) = self.alarm.needs(now_ns, deadline_ns) {
            // Replies do not wait for the exit that this costs.
            self.device.0.exchange(false);
            self.alarm.start(steps);
        }
    }

    fn fill_frames(&mut self, now: Instant) {
        self.interface.poll_maintenance(now);
        while self
            .interface
            .poll_egress(now, &mut self.device, &mut self.sockets)
            != PollResult::None
        {}
    }
}

fn interface(device: &mut Device, options: &Options) -> Interface {
    let mut config = Config::new(EthernetAddress(device.0.mac()).into());
    config.random_seed =
        u64::from(port::read_u32(RANDOM_PORT)) << 32 | u64::from(port::read_u32(RANDOM_PORT));
    let now = Instant::from_micros((clock::page_ns() / 1000) as i64);
    let mut interface = Interface::new(config, device, now);
    // One address and one route: there is room for both.
    interface.update_ip_addrs(|addresses| {
        let _ = addresses.push(IpCidr::Ipv4(options.address));
    });
    let _ = interface.routes_mut().add_default_ipv4_route(options.gateway);
    interface
}
