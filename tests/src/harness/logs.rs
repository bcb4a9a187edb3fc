//! Logs, read and altered through the library: every record that comes out of here is valid in itself.

use crc_fast::{CrcAlgorithm, checksum};
use lockstep_logging_channel::codec::MAGIC;
use lockstep_logging_channel::{Entry, Existing, LogReader, LogWriter, codec};
use std::fs;
use std::path::Path;

/// Every entry of a log.
///
/// # Panics
/// The log is damaged.
#[must_use]
pub fn read(path: &Path) -> Vec<Entry> {
    let reader = LogReader::open(path).unwrap_or_else(|why| panic!("{}: {why}", path.display()));
    reader
        .collect::<Result<_, _>>()
        .unwrap_or_else(|why| panic!("{}: {why}", path.display()))
}

/// A log of these entries.
///
/// # Panics
/// It cannot be written.
pub fn write(path: &Path, entries: &[Entry]) {
    let written = LogWriter::create(path, Existing::Overwrite).and_then(|mut writer| {
        entries.iter().try_for_each(|entry| writer.append(entry))?;
        writer.flush()
    });
    written.unwrap_or_else(|why| panic!("{}: {why}", path.display()));
}

/// A copy of the log `from` at `to` in which `alter` has changed entries. Gives what `alter` says.
pub fn altered<T>(from: &Path, to: &Path, alter: impl FnOnce(&mut Vec<Entry>) -> T) -> T {
    let mut entries = read(from);
    let said = alter(&mut entries);
    write(to, &entries);
    said
}

/// A copy of the log `from` at `to`, as a lockstep of the first format version has written it: every
/// record has a header (`docs/log-format.md`).
///
/// # Panics
/// The log is damaged, or cannot be written.
pub fn of_the_first_version(from: &Path, to: &Path) {
    let log = fs::read(from).unwrap_or_else(|why| panic!("{}: {why}", from.display()));
    let (mut copy, mut rest) = (Vec::new(), &log[..]);
    while !rest.is_empty() {
        let (entry, length) = codec::decode_entry(rest).unwrap_or_else(|why| panic!("{why}"));
        let (record, next) = rest.split_at(length);
        copy.extend(with_header(&entry, body(record)));
        rest = next;
    }
    fs::write(to, copy).unwrap_or_else(|why| panic!("{}: {why}", to.display()));
}

/// The body of a sound record.
fn body(record: &[u8]) -> &[u8] {
    if record.starts_with(&MAGIC) {
        return &record[codec::HEADER_BYTES..];
    }
    // The kind, then five numbers, the last byte of each below 128; behind the body the checksum.
    let mut body = &record[codec::COMPACT_FRAME_BYTES + 1..record.len() - 4];
    for _ in 0..5 {
        let last = body.iter().position(|byte| *byte < 0x80).expect("a number");
        body = &body[last + 1..];
    }
    body
}

fn with_header(entry: &Entry, body: &[u8]) -> Vec<u8> {
    let point = entry.point;
    let [version, kind] = [1, entry.body.kind().number()].map(u16::to_le_bytes);
    let length = (body.len() as u32).to_le_bytes();
    let place = [entry.sequence.0, point.exits, point.instructions, point.rip].map(u64::to_le_bytes);
    let generation = entry.generation.0.to_le_bytes();
    let header = [
        &MAGIC[..],
        &version,
        &kind,
        &[0; 4],
        &length,
        &place.concat(),
        &generation,
    ]
    .concat();
    let unsealed = [&header, &[0; 4][..], body].concat();
    let sum = (checksum(CrcAlgorithm::Crc32Iscsi, &unsealed) as u32).to_le_bytes();
    [&header, &sum[..], body].concat()
}
