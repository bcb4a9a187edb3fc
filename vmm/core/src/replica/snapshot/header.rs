//! The header: what a snapshot is, without its machine.

use super::{MAGIC, SnapshotError, VERSION};
use lockstep_logging_channel::Digest;
use zerocopy::little_endian::{U16, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Bytes of the header.
pub const HEADER_BYTES: usize = 128;
/// Bytes of it that its digest covers.
const COVERED_BYTES: usize = HEADER_BYTES - 16;

/// Position of a snapshot in its recording.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// Number of the first entry that a replay from it meets.
    pub entry: u64,
    /// Byte of the log at which that entry begins.
    pub log_offset: u64,
    /// Exits of the machine.
    pub exits: u64,
    /// Instructions since the last exit.
    pub instructions: u64,
    /// The latest guest monotonic time in the log up to there, in nanoseconds.
    pub guest_ns: u64,
}

/// Description of a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Name of the recording: that of its environment entry.
    pub recording: [u8; 16],
    /// Digest of the recording's machine ([`machine_digest`](super::machine_digest)).
    pub machine: Digest,
    /// Bytes of guest memory.
    pub memory_bytes: u64,
    /// Position in the recording.
    pub place: Place,
    /// Bytes of all frames.
    pub body_bytes: u64,
    /// Digest of them.
    pub body: Digest,
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
    memory_bytes: U64,
    entry: U64,
    log_offset: U64,
    exits: U64,
    instructions: U64,
    guest_ns: U64,
    body_bytes: U64,
    body: [u8; 16],
    digest: [u8; 16],
}

const _: () = assert!(size_of::<Raw>() == HEADER_BYTES);

impl Header {
    /// The bytes of the header.
    #[must_use]
    pub fn encode(&self) -> [u8; HEADER_BYTES] {
        let Self {
            recording,
            machine,
            memory_bytes,
            place,
            body_bytes,
            body,
        } = *self;
        let mut raw = Raw {
            magic: MAGIC,
            version: VERSION.into(),
            reserved: 0.into(),
            recording,
            machine: machine.0,
            memory_bytes: memory_bytes.into(),
            entry: place.entry.into(),
            log_offset: place.log_offset.into(),
            exits: place.exits.into(),
            instructions: place.instructions.into(),
            guest_ns: place.guest_ns.into(),
            body_bytes: body_bytes.into(),
            body: body.0,
            digest: [0; 16],
        };
        raw.digest = raw.computed().0;
        let mut bytes = [0; HEADER_BYTES];
        bytes.copy_from_slice(raw.as_bytes());
        bytes
    }

    /// Reads a header.
    ///
    /// # Errors
    /// [`SnapshotError`]: other bytes, another version, or a header that was changed.
    pub fn decode(bytes: &[u8; HEADER_BYTES]) -> Result<Self, SnapshotError> {
        let raw: Raw = zerocopy::transmute!(*bytes);
        if raw.magic != MAGIC {
            return Err(SnapshotError::Foreign);
        }
        if raw.version.get() != VERSION {
            return Err(SnapshotError::Version {
                found: raw.version.get(),
                known: VERSION,
            });
        }
        if raw.computed().0 != raw.digest || raw.reserved.get() != 0 {
            return Err(SnapshotError::Damaged { part: "header" });
        }
        Ok(Self {
            recording: raw.recording,
            machine: Digest(raw.machine),
            memory_bytes: raw.memory_bytes.get(),
            place: Place {
                entry: raw.entry.get(),
                log_offset: raw.log_offset.get(),
                exits: raw.exits.get(),
                instructions: raw.instructions.get(),
                guest_ns: raw.guest_ns.get(),
            },
            body_bytes: raw.body_bytes.get(),
            body: Digest(raw.body),
        })
    }
}

impl Raw {
    fn computed(&self) -> Digest {
        let covered = self.as_bytes().split_at(COVERED_BYTES).0;
        Digest::of(covered)
    }
}
