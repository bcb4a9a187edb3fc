//! A log, entry by entry: what `lockstep log dump` prints.

use std::io::{self, Read, Write};
use std::ops::RangeInclusive;

use crate::view::EntryView;
use crate::{Entry, Kind, LogError, LogReader};

/// How entries are printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DumpFormat {
    /// One line of text an entry.
    Text,
    /// One JSON object an entry, each on a line.
    JsonLines,
}

/// Which entries are printed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DumpFilter {
    /// Sequence numbers, both ends included.
    pub sequences: RangeInclusive<u64>,
    /// Kinds; `None` for every kind.
    pub kinds: Option<Vec<Kind>>,
}

impl Default for DumpFilter {
    fn default() -> Self {
        Self {
            sequences: 0..=u64::MAX,
            kinds: None,
        }
    }
}

impl DumpFilter {
    fn takes(&self, entry: &Entry) -> bool {
        let kind = entry.body.kind();
        self.sequences.contains(&entry.sequence.0)
            && self.kinds.as_ref().is_none_or(|kinds| kinds.contains(&kind))
    }
}

/// Why a dump stops.
#[derive(Debug, thiserror::Error)]
pub enum DumpError {
    /// The log cannot be read further; what was good before was printed.
    #[error("the dump stops early")]
    Log(#[from] LogError),
    /// The output takes no more.
    #[error("cannot write the dump")]
    Output(#[source] io::Error),
}

/// Prints the entries that `filter` takes, and returns how many those were.
///
/// # Errors
/// [`DumpError`].
pub fn dump(
    log: &mut LogReader<impl Read>,
    filter: &DumpFilter,
    format: DumpFormat,
    out: &mut impl Write,
) -> Result<u64, DumpError> {
    let printed = dump_entries(log, filter, format, out);
    out.flush().map_err(DumpError::Output)?;
    printed
}

fn dump_entries(
    log: &mut LogReader<impl Read>,
    filter: &DumpFilter,
    format: DumpFormat,
    out: &mut impl Write,
) -> Result<u64, DumpError> {
    let mut printed = 0;
    for entry in log {
        let entry = entry?;
        if entry.sequence.0 > *filter.sequences.end() {
            break;
        }
        if filter.takes(&entry) {
            print(&entry, format, out).map_err(DumpError::Output)?;
            printed += 1;
        }
    }
    Ok(printed)
}

fn print(entry: &Entry, format: DumpFormat, out: &mut impl Write) -> io::Result<()> {
    let view = EntryView::from(entry);
    match format {
        DumpFormat::Text => writeln!(out, "{view}"),
        DumpFormat::JsonLines => {
            serde_json::to_writer(&mut *out, &view)?;
            out.write_all(b"\n")
        }
    }
}
