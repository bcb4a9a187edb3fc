//! Settings of a machine as they hold, whoever said them.

use crate::disk::DiskSetting;
use crate::pair::witness::WitnessAddress;
use lockstep_kvm::ClockKind;
use lockstep_logging_channel::message::FollowsBy;
use lockstep_network::Attachment;
use lockstep_shared_disk::MachineName;
use std::fmt;
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

/// Method by which the backup of a machine is to follow.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Mode {
    /// By replay.
    #[default]
    Replay,
    /// By checkpoints.
    Checkpoint,
    /// By replay, and by checkpoints from the moment on at which its replays have differed from the
    /// log again and again.
    ReplayThenCheckpoint,
}

impl Mode {
    /// The method with which a machine begins.
    #[must_use]
    pub fn first(self) -> FollowsBy {
        match self {
            Self::Replay | Self::ReplayThenCheckpoint => FollowsBy::Replay,
            Self::Checkpoint => FollowsBy::Checkpoints,
        }
    }

    /// True where the backup may be told states.
    #[must_use]
    pub fn has_checkpoints(self) -> bool {
        self != Self::Replay
    }

    /// True where a machine that begins with replays may go over to checkpoints.
    #[must_use]
    pub fn falls_back(self) -> bool {
        self == Self::ReplayThenCheckpoint
    }

    /// True where a backup may follow so.
    #[must_use]
    pub fn allows(self, follows_by: FollowsBy) -> bool {
        self.falls_back() || self.first() == follows_by
    }
}

impl fmt::Display for Mode {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReplayThenCheckpoint => formatter.write_str("replay-then-checkpoint"),
            other => other.first().fmt(formatter),
        }
    }
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
    /// Disks of the guest, in the order in which it finds them.
    pub disks: Vec<DiskSetting>,
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
    /// Method by which the backup follows.
    pub mode: Mode,
    /// Time from one common point to the next of a machine whose backup does not run; none where it
    /// always replays.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_of_modes() {
        use FollowsBy::{Checkpoints, Replay};
        for (mode, name, first, allowed) in [
            (Mode::Replay, "replay", Replay, [true, false]),
            (Mode::Checkpoint, "checkpoint", Checkpoints, [false, true]),
            (
                Mode::ReplayThenCheckpoint,
                "replay-then-checkpoint",
                Replay,
                [true, true],
            ),
        ] {
            assert_eq!(mode.to_string(), name);
            assert_eq!(mode.first(), first, "{mode}");
            assert_eq!([Replay, Checkpoints].map(|by| mode.allows(by)), allowed, "{mode}");
        }
    }
}
