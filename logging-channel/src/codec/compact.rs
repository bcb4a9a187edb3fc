//! Log entries in the compact form, `docs/log-format.md`: where the header of a record has 56 bytes,
//! the place of an entry takes 20 or so.

use super::body;
use crate::message::BODY_BYTES_MAX;
use crate::{Entry, ExecutionPoint, Generation, Kind, LogError, Sequence};
use crc_fast::{CrcAlgorithm, checksum};
use serde::{Deserialize, Serialize};

/// First byte of a record in this form: the format version that brought it.
pub(super) const MARK: u8 = 2;

/// Bytes in front of what the length counts: the mark, and 3 of length.
pub(super) const FRAME_BYTES: usize = 4;
const CHECKSUM_BYTES: usize = 4;
/// A place takes a byte of kind, up to 10 for each of 4 numbers, and up to 5 for the generation.
const PLACE_BYTES_MAX: usize = 1 + 4 * 10 + 5;
const LENGTH_MIN: usize = 6 + CHECKSUM_BYTES;
const LENGTH_MAX: usize = PLACE_BYTES_MAX + BODY_BYTES_MAX + CHECKSUM_BYTES;

/// The shortest record.
pub(super) const RECORD_BYTES_MIN: usize = FRAME_BYTES + LENGTH_MIN;
/// The longest record.
pub(super) const RECORD_BYTES_MAX: usize = FRAME_BYTES + LENGTH_MAX;

const _: () = assert!(LENGTH_MAX < 1 << 24);

/// Fields of a header that place an entry. The pointer is signed: a kernel's is in the upper half, and
/// takes 5 bytes so.
#[derive(Serialize, Deserialize)]
struct Place {
    kind: u8,
    sequence: u64,
    exits: u64,
    instructions: u64,
    rip: i64,
    generation: u32,
}

/// Appends `entry`, whose body is `body`, to `out`. What is there after an error is to be removed.
pub(super) fn encode_at(
    start: usize,
    entry: &Entry,
    kind: Kind,
    body: &impl Serialize,
    out: &mut Vec<u8>,
) -> Result<(), LogError> {
    let place = Place {
        kind: u8::try_from(kind.number()).map_err(|_| LogError::Malformed { kind })?,
        sequence: entry.sequence.0,
        exits: entry.point.exits,
        instructions: entry.point.instructions,
        rip: entry.point.rip.cast_signed(),
        generation: entry.generation.0,
    };
    out.extend_from_slice(&[MARK, 0, 0, 0]);
    body::encode(kind, &place, out)?;
    body::encode(kind, body, out)?;
    let length = out.len() + CHECKSUM_BYTES - start - FRAME_BYTES;
    let [low, middle, high, _] = (length as u32).to_le_bytes();
    if let Some(frame) = out.get_mut(start..).and_then(<[u8]>::first_chunk_mut) {
        *frame = [MARK, low, middle, high];
    }
    let sum = crc(out.get(start..).unwrap_or_default());
    out.extend_from_slice(&sum.to_le_bytes());
    Ok(())
}

/// Length of the record of which `bytes` are the beginning. Needs its first four.
pub(super) fn record_length(bytes: &[u8]) -> Result<usize, LogError> {
    let Some([_, low, middle, high]) = bytes.first_chunk::<FRAME_BYTES>() else {
        return Err(LogError::Truncated {
            needed: FRAME_BYTES,
            available: bytes.len(),
        });
    };
    let length = u32::from_le_bytes([*low, *middle, *high, 0]) as usize;
    if length > LENGTH_MAX {
        return Err(LogError::Oversized {
            length,
            max: LENGTH_MAX,
        });
    }
    if length < LENGTH_MIN {
        return Err(LogError::Undersized {
            length,
            min: LENGTH_MIN,
        });
    }
    Ok(FRAME_BYTES + length)
}

/// The entry in `record`, which is as long as it says.
pub(super) fn decode(record: &[u8]) -> Result<Entry, LogError> {
    let Some((content, sum)) = record.split_last_chunk::<CHECKSUM_BYTES>() else {
        return Err(LogError::Truncated {
            needed: RECORD_BYTES_MIN,
            available: record.len(),
        });
    };
    let (found, computed) = (u32::from_le_bytes(*sum), crc(content));
    if found != computed {
        return Err(LogError::Checksum { found, computed });
    }
    let content = content.get(FRAME_BYTES..).unwrap_or_default();
    let number = content.first().copied().unwrap_or_default().into();
    let kind = Kind::from_number(number).ok_or(LogError::UnknownKind { kind: number })?;
    // An environment has a header, which every version can read.
    let malformed = || LogError::Malformed { kind };
    if kind == Kind::Environment {
        return Err(malformed());
    }
    let (place, body) = postcard::take_from_bytes::<Place>(content).map_err(|_| malformed())?;
    if body.len() > BODY_BYTES_MAX {
        return Err(LogError::Oversized {
            length: body.len(),
            max: BODY_BYTES_MAX,
        });
    }
    Ok(Entry {
        generation: Generation(place.generation),
        sequence: Sequence(place.sequence),
        point: ExecutionPoint {
            exits: place.exits,
            instructions: place.instructions,
            rip: place.rip.cast_unsigned(),
        },
        body: body::of_entry(kind, body)?,
    })
}

fn crc(bytes: &[u8]) -> u32 {
    checksum(CrcAlgorithm::Crc32Iscsi, bytes) as u32
}
