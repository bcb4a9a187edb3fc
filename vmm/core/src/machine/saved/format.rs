//! Sections: the pieces in which a saved state is stored or sent.
//!
//! ```text
//!   kind u16 | reserved u16 | length u32 | digest, 16 bytes | body        numbers little-endian
//! ```
//!
//! The digest covers the eight bytes before it and the body. The format version is outside: whoever
//! carries sections says it once. Kinds and structures never change their meaning; what is new
//! takes a new kind, which an older reader refuses by its number.

use super::pages::PAGE_BYTES;
use super::{Page, SITES_MAX, SavedError, SavedMachine};
use crate::machine::cpu::saved::{COMPONENT_BYTES_MAX, COMPONENTS_MAX, LIST_MAX};
use crate::machine::devices::board::DEVICES_MAX;
use crate::machine::disk::{DISKS_MAX, IN_FLIGHT_BYTES_MAX, IN_FLIGHT_MAX, REQUEST_BYTES_MAX};
use lockstep_logging_channel::Digest;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Version of the format.
pub const VERSION: u16 = 1;
/// Bytes before a body.
pub const HEADER_BYTES: usize = 24;
/// Pages in one section.
pub const PAGES_MAX: usize = 64;
const PAGE_RECORD_BYTES: usize = 8 + PAGE_BYTES;
const PAGES_BYTES_MAX: usize = PAGES_MAX * PAGE_RECORD_BYTES;
/// Room for what has a bound of its own: components (508 KiB), sites of at most 16 bytes (1 MiB),
/// devices of 4 KiB (256 KiB), what four disks are to write (2.5 MiB), two lists of 16 bytes an entry; and 64 KiB for the fixed rest, which
/// takes about 2.
const MACHINE_BYTES_MAX: usize = COMPONENTS_MAX * (COMPONENT_BYTES_MAX + 4)
    + SITES_MAX * 16
    + DEVICES_MAX * 4096
    + DISKS_MAX * DISK_BYTES_MAX
    + 2 * LIST_MAX * 16
    + (64 << 10);
/// What a disk is to write, and for each request that is not done 33 pieces of at most 15 bytes and
/// 64 for the rest.
const DISK_BYTES_MAX: usize =
    IN_FLIGHT_BYTES_MAX as usize + REQUEST_BYTES_MAX as usize + IN_FLIGHT_MAX * (33 * 15 + 64);
const END_BYTES_MAX: usize = 64;

/// The end: what came before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct End {
    /// Pages.
    pub pages: u64,
    /// Digest of the digests of all sections before, in their order.
    pub sections: Digest,
}

/// Position in the log of a live machine at which its state was captured: a replay from there on
/// begins with the entry after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct LogPosition {
    /// Number of the last entry before.
    pub sequence: u64,
    /// The latest guest monotonic time up to there, in nanoseconds.
    pub monotonic_ns: u64,
    /// The latest time-stamp counter up to there.
    pub tsc: u64,
    /// The latest wall time up to there, in nanoseconds.
    pub wall_ns: u64,
}

/// One section.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Section {
    /// The machine without its memory.
    Machine(Box<SavedMachine>),
    /// Pages of its memory, in ascending order.
    Pages(Vec<Page>),
    /// The end.
    End(End),
    /// Position in the log.
    Log(LogPosition),
}

/// Kind of a section.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// [`Section::Machine`].
    Machine = 1,
    /// [`Section::Pages`].
    Pages = 2,
    /// [`Section::End`].
    End = 3,
    /// [`Section::Log`].
    Log = 4,
}

impl Kind {
    fn of(number: u16) -> Result<Self, SavedError> {
        match number {
            1 => Ok(Self::Machine),
            2 => Ok(Self::Pages),
            3 => Ok(Self::End),
            4 => Ok(Self::Log),
            kind => Err(SavedError::UnknownSection { kind }),
        }
    }

    /// The section's name in messages.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Machine => "machine",
            Self::Pages => "memory",
            Self::End => "end",
            Self::Log => "position in the log",
        }
    }

    fn body_bytes_max(self) -> usize {
        match self {
            Self::Machine => MACHINE_BYTES_MAX,
            Self::Pages => PAGES_BYTES_MAX,
            Self::End | Self::Log => END_BYTES_MAX,
        }
    }
}

/// The header of a section that was read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// Its kind.
    pub kind: Kind,
    /// Length of the body, within the kind's bound.
    pub body_bytes: usize,
    /// The digest that it claims.
    pub digest: Digest,
    covered: [u8; 8],
}

