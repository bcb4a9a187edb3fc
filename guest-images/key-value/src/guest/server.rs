//! The loop.

use super::alarm::Alarm;
use super::connection::Shared;
use super::connections::Connections;
use super::device::Device;
use super::limits::Division;
use super::storage::DiskStorage;
use super::writer::Writer;
use super::{Options, PORT};
use crate::append_only::{AppendOnly, OpenError, Policy};
use crate::{Clock, Database, Session};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::fmt;
use lockstep_guest_runtime::disk::{self, DiskError};
use lockstep_guest_runtime::interrupts::{self, NETWORK_LINE, TIMER_LINE, bit};
use lockstep_guest_runtime::network::{Network, NetworkError};
use lockstep_guest_runtime::{clock, port, power, println};
use smoltcp::iface::{Config, Interface, PollIngressSingleResult, PollResult, SocketSet};
use smoltcp::time::Instant;
use smoltcp::wire::{EthernetAddress, IpCidr};

const NS_PER_MS: u64 = 1_000_000;
/// Exit status of a machine whose append-only file cannot be relied on.
pub const STATUS_FILE: u32 = 3;

/// Gives four random bytes.
pub(super) const RANDOM_PORT: u16 = 0x520;

/// Bytes of the heap that an append-only file takes: what waits to be written, and what is being written.
const FILE_BYTES: usize = 8 << 20;

/// The machine's time: that of the last event, and the wall clock.
#[derive(Clone, Copy)]
struct GuestClock {
    /// Nanoseconds from 1970 to the start of the machine where there is an append-only file, which is to mean
    /// the same on another day; 0 otherwise.
    start_ns: u64,
}

impl Clock for GuestClock {
    fn monotonic_ns(&mut self) -> u64 {
        self.start_ns + clock::page_ns()
    }

    fn wall_ns(&mut self) -> u64 {
        clock::wall_ns()
    }
}

/// Why there is no server.
#[derive(Clone, Copy)]
pub enum StartError {
    /// The network device's.
    Network(NetworkError),
    /// A disk's, with its number.
    Disk(usize, DiskError),
    /// There is to be a file, and the machine has no disk.
    NoDisk,
    /// The file's.
    File(OpenError),
}

impl fmt::Display for StartError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Network(error) => error.fmt(formatter),
            Self::Disk(number, error) => write!(formatter, "disk {number}: {error}"),
            Self::NoDisk => {
                formatter.write_str("there is no disk for the append-only file: start the machine with one")
            }
            Self::File(error) => write!(formatter, "append-only file: {error}"),
        }
    }
}

/// Everything there is.
pub struct Server {
    device: Device,
    interface: Interface,
    sockets: SocketSet<'static>,
    connections: Connections,
    database: Database,
    clock: GuestClock,
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
    /// A device's, or the append-only file's.
    pub fn start(options: &Options) -> Result<Self, StartError> {
        clock::enable_page();
        let mut device = Device(Network::start().map_err(StartError::Network)?);
        let interface = interface(&mut device, options);
        let writer = (options.write_mib > 0)
            .then(|| Writer::new(options.write_mib, options.write_pages, clock::page_ns()));
        let file_bytes = options.append_only.map_or(0, |_| FILE_BYTES);
        let taken_bytes = writer.as_ref().map_or(0, Writer::bytes) + file_bytes;
        let division = Division::of_heap(options, taken_bytes);
        let mut database = Database::new(division.database);
        let lines = bit(NETWORK_LINE) | bit(TIMER_LINE);
        let clock = match options.append_only {
            Some(policy) => open_file(policy, lines, &mut database)?,
            None => {
                interrupts::open(lines);
                GuestClock { start_ns: 0 }
            }
        };
        device.announce(options.address.address());
        Ok(Self {
            device,
            interface,
            sockets: SocketSet::new(Vec::new()),
            connections: Connections::new(division.database.clients_max),
            database,
            clock,
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
        self.commit();
        self.fill_frames(now);
        self.set_alarm(now, now_ns);
        let stuck = !self.device.0.transmitter.has_room();
        self.device.0.exchange(!more && !stuck);
    }

    /// Carries out a request of the guest's own, and gives the reply.
    pub fn request(&mut self, bytes: &[u8]) -> Vec<u8> {
        let (mut own, mut reply) = (Session::new(0), Vec::new());
        let _ = own.receive(&mut self.database, &mut self.clock, bytes, &mut reply);
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
            clock: &mut self.clock,
            division: self.division,
            sessions: &mut self.sessions,
            clients: &mut self.clients,
        };
        self.connections.serve(&mut self.sockets, &mut shared)
    }

    /// Makes durable what is due. Ends the machine where the disk fails: nothing that was promised could be kept.
    fn commit(&mut self) {
        let now_ms = self.clock.monotonic_ns() / NS_PER_MS;
        let Some(file) = self.database.append_only() else {
            return;
        };
        if let Err(error) = file.commit_due(now_ms) {
            println!("key-value: append-only file: {error}");
            power::off(STATUS_FILE);
        }
    }

    /// When the append-only file is due, on the machine's clock.
    fn file_at_ns(&mut self) -> Option<u64> {
        let due_ms = self.database.append_only()?.due_ms()?;
        Some((due_ms * NS_PER_MS).saturating_sub(self.clock.start_ns))
    }

    fn set_alarm(&mut self, now: Instant, now_ns: u64) {
        let deadline = self.interface.poll_at(now, &self.sockets);
        let deadline_ns = deadline.map(|at| at.total_micros().unsigned_abs() * 1000);
        let turn_ns = self.writer.as_ref().map(Writer::turn_at_ns);
        let file_ns = self.file_at_ns();
        let deadline_ns = deadline_ns.into_iter().chain(turn_ns).chain(file_ns).min();
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

/// Opens the append-only file on the first disk, with the interrupts of all disks beside `lines`. Gives the clock
/// of its times.
fn open_file(policy: Policy, lines: u16, database: &mut Database) -> Result<GuestClock, StartError> {
    let disks = disk::start_all(lines).map_err(|(number, error)| StartError::Disk(number, error))?;
    let first = disks.into_iter().next().ok_or(StartError::NoDisk)?;
    let storage = Box::new(DiskStorage(first));
    let (file, opened) = AppendOnly::open(storage, policy, database).map_err(StartError::File)?;
    if opened.is_new {
        println!("key-value: append-only file: made, {}", policy.name());
    } else {
        println!(
            "key-value: append-only file: {} records in {} bytes replayed, {}",
            opened.records,
            opened.bytes,
            policy.name()
        );
    }
    if opened.cut_bytes > 0 {
        println!(
            "key-value: append-only file: a torn end of {} bytes was cut: it was never durable",
            opened.cut_bytes
        );
    }
    database.append_to(file);
    // Time does not go back behind the last record, whatever the wall clock says.
    let now_ms = (clock::wall_ns() / NS_PER_MS).max(opened.last_ms);
    database.started_at(now_ms);
    let start_ms = now_ms.saturating_sub(clock::page_ns() / NS_PER_MS);
    Ok(GuestClock {
        start_ns: start_ms * NS_PER_MS,
    })
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
