//! Records as bytes, for log entries and channel messages: `docs/log-format.md`.
//!
//! A record is a fixed little-endian header, which every later version can read, and a body, the
//! postcard encoding of the structure of that kind. Entries behind an environment have a compact
//! form in place of the header; with one they are read too, from logs of the time before. Nothing
//! here panics on or allocates by what the bytes claim: a body is at most [`BODY_BYTES_MAX`], and it
//! is there before it is decoded.

mod body;
mod compact;

use crc_fast::{CrcAlgorithm, Digest as Crc};
use serde::Serialize;
use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::done::DoneEvent;
pub use crate::message::BODY_BYTES_MAX;
use crate::short::ShortBeginning;
use crate::{Body, Entry, ExecutionPoint, Generation, Kind, LogError, Message, Sequence};

/// The format this software writes.
pub const FORMAT_VERSION: u16 = 2;

/// The oldest format that it reads.
pub const FORMAT_VERSION_MIN: u16 = 1;

/// First bytes of every header.
pub const MAGIC: [u8; 4] = *b"LSTP";

/// Bytes of a header: 4 magic, 4 × 2, 4 body length, 4 × 8, 4 generation, 4 checksum.
pub const HEADER_BYTES: usize = 56;

/// First byte of a compact record.
pub const COMPACT_MARK: u8 = compact::MARK;

/// Bytes that show whether a record is compact, and if so its length: 1 mark, 3 length.
pub const COMPACT_FRAME_BYTES: usize = compact::FRAME_BYTES;

/// The shortest record.
pub const RECORD_BYTES_MIN: usize = compact::RECORD_BYTES_MIN;

/// The longest record.
pub const RECORD_BYTES_MAX: usize = HEADER_BYTES + BODY_BYTES_MAX;

/// One record of a log or channel.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// A log entry.
    Entry(Entry),
    /// A channel message.
    Message(Message),
}

impl Record {
    /// What it is.
    #[must_use]
    pub fn kind(&self) -> Kind {
        match self {
            Self::Entry(entry) => entry.body.kind(),
            Self::Message(message) => message.kind(),
        }
    }
}

/// The header as it lies in the bytes.
#[derive(Clone, Copy, Default, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Header {
    magic: [u8; 4],
    format_version: U16,
    kind: U16,
    flags: U16,
    reserved: U16,
    body_length: U32,
    sequence: U64,
    exits: U64,
    instructions: U64,
    rip: U64,
    generation: U32,
    checksum: U32,
}

const _: () = assert!(size_of::<Header>() == HEADER_BYTES);
const _: () = assert!(compact::RECORD_BYTES_MAX <= RECORD_BYTES_MAX);

/// Appends `entry` to `out`.
///
/// # Errors
/// [`LogError::Oversized`]; `out` is then as it was.
pub fn encode_entry(entry: &Entry, out: &mut Vec<u8>) -> Result<(), LogError> {
    let kind = entry.body.kind();
    match &entry.body {
        Body::Environment(body) => {
            let header = Header {
                sequence: entry.sequence.0.into(),
                exits: entry.point.exits.into(),
                instructions: entry.point.instructions.into(),
                rip: entry.point.rip.into(),
                generation: entry.generation.0.into(),
                ..Header::default()
            };
            encode(header, kind, body, out)
        }
        Body::Value(body) => encode_compact(entry, kind, body, out),
        Body::Event(body) => match DoneEvent::of(body) {
            Some(done) => encode_compact(entry, kind, &done, out),
            None => encode_compact(entry, kind, body, out),
        },
        Body::Output(body) => encode_compact(entry, kind, body, out),
        Body::Digests(body) => encode_compact(entry, kind, body, out),
        Body::End(body) => encode_compact(entry, kind, body, out),
        Body::Part(body) => encode_compact(entry, kind, body, out),
        Body::CommonPoint(body) => encode_compact(entry, kind, body, out),
        Body::HeldOutput(body) => encode_compact(entry, kind, body, out),
        Body::DiskWrite(body) => encode_compact(entry, kind, body, out),
        Body::DiskChange(body) => encode_compact(entry, kind, body, out),
    }
}

