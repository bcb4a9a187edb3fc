//! Everything a machine is built from, and what of it the other side must have the same.

use super::guest::Guest;
use crate::build;
use crate::configuration::{Configuration, GuestFiles};
use crate::disk::{Images, Purpose};
use crate::error::RunError;
use crate::live::Entering;
use crate::live::time::TSC_KHZ;
use lockstep_core::machine::cpu::EntryState;
use lockstep_core::machine::devices::{Board, Devices};
use lockstep_core::machine::memory::Memory;
use lockstep_core::machine::run::Policy;
use lockstep_core::machine::{Machine, boot, memory};
use lockstep_core::replica::transfer::Received;
use lockstep_kvm::kernel_file::first_line;
use lockstep_kvm::processor::processor;
use lockstep_kvm::{ClockKind, Host, KvmCpu, Vm};
use lockstep_logging_channel::{Digest, Environment, EnvironmentField};
use lockstep_qualify::Request;
use lockstep_qualify::start::{CLOCK_FIELD, Qualification, WINDOW_FIELD, qualify};
use std::sync::Arc;
use std::time::Duration;

/// Name of the field that says which build made a log. Only between the two sides of a pair is it
/// compared.
pub const BUILD_FIELD: &str = "lockstep build";

/// Name of the field with the disks, which machines without one do not have.
pub const DISKS_FIELD: &str = "disks";

/// Everything that a machine is built from.
#[derive(Clone, Debug)]
pub struct Plan {
    guest: Arc<Guest>,
    images: Arc<Images>,
    memory_bytes: u64,
    mac: [u8; 6],
    board: Board,
    digest_interval_exits: u64,
    event_latency: Option<Duration>,
    epoch: Option<Duration>,
    qualification: Qualification,
}

impl Plan {
    /// Reads the image, checks that the machine can be built, and qualifies the host for it: what
    /// is wrong is known before anything is started.
    ///
    /// # Errors
    /// [`RunError`] naming what cannot be built, or what the host lacks.
    pub fn new(
        guest: &GuestFiles,
        configuration: &Configuration,
        purpose: Purpose,
    ) -> Result<Self, RunError> {
        let request = Request::said(configuration.clock, configuration.window_exits);
        Self::qualified(guest, configuration, purpose, request)
    }

    /// The same for a replay: what `configuration` leaves open is as it was `recorded`.
    ///
    /// # Errors
    /// As [`Plan::new`].
    pub fn for_replay(
        guest: &GuestFiles,
        configuration: &Configuration,
        recorded: &Environment,
    ) -> Result<Self, RunError> {
        let request = Request::of_replay(configuration.clock, configuration.window_exits, recorded);
        Self::qualified(guest, configuration, Purpose::Base, request)
    }

    fn qualified(
        guest: &GuestFiles,
        configuration: &Configuration,
        purpose: Purpose,
        request: Request,
    ) -> Result<Self, RunError> {
        let guest = Guest::read(guest, configuration)?;
        let images = Images::open(&configuration.disks, purpose)?;
        let board = guest.board(configuration.mac)?;
        let board = board
            .with_disks(&images.shapes())
            .map_err(|why| RunError::setting("disk", why.to_string()))?;
        guest.boot(&memory::allocate(configuration.memory_bytes)?, &board)?;
        Host::open()?;
        let request = guest.request(request)?;
        Ok(Self {
            guest: Arc::new(guest),
            images: Arc::new(images),
            memory_bytes: configuration.memory_bytes,
            mac: configuration.mac,
            board,
            digest_interval_exits: configuration.digest_interval_exits,
            event_latency: configuration.event_latency,
            epoch: configuration.epoch,
            qualification: qualify(&request, configuration.requalify)?,
        })
    }

    /// Instruction clock.
    #[must_use]
    pub fn clock(&self) -> ClockKind {
        self.qualification.strategy.clock
    }

    /// Findings about this host, for this program when it begins itself again.
    #[must_use]
    pub fn to_carry(&self) -> Option<(&'static str, String)> {
        self.qualification.to_carry()
    }

    /// Places at which events enter the machine.
    #[must_use]
    pub fn entering(&self) -> Entering {
        Entering {
            clock: self.clock(),
            event_latency: self.event_latency,
            epoch: self.epoch,
            first_write: self.qualification.first_write(),
        }
    }

    fn policy(&self) -> Policy {
        Policy {
            digest_interval_exits: self.digest_interval_exits,
            window_exits: self.qualification.strategy.window_exits,
        }
    }

