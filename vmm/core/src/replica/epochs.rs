//! The epochs of a machine whose backup does not run: from one common point to the next. What the
//! guest says waits for the one that ends its epoch (docs/determinism.md, Checkpoint mode).

use super::batcher::{BATCH_OUTPUT_BYTES_MAX, OUTPUT_BYTES_MIN};
use crate::machine::devices::virtio::net::FRAME_BYTES_MAX;
use crate::machine::devices::virtio::queue::QUEUE_SIZE;
use crate::machine::disk::{DISKS_MAX, IN_FLIGHT_BYTES_MAX, IN_FLIGHT_MAX, REQUEST_BYTES_MAX};
use lockstep_logging_channel::{Change, OutputTarget};

/// Bytes of output, each with [`OUTPUT_BYTES_MIN`] of its own, at which an epoch ends early: what a
/// batch of the log may have.
pub const EPOCH_OUTPUT_BYTES_MAX: u64 = BATCH_OUTPUT_BYTES_MAX as u64;

/// Bytes of output that an epoch can have: what ends it, and one notification more, which sends a
/// ring of frames at most: 128 KiB + 256 × (65,550 + 128) bytes, about 16 MiB.
pub const HELD_BYTES_MAX: u64 =
    EPOCH_OUTPUT_BYTES_MAX + QUEUE_SIZE as u64 * (FRAME_BYTES_MAX as u64 + OUTPUT_BYTES_MIN);

/// Bytes of changes of disks, each with [`CHANGE_BYTES_MIN`] of its own, at which an epoch ends early:
/// 200 MiB a second in epochs of 20 ms. Nothing enters then before the common point.
pub const EPOCH_CHANGE_BYTES_MAX: u64 = 4 << 20;

/// Bytes that a change takes on the backup beside its own: its place in a list, and what an
/// allocation is rounded up to.
pub const CHANGE_BYTES_MIN: u64 = 128;

/// Bytes of changes that an epoch can have: what ends it, with one that has just entered; and at an
/// end all that is not done: 4 MiB + 4 × (651,264 + 64 × 128) bytes, about 7 MiB.
pub const CHANGES_BYTES_MAX: u64 = EPOCH_CHANGE_BYTES_MAX
    + DISKS_MAX as u64
        * (IN_FLIGHT_BYTES_MAX + REQUEST_BYTES_MAX as u64 + IN_FLIGHT_MAX as u64 * CHANGE_BYTES_MIN);

/// Bytes that a change counts for.
#[must_use]
pub fn change_bytes(change: &Change) -> u64 {
    let written = match change {
        Change::Written { bytes, .. } => bytes.len() as u64,
        Change::Flushed | Change::Discarded { .. } | Change::Zeroed { .. } => 0,
    };
    CHANGE_BYTES_MIN + written
}

/// Outputs of an epoch, in order.
#[derive(Debug, Default)]
pub struct Held {
    outputs: Vec<(OutputTarget, Vec<u8>)>,
    bytes: u64,
}

impl Held {
    /// Takes an output.
    pub fn put(&mut self, target: OutputTarget, bytes: Vec<u8>) {
        self.bytes += OUTPUT_BYTES_MIN + bytes.len() as u64;
        self.outputs.push((target, bytes));
    }

    /// Everything there is.
    pub fn take(&mut self) -> Vec<(OutputTarget, Vec<u8>)> {
        self.bytes = 0;
        std::mem::take(&mut self.outputs)
    }

    /// Bytes, each output with its own.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }
}

/// The epoch of a live machine.
#[derive(Debug, Default)]
pub struct Epoch {
    /// Outputs that wait for its end.
    pub held: Held,
    /// Bytes of the changes of disks that the log has of it.
    pub change_bytes: u64,
    /// Something has changed since the last common point.
    pub runs: bool,
    /// Somebody followed when this was looked at last.
    pub followed: bool,
}

impl Epoch {
    /// True where so much waits that it ends early.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.held.bytes() >= EPOCH_OUTPUT_BYTES_MAX || self.has_changed_enough()
    }

    /// True where nothing more may enter before its end.
    #[must_use]
    pub fn has_changed_enough(&self) -> bool {
        self.change_bytes >= EPOCH_CHANGE_BYTES_MAX
    }

    /// Another one begins, in which nothing has happened. What is held stays.
    pub fn begin_anew(&mut self) {
        (self.change_bytes, self.runs) = (0, false);
    }
}