/// Appends `message` to `out`. The fields of the header that place an entry are 0.
///
/// # Errors
/// [`LogError::Oversized`]; `out` is then as it was.
pub fn encode_message(message: &Message, out: &mut Vec<u8>) -> Result<(), LogError> {
    let header = Header::default();
    let kind = message.kind();
    match message {
        Message::Hello(body) => encode(header, kind, body, out),
        Message::Welcome(body) => encode(header, kind, body, out),
        Message::Refused(body) => encode(header, kind, body, out),
        Message::Acknowledge(body) => encode(header, kind, body, out),
        Message::Heartbeat(body) => encode(header, kind, body, out),
        Message::Goodbye(body) => encode(header, kind, body, out),
        Message::Probe(body) => encode(header, kind, body, out),
        Message::Measured(body) => encode(header, kind, body, out),
        Message::Beginning(body) => encode(header, kind, body, out),
        Message::Piece(body) => encode(header, kind, body, out),
        Message::Loaded => encode(header, kind, &(), out),
        Message::Armed(body) => encode(header, kind, body, out),
        Message::Handover(body) => encode(header, kind, body, out),
        Message::Diverged(body) => encode(header, kind, body, out),
    }
}

fn encode(header: Header, kind: Kind, body: &impl Serialize, out: &mut Vec<u8>) -> Result<(), LogError> {
    whole(out, |start, out| encode_at(start, header, kind, body, out))
}

fn encode_compact(
    entry: &Entry,
    kind: Kind,
    body: &impl Serialize,
    out: &mut Vec<u8>,
) -> Result<(), LogError> {
    whole(out, |start, out| {
        compact::encode_at(start, entry, kind, body, out)
    })
}

/// Has `append` append to `out`, which is as it was where that fails.
fn whole(
    out: &mut Vec<u8>,
    append: impl FnOnce(usize, &mut Vec<u8>) -> Result<(), LogError>,
) -> Result<(), LogError> {
    let start = out.len();
    let result = append(start, out);
    if result.is_err() {
        out.truncate(start);
    }
    result
}

fn encode_at(
    start: usize,
    header: Header,
    kind: Kind,
    body: &impl Serialize,
    out: &mut Vec<u8>,
) -> Result<(), LogError> {
    out.extend_from_slice(&[0; HEADER_BYTES]);
    body::encode(kind, body, out)?;
    let record = out.get_mut(start..).unwrap_or_default();
    let Ok((place, body)) = Header::mut_from_prefix(record) else {
        return Err(LogError::Malformed { kind });
    };
    let length = body.len();
    *place = Header {
        magic: MAGIC,
        format_version: FORMAT_VERSION.into(),
        kind: kind.number().into(),
        body_length: (length as u32).into(),
        ..header
    };
    place.checksum = checksum(place, body).into();
    Ok(())
}

/// CRC-32C of the header with its checksum field 0, then the body.
fn checksum(header: &Header, body: &[u8]) -> u32 {
    let mut crc = Crc::new(CrcAlgorithm::Crc32Iscsi);
    crc.update(
        Header {
            checksum: 0.into(),
            ..*header
        }
        .as_bytes(),
    );
    crc.update(body);
    crc.finalize() as u32
}

/// Length of the record of which `bytes` are the beginning. Needs its header only, and of a compact
/// record [`COMPACT_FRAME_BYTES`].
///
/// # Errors
/// [`LogError::Truncated`] where these are not there yet, [`LogError::NotALog`] (as soon as the
/// first bytes show it), [`LogError::FormatVersion`], [`LogError::Oversized`] and
/// [`LogError::Undersized`].
pub fn record_length(bytes: &[u8]) -> Result<usize, LogError> {
    if is_compact(bytes) {
        return compact::record_length(bytes);
    }
    check_magic(bytes)?;
    let Ok((header, _)) = Header::ref_from_prefix(bytes) else {
        return Err(LogError::Truncated {
            needed: HEADER_BYTES,
            available: bytes.len(),
        });
    };
    let found = header.format_version.get();
    if !(FORMAT_VERSION_MIN..=FORMAT_VERSION).contains(&found) {
        return Err(LogError::FormatVersion {
            found,
            supported: FORMAT_VERSION,
        });
    }
    let length = header.body_length.get() as usize;
    if length > BODY_BYTES_MAX {
        return Err(LogError::Oversized {
            length,
            max: BODY_BYTES_MAX,
        });
    }
    Ok(HEADER_BYTES + length)
}

fn is_compact(bytes: &[u8]) -> bool {
    bytes.first() == Some(&COMPACT_MARK)
}

