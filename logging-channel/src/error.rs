//! What can be wrong with a record or with a log file.

use std::io;
use std::path::PathBuf;

use crate::{Kind, Sequence};

/// A record that cannot be encoded or decoded, or a log file that cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// The first bytes are not the magic of a record.
    #[error("not a Lockstep record: it starts with bytes {found:02x?}")]
    NotALog {
        /// The four bytes found.
        found: [u8; 4],
    },
    /// Written in a format this software does not read.
    #[error(
        "log format version {found}, but this software reads up to {supported}: use the same version on both sides"
    )]
    FormatVersion {
        /// Version of the record.
        found: u16,
        /// The newest that this software reads.
        supported: u16,
    },
    /// A body longer than any record may have.
    #[error("a record body of {length} bytes, the most is {max}")]
    Oversized {
        /// Length of the body.
        length: usize,
        /// The most that is allowed.
        max: usize,
    },
    /// A record without room for the place of an entry.
    #[error("a compact record of {length} bytes, the fewest are {min}")]
    Undersized {
        /// Length that it claims.
        length: usize,
        /// The fewest that are allowed.
        min: usize,
    },
    /// The bytes are not those that were written.
    #[error("checksum {found:08x} where the record's bytes give {computed:08x}: the record is damaged")]
    Checksum {
        /// In the record.
        found: u32,
        /// Of the record.
        computed: u32,
    },
    /// The record goes on after the bytes there are.
    #[error("record cut short: {needed} bytes needed, {available} there")]
    Truncated {
        /// Bytes the record has, as far as is known.
        needed: usize,
        /// Bytes there are.
        available: usize,
    },
    /// A sound record of a kind this software does not know.
    #[error("record of unknown kind {kind}")]
    UnknownKind {
        /// Its number.
        kind: u16,
    },
    /// A sound record with flags or reserved fields this software does not know.
    #[error("record with unknown flags {flags:#06x} or reserved field {reserved:#06x}")]
    UnknownFlags {
        /// The flags.
        flags: u16,
        /// The reserved field.
        reserved: u16,
    },
    /// A sound record whose body is not one of its kind.
    #[error("malformed record of kind {kind}")]
    Malformed {
        /// Its kind.
        kind: Kind,
    },
    /// A kind of record that has no place here.
    #[error("record of kind {found} where {expected} was expected")]
    Misplaced {
        /// What should be here.
        expected: &'static str,
        /// What is here.
        found: Kind,
    },
    /// An entry is missing, doubled or displaced.
    #[error("entry {} where entry {} was expected", found.0, expected.0)]
    OutOfOrder {
        /// Sequence number that should be here.
        expected: Sequence,
        /// Sequence number that is here.
        found: Sequence,
    },
    /// An entry lies before its predecessor in the execution, or belongs to an earlier generation.
    #[error("entry {} goes back to {field} {found} after {previous}", sequence.0)]
    Backwards {
        /// The entry.
        sequence: Sequence,
        /// What went back: `generation`, `exit` or `instruction`.
        field: &'static str,
        /// Its value in the entry.
        found: u64,
        /// Its value in the entry before.
        previous: u64,
    },
    /// A log file is damaged inside.
    #[error("log {} is damaged at byte {offset}, after {entries} good entries", path.display())]
    Damaged {
        /// The log file.
        path: PathBuf,
        /// Where the record that cannot be read begins.
        offset: u64,
        /// Good entries before it.
        entries: u64,
        /// What is wrong there.
        #[source]
        source: Box<LogError>,
    },
    /// A log file ends without an end entry: its recording was cut off.
    #[error(
        "log {} is cut off at byte {offset}, after {entries} good entries and {partial_bytes} bytes of another: it has no end entry",
        path.display()
    )]
    CutOff {
        /// The log file.
        path: PathBuf,
        /// Where the last good entry ends.
        offset: u64,
        /// Good entries before it.
        entries: u64,
        /// Bytes after the last good entry.
        partial_bytes: u64,
    },
    /// A log file ends before an entry that was known to be in it.
    #[error(
        "log {} is cut off: it has {bytes} bytes, and entry {} begins at byte {offset}",
        path.display(), entry.0
    )]
    TooShort {
        /// The log file.
        path: PathBuf,
        /// Its bytes.
        bytes: u64,
        /// The entry.
        entry: Sequence,
        /// Byte at which that entry began.
        offset: u64,
    },
    /// The log file is there already.
    #[error("log {} exists already: choose another name, or allow it to be overwritten", path.display())]
    Exists {
        /// The log file.
        path: PathBuf,
    },
    /// The system refuses an operation on a log file.
    #[error("cannot {operation} log {}", path.display())]
    File {
        /// What was tried.
        operation: &'static str,
        /// The log file.
        path: PathBuf,
        /// Why not.
        #[source]
        source: io::Error,
    },
}
