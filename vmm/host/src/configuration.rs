//! Settings of a machine as they hold, whoever said them.

use crate::pair::witness::WitnessAddress;
use lockstep_kvm::ClockKind;
use lockstep_network::Attachment;
use lockstep_shared_disk::MachineName;
use std::path::PathBuf;
use std::time::Duration;

/// Files from which a guest begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum GuestFiles {
    /// An image that was written for Lockstep.
    Image(PathBuf),
    /// A kernel of Linux.
    Linux {
        /// The kernel, as a distribution ships it.
        kernel: PathBuf,
        /// Its initial ramdisk.
        initrd: Option<PathBuf>,
    },
}

/// Settings of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// Guest memory, in bytes.
    pub memory_bytes: u64,
    /// Command line of the guest.
    pub command_line: String,
    /// Network of the guest.
    pub network: Attachment,
    /// Ethernet address of the guest.
    pub mac: [u8; 6],
    /// Instruction clock that was named; none for what performs on this host, or the log's.
    pub clock: Option<ClockKind>,
    /// IRQ-window exits count; not said on a replay, the log decides.
    pub window_exits: Option<bool>,
    /// True if this host is measured anew, and earlier findings are not looked up.
    pub requalify: bool,
    /// Spacing of digests, in exits.
    pub digest_interval_exits: u64,
    /// Time that events wait for a guest that makes no exit; none for however long.
    pub event_latency: Option<Duration>,
    /// Time from one common point to the next of a machine whose backup does not run (checkpoint
    /// mode); none where it replays.
    pub epoch: Option<Duration>,
    /// Settings of a pair.
    pub pair: PairConfiguration,
}

/// Settings of a pair.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PairConfiguration {
    /// Name of the machine.
    pub name: MachineName,
    /// Logging channel, as said.
    pub channel: Option<String>,
    /// A machine that is begun waits for its backup.
    pub wait_for_backup: bool,
    /// Bandwidth of what newcomers are sent.
    pub pace: Pace,
    /// Directory of the test-and-set.
    pub shared_directory: Option<PathBuf>,
    /// Silence after which the peer is given up, in milliseconds.
    pub timeout_ms: u64,
    /// Bytes of log that may be unreplayed.
    pub window_bytes: u64,
    /// Time the backup may be behind, in milliseconds.
    pub lag_ms_max: u64,
    /// Stations whose answers show that clients reach this side.
    pub witnesses: Vec<WitnessAddress>,
    /// Clients on a TAP are asked to send again what died with the primary.
    pub ask_for_retransmission: bool,
    /// File of the reports.
    pub report: Option<PathBuf>,
}

/// Bound on the bandwidth of a transfer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pace {
    /// Bytes a second; none for as many as the channel takes.
    pub bytes_per_second: Option<u64>,
}
