//! The connection of a vCPU thread with the role machine, without the threads: journal, feed, guest
//! time, and the choice among arrivals. The shell gives each of them what a host has (a channel, a
//! clock, a way to wait); the simulator gives others.

pub mod arrivals;
pub mod feed;
pub mod journal;
pub mod time;

pub use arrivals::{Proposals, Taking};
pub use feed::{FeedHost, Item, Items, QueuedFeed};
pub use journal::{BatchingJournal, JournalHost};
pub use time::GuestTime;

use super::role::{Input, Output};
use lockstep_logging_channel::{Entry, OutputTarget, Sequence};

/// An output on its way to the gate: its target and its bytes.
pub type Payload = (OutputTarget, Vec<u8>);

/// Log entries as a replica carries them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Carried {
    /// Encoded, on their way to the peer.
    Encoded(Vec<u8>),
    /// Decoded, on their way to the replaying vCPU.
    Decoded(Vec<Entry>),
}

/// A message of the vCPU thread to the replica loop.
pub type FromCpu = Input<Carried, Payload>;

/// Messages of the vCPU thread that may wait for the replica loop. A batch is at most 64 KiB
/// ([`super::BATCH_BYTES_MAX`]), or one record of at most 128, and has outputs of at most 128 KiB:
/// 32 to 64 MiB. A common point has those of its epoch, at most
/// [`super::epochs::HELD_BYTES_MAX`]; the guest waits while more is held than the gate may.
pub const FROM_CPU_WAITING_MAX: usize = 256;

/// An output as the role machine takes it.
#[must_use]
pub fn output(sequence: Sequence, target: OutputTarget, bytes: Vec<u8>) -> Output<Payload> {
    Output {
        sequence,
        bytes: bytes.len(),
        payload: (target, bytes),
    }
}