impl Section {
    /// Its kind.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Machine(_) => Kind::Machine,
            Self::Pages(_) => Kind::Pages,
            Self::End(_) => Kind::End,
            Self::Log(_) => Kind::Log,
        }
    }

    /// Its bytes, header and body, and its digest.
    #[must_use]
    pub fn encode(&self) -> (Vec<u8>, Digest) {
        // These plain structures always have an encoding; an empty one would be refused by the
        // reader.
        let (kind, body) = match self {
            Self::Machine(machine) => (Kind::Machine, postcard::to_stdvec(machine).unwrap_or_default()),
            Self::Pages(pages) => (Kind::Pages, encode_pages(pages)),
            Self::End(end) => (Kind::End, postcard::to_stdvec(end).unwrap_or_default()),
            Self::Log(position) => (Kind::Log, postcard::to_stdvec(position).unwrap_or_default()),
        };
        let mut covered = [0; 8];
        let [low, high, _, _, length @ ..] = &mut covered;
        [*low, *high] = (kind as u16).to_le_bytes();
        *length = (body.len() as u32).to_le_bytes();
        let digest = digest_of(covered, &body);
        let bytes = [covered.as_slice(), &digest.0, &body].concat();
        (bytes, digest)
    }

    /// The section that has this header and body.
    ///
    /// # Errors
    /// [`SavedError`]: a damaged or malformed body.
    pub fn decode(header: &Header, body: &[u8]) -> Result<Self, SavedError> {
        let section = header.kind.name();
        if digest_of(header.covered, body) != header.digest {
            return Err(SavedError::Damaged { section });
        }
        Ok(match header.kind {
            Kind::Machine => Self::Machine(Box::new(whole(body, section)?)),
            Kind::Pages => Self::Pages(decode_pages(body)?),
            Kind::End => Self::End(whole(body, section)?),
            Kind::Log => Self::Log(whole(body, section)?),
        })
    }
}

impl Header {
    /// Reads a header.
    ///
    /// # Errors
    /// [`SavedError`]: an unknown kind, or a length beyond its bound.
    pub fn decode(bytes: [u8; HEADER_BYTES]) -> Result<Self, SavedError> {
        let [
            kind_low,
            kind_high,
            reserved_low,
            reserved_high,
            a,
            b,
            c,
            d,
            digest @ ..,
        ] = bytes;
        let kind = Kind::of(u16::from_le_bytes([kind_low, kind_high]))?;
        let section = kind.name();
        if [reserved_low, reserved_high] != [0, 0] {
            return Err(SavedError::Malformed { section });
        }
        let body_bytes = u32::from_le_bytes([a, b, c, d]);
        let bytes_max = kind.body_bytes_max();
        if body_bytes as usize > bytes_max {
            return Err(SavedError::Length {
                section,
                bytes: body_bytes.into(),
                bytes_max: bytes_max as u64,
            });
        }
        Ok(Self {
            kind,
            body_bytes: body_bytes as usize,
            digest: Digest(digest),
            covered: [kind_low, kind_high, reserved_low, reserved_high, a, b, c, d],
        })
    }
}

fn digest_of(covered: [u8; 8], body: &[u8]) -> Digest {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&covered).update(body);
    Digest::from_hash(&hasher.finalize())
}

/// A structure that takes up the whole body.
fn whole<S: DeserializeOwned>(body: &[u8], section: &'static str) -> Result<S, SavedError> {
    match postcard::take_from_bytes(body) {
        Ok((structure, [])) => Ok(structure),
        _ => Err(SavedError::Malformed { section }),
    }
}

fn encode_pages(pages: &[Page]) -> Vec<u8> {
    let mut body = Vec::with_capacity(pages.len() * PAGE_RECORD_BYTES);
    for Page { index, bytes } in pages {
        body.extend_from_slice(&index.to_le_bytes());
        body.extend_from_slice(bytes);
    }
    body
}

fn decode_pages(body: &[u8]) -> Result<Vec<Page>, SavedError> {
    let malformed = || SavedError::Malformed {
        section: Kind::Pages.name(),
    };
    let (records, rest) = body.as_chunks::<PAGE_RECORD_BYTES>();
    if records.is_empty() || !rest.is_empty() {
        return Err(malformed());
    }
    let page = |record: &[u8; PAGE_RECORD_BYTES]| {
        let (index, bytes) = record.split_first_chunk()?;
        Some(Page {
            index: u64::from_le_bytes(*index),
            bytes: *bytes.first_chunk()?,
        })
    };
    records
        .iter()
        .map(|record| page(record).ok_or_else(malformed))
        .collect()
}
