//! The header of a file with the disks of a snapshot.

use super::{DISKS_VERSION, MAGIC, SnapshotError};
use crate::replica::snapshot::Recording;
use lockstep_logging_channel::Digest;
use zerocopy::little_endian::{U16, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of the header.
pub const DISKS_HEADER_BYTES: usize = 128;
/// Bytes of it that its digest covers.
const COVERED_BYTES: usize = DISKS_HEADER_BYTES - 16;

/// The file before one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Before {
    /// Entry of its snapshot.
    pub entry: u64,
    /// Digest of its header.
    pub digest: Digest,
}

/// Description of a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DisksHeader {
    /// Name of the recording: that of its environment entry.
    pub recording: [u8; 16],
    /// Digest of the recording's machine ([`machine_digest`](crate::replica::snapshot::machine_digest)).
    pub machine: Digest,
    /// Number of the first entry that a replay from the snapshot meets.
    pub entry: u64,
    /// The file before it; none where it has everything that differs from the base.
    pub before: Option<Before>,
    /// Records.
    pub records: u64,
    /// Bytes of all records.
    pub body_bytes: u64,
    /// Digest of all heads.
    pub heads: Digest,
}

/// The header as it is in a file.
#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Raw {
    magic: [u8; 4],
    version: U16,
    reserved: U16,
    recording: [u8; 16],
    machine: [u8; 16],
    entry: U64,
    /// 0 where there is none: entry 0 is the environment.
    before_entry: U64,
    before_digest: [u8; 16],
    records: U64,
    body_bytes: U64,
    heads: [u8; 16],
    reserved_too: [u8; 8],
    digest: [u8; 16],
}

const _: () = assert!(size_of::<Raw>() == DISKS_HEADER_BYTES);

impl DisksHeader {
    /// The bytes of the header.
    #[must_use]
    pub fn encode(&self) -> [u8; DISKS_HEADER_BYTES] {
        let mut bytes = [0; DISKS_HEADER_BYTES];
        bytes.copy_from_slice(self.raw().as_bytes());
        bytes
    }

    /// The file that it is the header of, as the next one names it.
    #[must_use]
    pub fn as_before(&self) -> Before {
        Before {
            entry: self.entry,
            digest: Digest(self.raw().digest),
        }
    }

    fn raw(&self) -> Raw {
        let Self {
            recording,
            machine,
            entry,
            before,
            records,
            body_bytes,
            heads,
        } = *self;
        let mut raw = Raw {
            magic: MAGIC,
            version: DISKS_VERSION.into(),
            reserved: 0.into(),
            recording,
            machine: machine.0,
            entry: entry.into(),
            before_entry: before.map_or(0, |before| before.entry).into(),
            before_digest: before.map_or([0; 16], |before| before.digest.0),
            records: records.into(),
            body_bytes: body_bytes.into(),
            heads: heads.0,
            reserved_too: [0; 8],
            digest: [0; 16],
        };
        raw.digest = raw.computed().0;
        raw
    }

    /// Reads a header.
    ///
    /// # Errors
    /// [`SnapshotError`]: other bytes, another version, or a header that was changed.
    pub fn decode(bytes: &[u8; DISKS_HEADER_BYTES]) -> Result<Self, SnapshotError> {
        let raw: Raw = zerocopy::transmute!(*bytes);
        if raw.magic != MAGIC {
            return Err(SnapshotError::ForeignDisks);
        }
        if raw.version.get() != DISKS_VERSION {
            return Err(SnapshotError::Version {
                found: raw.version.get(),
                known: DISKS_VERSION,
            });
        }
        let header = Self {
            recording: raw.recording,
            machine: Digest(raw.machine),
            entry: raw.entry.get(),
            before: (raw.before_entry.get() > 0).then(|| Before {
                entry: raw.before_entry.get(),
                digest: Digest(raw.before_digest),
            }),
            records: raw.records.get(),
            body_bytes: raw.body_bytes.get(),
            heads: Digest(raw.heads),
        };
        // Its fields say everything, and files only become older.
        let is_older = header.before.is_none_or(|before| before.entry < header.entry);
        if header.encode() != *bytes || !is_older {
            return Err(SnapshotError::Damaged { part: "header" });
        }
        Ok(header)
    }

    /// Refuses the file of another recording.
    ///
    /// # Errors
    /// [`SnapshotError`] naming what differs.
    pub fn check(&self, recording: &Recording) -> Result<(), SnapshotError> {
        recording.check_name_and_machine(&self.recording, self.machine)
    }
}

impl Raw {
    fn computed(&self) -> Digest {
        let covered = self.as_bytes().split_at(COVERED_BYTES).0;
        Digest::of(covered)
    }
}
