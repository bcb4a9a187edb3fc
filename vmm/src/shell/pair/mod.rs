//! A replica as a process: the pure role machine of [`crate::replica::role`] with sockets, storage, a clock and a vCPU thread.
//!
//! ```text
//!   vCPU thread                         replica loop (tokio, one thread)
//!   Recorder -> ChannelJournal  ---->   Replica::step -> actions -> channel to the peer, outlets, claims
//!   Replayer <- ChannelFeed     <----                            <- channel, frames, claims, signals
//! ```

pub mod asking;
pub mod backup;
pub mod clock;
pub mod driver;
pub mod feed;
pub mod flowing;
pub mod happened;
pub mod heard;
pub mod journal;
pub mod last_text;
pub mod leaving;
pub mod link;
pub mod meeting;
pub mod primary;
pub mod received;
pub mod reception;
pub mod report;
pub mod stop_point;
pub mod storage;
pub mod strangers;
pub mod turns;
pub mod witness;

use crate::replica::role;
use lockstep_logging_channel::{Entry, OutputTarget, Sequence};

/// An output on its way to the gate: where it goes, and its bytes.
pub type Payload = (OutputTarget, Vec<u8>);

/// Log entries as the replica loop carries them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Carried {
    /// Encoded, on their way to the peer.
    Encoded(Vec<u8>),
    /// Decoded, on their way to the replaying vCPU.
    Decoded(Vec<Entry>),
}

/// What the vCPU thread tells the replica loop.
pub type FromCpu = role::Input<Carried, Payload>;

/// Messages of the vCPU thread that may wait for the replica loop. A batch is at most 64 KiB ([`crate::replica::BATCH_BYTES_MAX`]), or
/// one record of at most 128: 32 MiB, or half of that.
pub const FROM_CPU_WAITING_MAX: usize = 256;

/// An output as the role machine takes it.
#[must_use]
pub fn output(sequence: Sequence, target: OutputTarget, bytes: Vec<u8>) -> role::Output<Payload> {
    role::Output {
        sequence,
        bytes: bytes.len(),
        payload: (target, bytes),
    }
}
