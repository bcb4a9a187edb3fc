//! Logs, read and altered through the library: every record that comes out of here is valid in itself.

use lockstep_logging_channel::{Entry, Existing, LogReader, LogWriter};
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
