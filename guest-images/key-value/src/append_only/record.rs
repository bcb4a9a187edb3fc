//! Records: a head of eight words, then the body, padded with zeros to whole words.

use crate::arguments::{Arguments, Span};
use crate::request::REQUEST_BYTES_MAX;
use alloc::vec::Vec;
use lockstep_guest_runtime::digest::Digest;

/// "RECO", little-endian.
const MAGIC: u32 = 0x4f43_4552;

/// Bytes of a head.
pub const HEAD_BYTES: usize = 64;
/// Bytes of the grain: a record begins where one does.
pub const WORD_BYTES: usize = 8;
/// Bytes of elements after which a rewrite goes on with a long list, set or hash in a further
/// command.
pub const ELEMENTS_BYTES: usize = 64 << 10;
/// Bytes of the longest body. An argument has at least 6 bytes in its request and 4 beside itself
/// here, so a body is not longer than the request it is of and the count of its arguments. One of a
/// rewrite has a key and an element that came in one request, and fewer than [`ELEMENTS_BYTES`] of
/// others.
pub const BODY_BYTES_MAX: usize = REQUEST_BYTES_MAX + ELEMENTS_BYTES + 64;
/// Bytes of the longest record.
pub const RECORD_BYTES_MAX: usize = HEAD_BYTES + BODY_BYTES_MAX + WORD_BYTES;

/// Subject of a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A command: how many arguments, the length of each, and their bytes.
    Command,
    /// A key's deadline, as milliseconds since 1970, and the key's bytes.
    Deadline,
}

/// Head of a record: all beside its body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Head {
    /// Its subject.
    pub kind: Kind,
    /// Its number, one more than that of the record before.
    pub sequence: u64,
    /// Number of the last record that was durable when this one was made.
    pub durable: u64,
    /// Milliseconds since 1970 when the command was done.
    pub time_ms: u64,
    /// Nanoseconds since 1970 where the command asked for them, or 0.
    pub wall_ns: u64,
    /// Digest of the record before.
    pub previous: u64,
}

/// A head that was read, with what it says of its body.
pub struct Found {
    /// The head.
    pub head: Head,
    /// Bytes of the body.
    pub body_bytes: usize,
    /// Digest of the record.
    pub check: u64,
}

/// Bytes of a record with a body of so many.
pub const fn record_bytes(body_bytes: usize) -> usize {
    HEAD_BYTES + body_bytes.next_multiple_of(WORD_BYTES)
}

/// Appends a record to `out`, with a body that `write` appends. Returns its digest.
pub fn append(out: &mut Vec<u8>, salt: u64, head: &Head, write: impl FnOnce(&mut Vec<u8>)) -> u64 {
    let start = out.len();
    out.resize(start + HEAD_BYTES, 0);
    write(out);
    let body_bytes = out.len() - start - HEAD_BYTES;
    out.resize(start + record_bytes(body_bytes), 0);
    let record = out.get_mut(start..).unwrap_or_default();
    let Some((words, body)) = record.split_at_mut_checked(HEAD_BYTES) else {
        return 0;
    };
    let fields = fields(head, body_bytes as u32);
    let check = check(salt, &fields, body);
    for (word, bytes) in fields.into_iter().chain([check]).zip(words.chunks_exact_mut(8)) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
    check
}

/// The head at the beginning of `bytes`, whose digest was not compared yet.
pub fn read_head(bytes: &[u8]) -> Option<Found> {
    let mut words = [0; HEAD_BYTES / 8];
    for (word, bytes) in words.iter_mut().zip(bytes.get(..HEAD_BYTES)?.as_chunks().0) {
        *word = u64::from_le_bytes(*bytes);
    }
    let [first, sequence, durable, time_ms, wall_ns, previous, kind, check] = words;
    let body_bytes = (first >> 32) as usize;
    if first as u32 != MAGIC || body_bytes > BODY_BYTES_MAX {
        return None;
    }
    let kind = match kind {
        1 => Kind::Command,
        2 => Kind::Deadline,
        _ => return None,
    };
    Some(Found {
        head: Head {
            kind,
            sequence,
            durable,
            time_ms,
            wall_ns,
            previous,
        },
        body_bytes,
        check,
    })
}

impl Found {
    /// True if its digest is that of the head and the body, which `padded` is with its padding.
    pub fn is_whole(&self, salt: u64, padded: &[u8]) -> bool {
        let fields = fields(&self.head, self.body_bytes as u32);
        self.check == check(salt, &fields, padded)
    }
}

fn fields(head: &Head, body_bytes: u32) -> [u64; 7] {
    let kind = match head.kind {
        Kind::Command => 1,
        Kind::Deadline => 2,
    };
    [
        u64::from(MAGIC) | u64::from(body_bytes) << 32,
        head.sequence,
        head.durable,
        head.time_ms,
        head.wall_ns,
        head.previous,
        kind,
    ]
}