/// Checks as many bytes of the magic as there are.
fn check_magic(bytes: &[u8]) -> Result<(), LogError> {
    if bytes
        .iter()
        .zip(&MAGIC)
        .all(|(found, expected)| found == expected)
    {
        return Ok(());
    }
    let mut found = [0; 4];
    for (to, from) in found.iter_mut().zip(bytes) {
        *to = *from;
    }
    Err(LogError::NotALog { found })
}

/// The first record in `bytes`, and how many bytes it takes.
///
/// # Errors
/// Any of a record: [`LogError::Truncated`] where more bytes are needed, else what is wrong with
/// it.
pub fn decode(bytes: &[u8]) -> Result<(Record, usize), LogError> {
    let length = record_length(bytes)?;
    let truncated = LogError::Truncated {
        needed: length,
        available: bytes.len(),
    };
    let record = bytes.get(..length).ok_or(truncated)?;
    if is_compact(record) {
        return Ok((Record::Entry(compact::decode(record)?), length));
    }
    let Ok((header, body)) = Header::ref_from_prefix(record) else {
        return Err(LogError::Truncated {
            needed: length,
            available: record.len(),
        });
    };
    check_header(header, body)?;
    let number = header.kind.get();
    let kind = Kind::from_number(number).ok_or(LogError::UnknownKind { kind: number })?;
    let record = if kind.is_entry() {
        Record::Entry(Entry {
            generation: Generation(header.generation.get()),
            sequence: Sequence(header.sequence.get()),
            point: ExecutionPoint {
                exits: header.exits.get(),
                instructions: header.instructions.get(),
                rip: header.rip.get(),
            },
            body: body::of_entry(kind, body)?,
        })
    } else {
        Record::Message(decode_message_body(header, kind, body)?)
    };
    Ok((record, length))
}

/// The first record in `bytes`, which must be a log entry, and how many bytes it takes.
///
/// # Errors
/// As [`decode`], and [`LogError::Misplaced`] for a channel message.
pub fn decode_entry(bytes: &[u8]) -> Result<(Entry, usize), LogError> {
    match decode(bytes)? {
        (Record::Entry(entry), length) => Ok((entry, length)),
        (Record::Message(message), _) => Err(LogError::Misplaced {
            expected: "a log entry",
            found: message.kind(),
        }),
    }
}

fn check_header(header: &Header, body: &[u8]) -> Result<(), LogError> {
    let (found, computed) = (header.checksum.get(), checksum(header, body));
    if found != computed {
        return Err(LogError::Checksum { found, computed });
    }
    let (flags, reserved) = (header.flags.get(), header.reserved.get());
    if (flags, reserved) != (0, 0) {
        return Err(LogError::UnknownFlags { flags, reserved });
    }
    Ok(())
}

fn decode_message_body(header: &Header, kind: Kind, body: &[u8]) -> Result<Message, LogError> {
    let placed = [header.sequence, header.exits, header.instructions, header.rip];
    if header.generation.get() != 0 || placed.iter().any(|field| field.get() != 0) {
        return Err(LogError::Malformed { kind });
    }
    Ok(match kind {
        Kind::Hello => Message::Hello(body::decode(kind, body)?),
        Kind::Welcome => Message::Welcome(body::decode(kind, body)?),
        Kind::Refused => Message::Refused(body::decode(kind, body)?),
        Kind::Acknowledge => Message::Acknowledge(body::decode(kind, body)?),
        Kind::Heartbeat => Message::Heartbeat(body::decode(kind, body)?),
        Kind::Goodbye => Message::Goodbye(body::decode(kind, body)?),
        Kind::Probe => Message::Probe(body::decode(kind, body)?),
        Kind::Measured => Message::Measured(body::decode(kind, body)?),
        Kind::ShortBeginning => Message::Beginning(body::decode::<ShortBeginning>(kind, body)?.into()),
        Kind::Beginning => Message::Beginning(body::decode(kind, body)?),
        Kind::Piece => Message::Piece(body::decode(kind, body)?),
        Kind::Loaded => {
            body::decode::<()>(kind, body)?;
            Message::Loaded
        }
        Kind::Armed => Message::Armed(body::decode(kind, body)?),
        Kind::Handover => Message::Handover(body::decode(kind, body)?),
        Kind::Diverged => Message::Diverged(body::decode(kind, body)?),
        found => {
            return Err(LogError::Misplaced {
                expected: "a channel message",
                found,
            });
        }
    })
}