    /// Guest memory, in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.memory_bytes
    }

    /// Ethernet address of the guest.
    #[must_use]
    pub fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// Its board.
    #[must_use]
    pub fn board(&self) -> &Board {
        &self.board
    }

    /// Images of its disks.
    #[must_use]
    pub fn images(&self) -> &Arc<Images> {
        &self.images
    }

    /// Builds the machine. Must be called on the thread that runs it.
    ///
    /// # Errors
    /// [`RunError`] naming what cannot be built.
    pub fn build(&self) -> Result<Machine<KvmCpu>, RunError> {
        let memory = memory::allocate(self.memory_bytes)?;
        let booted = self.guest.boot(&memory, &self.board)?;
        booted.say();
        let cpu = self.cpu(&memory, &booted.entry)?;
        let devices = Devices::new(&self.board).map_err(RunError::other("the devices cannot be made"))?;
        let mut machine = self.restarting(Machine::new(cpu, memory, devices, booted.sites, self.policy()));
        if self.guest.computes_at_length() {
            machine.is_begun_with()?;
        }
        Ok(machine)
    }

    /// Builds the machine that was captured elsewhere. Must be called on the thread that runs it.
    ///
    /// # Errors
    /// [`RunError`] naming what cannot be built.
    pub fn restore(&self, received: Received) -> Result<Machine<KvmCpu>, RunError> {
        let Received { machine, memory, .. } = received;
        // The vCPU gets its whole state from the capture, the entry point included.
        let cpu = self.cpu(&memory, &boot::small::entry_state(0))?;
        let restored = Machine::restore(cpu, memory, &self.board, &machine)
            .map_err(RunError::other("the machine that was received cannot be built"))?;
        Ok(self.restarting(restored))
    }

    fn restarting(&self, machine: Machine<KvmCpu>) -> Machine<KvmCpu> {
        match Guest::firmware(&self.guest, &self.board) {
            Some(firmware) => machine.restarting(firmware),
            None => machine,
        }
    }

    fn cpu(&self, memory: &Memory, entry: &EntryState) -> Result<KvmCpu, RunError> {
        let vm = Vm::new(&Host::open()?, memory.clone())?;
        Ok(vm.cpu(entry, self.guest.cpuid(), self.clock())?)
    }

    /// Everything that a log of this machine depends on.
    #[must_use]
    pub fn environment(&self, pair: [u8; 16]) -> Environment {
        let field = |name: &str, value: String| EnvironmentField {
            name: name.to_owned(),
            value,
        };
        let table: Vec<u8> = self
            .guest
            .cpuid()
            .iter()
            .flat_map(|leaf| [leaf.function, leaf.index].into_iter().chain(leaf.registers))
            .flat_map(u32::to_le_bytes)
            .collect();
        let [a, b, c, d, e, f] = self.mac;
        let mut compared = vec![
            // Raised with every change that makes an old log replay differently. Which build made a
            // log is only said, below: a later one of the same version replays it.
            field("lockstep version", env!("CARGO_PKG_VERSION").to_owned()),
            field("guest image digest", self.guest.digest().to_string()),
            field("guest memory in bytes", self.memory_bytes.to_string()),
            field("guest command line", self.guest.command_line().to_owned()),
            field(
                "network device address",
                format!("{a:02x}:{b:02x}:{c:02x}:{d:02x}:{e:02x}:{f:02x}"),
            ),
            field("CPUID table digest", Digest::of(&table).to_string()),
            field("time-stamp counter in kHz", TSC_KHZ.to_string()),
            field(CLOCK_FIELD, self.qualification.strategy.clock_name()),
            field(WINDOW_FIELD, self.policy().window_exits.to_string()),
            field("digest interval in exits", self.digest_interval_exits.to_string()),
        ];
        if let Some(digest) = self.guest.initrd_digest() {
            compared.push(field("initial ramdisk digest", digest.to_string()));
        }
        if let Some(disks) = self.images.described() {
            compared.push(field(DISKS_FIELD, disks));
        }
        let mut informative = vec![
            field(BUILD_FIELD, build::name().unwrap_or("unknown").to_owned()),
            field("guest image", self.guest.path().display().to_string()),
            // Events and outputs in the log name devices by their places on it.
            field("board", self.board.to_string()),
            field("kernel", first_line("/proc/sys/kernel/osrelease")),
            field("host processor", processor()),
        ];
        informative.extend(self.qualification.informative());
        Environment {
            pair,
            compared,
            informative,
        }
    }
}