fn check(salt: u64, fields: &[u64], padded: &[u8]) -> u64 {
    let mut digest = Digest::default();
    digest.number(salt);
    fields.iter().for_each(|field| digest.number(*field));
    for bytes in padded.as_chunks().0 {
        digest.number(u64::from_le_bytes(*bytes));
    }
    digest.value()
}

/// Bytes of the body of a command with arguments of these lengths.
pub fn command_bytes(lengths: impl Iterator<Item = usize>) -> usize {
    lengths.fold(4, |sum: usize, length| {
        sum.saturating_add(4).saturating_add(length)
    })
}

/// Appends the body of a command.
pub fn write_command<'a>(out: &mut Vec<u8>, arguments: impl Iterator<Item = &'a [u8]> + Clone) {
    let count = arguments.clone().count() as u32;
    out.extend_from_slice(&count.to_le_bytes());
    for argument in arguments.clone() {
        out.extend_from_slice(&(argument.len() as u32).to_le_bytes());
    }
    arguments.for_each(|argument| out.extend_from_slice(argument));
}

/// Reads where the arguments of a command are in its body. None where the body is not one.
pub fn read_command(body: &[u8], spans: &mut Vec<Span>) -> Option<()> {
    let (count, rest) = body.split_first_chunk()?;
    let count = u32::from_le_bytes(*count) as usize;
    let lengths = rest.get(..count.checked_mul(4)?)?;
    let mut start = 4 + lengths.len() as u32;
    spans.clear();
    for length in lengths.as_chunks().0 {
        let length = u32::from_le_bytes(*length);
        spans.push(Span { start, length });
        start = start.checked_add(length)?;
    }
    (start as usize == body.len() && count > 0).then_some(())
}

/// Appends the body of a deadline.
pub fn write_deadline(out: &mut Vec<u8>, deadline_ms: u64, key: &[u8]) {
    out.extend_from_slice(&deadline_ms.to_le_bytes());
    out.extend_from_slice(key);
}

/// Reads the body of a deadline.
pub fn read_deadline(body: &[u8]) -> Option<(u64, &[u8])> {
    let (deadline, key) = body.split_first_chunk()?;
    Some((u64::from_le_bytes(*deadline), key))
}

/// The arguments of a command.
pub fn arguments<'a>(body: &'a [u8], spans: &'a [Span]) -> Arguments<'a> {
    Arguments::new(body, spans)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SALT: u64 = 0x0123_4567_89ab_cdef;

    fn head() -> Head {
        Head {
            kind: Kind::Command,
            sequence: 5,
            durable: 4,
            time_ms: 1_700_000_000_123,
            wall_ns: 0,
            previous: 42,
        }
    }

    fn whole(record: &[u8], salt: u64) -> Option<Head> {
        let found = read_head(record)?;
        let padded = record.get(HEAD_BYTES..record_bytes(found.body_bytes))?;
        found.is_whole(salt, padded).then_some(found.head)
    }

    #[test]
    fn a_record_is_read_as_it_was_written_and_no_bit_may_be_another() {
        let words: [&[u8]; 3] = [b"set", b"key", b"some value"];
        let mut record = Vec::new();
        append(&mut record, SALT, &head(), |out| {
            write_command(out, words.into_iter())
        });

        assert_eq!(record.len() % WORD_BYTES, 0);
        assert_eq!(whole(&record, SALT), Some(head()));
        assert_eq!(whole(&record, SALT + 1), None);
        let body_bytes = read_head(&record).unwrap().body_bytes;
        assert_eq!(body_bytes, command_bytes(words.iter().map(|word| word.len())));
        let mut spans = Vec::new();
        let body = &record[HEAD_BYTES..HEAD_BYTES + body_bytes];
        read_command(body, &mut spans).unwrap();
        let read: Vec<&[u8]> = arguments(body, &spans).from(0).collect();
        assert_eq!(read, words);
        for bit in 0..record.len() * 8 {
            let mut other = record.clone();
            other[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(whole(&other, SALT), None, "bit {bit}");
        }
    }

    #[test]
    fn a_body_that_is_none_is_refused() {
        let mut spans = Vec::new();
        for body in [
            &[][..],
            &[0, 0, 0, 0],
            &[1, 0, 0, 0],
            &[1, 0, 0, 0, 2, 0, 0, 0, 9],
            &[1, 0, 0, 0, 1, 0, 0, 0, 9, 9],
            &[255, 255, 255, 255],
        ] {
            assert_eq!(read_command(body, &mut spans), None, "{body:?}");
        }
    }
}
