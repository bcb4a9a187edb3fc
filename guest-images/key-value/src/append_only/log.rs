//! The file as it grows.

use super::layout::Superblock;
use super::record::{self, Head, Kind, RECORD_BYTES_MAX, record_bytes};
use super::{Storage, StorageError};
use crate::arguments::Arguments;
use crate::store::Keyspace;
use alloc::boxed::Box;
use alloc::vec::Vec;

/// Bytes that wait to be written before they are written at once, whatever the policy: what a
/// rewrite, a commit and recovery hold in memory is bounded by it.
pub const PENDING_BYTES_MAX: usize = 1 << 20;
/// Bytes behind the last whole record that a commit may have been writing when the power went.
pub const UNFLUSHED_BYTES_MAX: usize = PENDING_BYTES_MAX + RECORD_BYTES_MAX;
/// Part of a half that is kept for commands that do not add to the keyspace: who is told that the
/// file is full can remove something.
const RESERVE_DIVISOR: u64 = 16;
/// Milliseconds between the flushes of [`Policy::EverySecond`].
const SECOND_MS: u64 = 1000;

/// When the file is made durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Before a reply leaves.
    Always,
    /// Once a second.
    EverySecond,
}

impl Policy {
    /// Its name, as Redis's `appendfsync` has it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Always => "always",
            Self::EverySecond => "everysec",
        }
    }
}

/// The file.
pub struct AppendOnly {
    pub(super) storage: Box<dyn Storage>,
    pub(super) policy: Policy,
    pub(super) superblock: Superblock,
    /// Bytes of the half that are durable.
    pub(super) end: u64,
    /// Those of them that are in the last block, where it is not full.
    pub(super) tail: Vec<u8>,
    /// Records that are not written yet.
    pub(crate) pending: Vec<u8>,
    /// Number and digest of the last record.
    pub(super) sequence: u64,
    pub(super) previous: u64,
    /// Number of the last record that is durable.
    pub(super) durable: u64,
    pub(super) committed_ms: u64,
    /// Bytes of the half after its rewrite.
    pub(crate) base_bytes: u64,
    pub(crate) rewrites: u64,
    /// Bytes that the keyspace cost when it did not fit into a half: with no less, it is not tried
    /// again.
    pub(crate) too_large_at: Option<usize>,
    /// Error that ended the file. Nothing is written after it.
    pub(crate) failed: Option<StorageError>,
}

impl AppendOnly {
    /// When it is made durable.
    #[must_use]
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// Failure of the disk, after which the file cannot be relied on.
    #[must_use]
    pub fn failed(&self) -> Option<StorageError> {
        self.failed
    }

    /// Bytes of all records.
    #[must_use]
    pub fn used_bytes(&self) -> u64 {
        self.end + self.pending.len() as u64
    }

    /// When it wants to be committed, in milliseconds of the clock.
    #[must_use]
    pub fn due_ms(&self) -> Option<u64> {
        (!self.pending.is_empty()).then_some(match self.policy {
            Policy::Always => 0,
            Policy::EverySecond => self.committed_ms + SECOND_MS,
        })
    }

    /// Commits what is due.
    ///
    /// # Errors
    /// The disk's, now or before.
    pub fn commit_due(&mut self, now_ms: u64) -> Result<(), StorageError> {
        if self.due_ms().is_some_and(|due_ms| due_ms <= now_ms) {
            self.commit(now_ms);
        }
        self.failed.map_or(Ok(()), Err)
    }

    /// True if a command with these arguments has room in the file, after a rewrite if need be. One
    /// that `grows` leaves the reserve alone.
    pub(crate) fn make_room(
        &mut self,
        keyspace: &Keyspace,
        now_ms: u64,
        arguments: &Arguments<'_>,
        grows: bool,
    ) -> bool {
        let lengths = arguments.from(0).map(<[u8]>::len);
        let bytes = record_bytes(record::command_bytes(lengths)) as u64;
        if self.has_room(bytes, grows) {
            return true;
        }
        let used_bytes = keyspace.used_bytes();
        if self.failed.is_some() || self.too_large_at.is_some_and(|before| used_bytes >= before) {
            return false;
        }
        let has_room = self.rewrite(keyspace, now_ms) && self.has_room(bytes, grows);
        self.too_large_at = (!has_room).then_some(used_bytes);
        has_room
    }

    fn has_room(&self, bytes: u64, grows: bool) -> bool {
        let half_bytes = self.superblock.half_bytes();
        let reserve_bytes = if grows { half_bytes / RESERVE_DIVISOR } else { 0 };
        self.failed.is_none() && self.used_bytes() + bytes + reserve_bytes <= half_bytes
    }

    /// Adds a command that was done. There is room for it.
    pub(crate) fn append(&mut self, time_ms: u64, wall_ns: u64, arguments: &Arguments<'_>) {
        let head = Head {
            kind: Kind::Command,
            sequence: self.sequence + 1,
            durable: self.durable,
            time_ms,
            wall_ns,
            previous: self.previous,
        };
        let write = |out: &mut Vec<u8>| record::write_command(out, arguments.from(0));
        self.previous = record::append(&mut self.pending, self.superblock.salt, &head, write);
        self.sequence = head.sequence;
        if self.pending.len() >= PENDING_BYTES_MAX {
            self.commit(time_ms);
        }
    }

    /// Writes what waits, and makes it durable.
    fn commit(&mut self, now_ms: u64) {
        self.committed_ms = now_ms;
        if self.failed.is_some() {
            return;
        }
        let place = self.superblock.half_place() + self.end;
        let pending = core::mem::take(&mut self.pending);
        let written = write_at(&mut *self.storage, place, &mut self.tail, &pending);
        if let Err(error) = written.and_then(|()| self.storage.flush()) {
            self.failed = Some(error);
            return;
        }
        self.end += pending.len() as u64;
        self.durable = self.sequence;
        self.pending = pending;
        self.pending.clear();
        self.pending.shrink_to(PENDING_BYTES_MAX);
    }
}

/// Writes `bytes` at `place`, behind those of the same block that `tail` holds, which is what it
/// holds of the last block afterwards. The rest of the last block becomes zeros.
pub fn write_at(
    storage: &mut dyn Storage,
    place: u64,
    tail: &mut Vec<u8>,
    bytes: &[u8],
) -> Result<(), StorageError> {
    let block_bytes = storage.block_bytes();
    let start = place - tail.len() as u64;
    let mut blocks = core::mem::take(tail);
    blocks.extend_from_slice(bytes);
    let used = blocks.len();
    blocks.resize(used.next_multiple_of(block_bytes), 0);
    storage.write(start, &blocks)?;
    tail.extend_from_slice(blocks.get(used - used % block_bytes..used).unwrap_or_default());
    Ok(())
}
