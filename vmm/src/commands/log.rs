//! `lockstep log info|dump|diff`: looks into log files.

use crate::printing::{print_text, printed};
use crate::status::{CommandError, Status};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use lockstep_host::error::RunError;
use lockstep_host::recording::folder::Kind as FileKind;
use lockstep_host::recording::{Folder, Named};
use lockstep_logging_channel::diff::{Diff, diff};
use lockstep_logging_channel::dump::{DumpError, DumpFilter, DumpFormat, dump};
use lockstep_logging_channel::info::LogInfo;
use lockstep_logging_channel::view::entry_kinds;
use lockstep_logging_channel::{Kind, LogReader};
use lockstep_process::writing::standard::Printer;
use serde::Serialize;
use std::fmt;
use std::io::{BufWriter, Write};
use std::path::{Path, PathBuf};

/// What to look at.
#[derive(Clone, Debug, clap::Subcommand)]
pub enum LogCommand {
    /// What a log holds: entries by kind, bytes, environment, end
    Info {
        /// The log file
        log: PathBuf,
        /// One JSON object
        #[arg(long)]
        json: bool,
    },
    /// Every entry on a line
    Dump {
        /// The log file
        log: PathBuf,
        /// One JSON object a line
        #[arg(long)]
        json: bool,
        /// Begin at this entry
        #[arg(long, default_value_t = 0, value_name = "SEQUENCE")]
        from: u64,
        /// End with this entry
        #[arg(long, default_value_t = u64::MAX, hide_default_value = true, value_name = "SEQUENCE")]
        to: u64,
        /// Only entries of this kind (may be given several times)
        #[arg(long = "kind", value_name = "KIND", value_parser = kind_parser())]
        kinds: Vec<Kind>,
    },
    /// The first entry in which two logs differ; status 1 if they do
    Diff {
        /// One log file
        left: PathBuf,
        /// Another
        right: PathBuf,
    },
}

/// Carries `command` out.
///
/// # Errors
/// [`CommandError`]; for a damaged log after printing what is good of it.
pub fn log(command: &LogCommand) -> Result<Status, CommandError> {
    match command {
        LogCommand::Info { log, json } => info(log, *json),
        LogCommand::Dump {
            log,
            json,
            from,
            to,
            kinds,
        } => {
            let format = if *json {
                DumpFormat::JsonLines
            } else {
                DumpFormat::Text
            };
            if from > to {
                let why = format!("--from {from} is behind --to {to}: no entry is between them");
                return Err(CommandError::Usage { why });
            }
            let filter = DumpFilter {
                sequences: *from..=*to,
                kinds: (!kinds.is_empty()).then(|| kinds.clone()),
            };
            dump_to_stdout(log, format, &filter)
        }
        LogCommand::Diff { left, right } => {
            let found = diff(&mut LogReader::open(left)?, &mut LogReader::open(right)?)?;
            let status = if matches!(found, Diff::Same { .. }) {
                Status::Success
            } else {
                Status::Failure
            };
            print_text(&format!("{found}\n"), status)
        }
    }
}

fn kind_parser() -> impl TypedValueParser<Value = Kind> {
    PossibleValuesParser::new(entry_kinds().map(Kind::name)).try_map(|name| {
        let named = entry_kinds().find(|kind| kind.name() == name);
        named.ok_or("there is no such kind of entry")
    })
}

/// Output of `lockstep log info`.
#[derive(Serialize)]
struct Info {
    #[serde(flatten)]
    log: LogInfo,
    snapshots: Vec<SnapshotInfo>,
}

/// A snapshot of a recording: its header, or why it cannot be used.
#[derive(Serialize)]
struct SnapshotInfo {
    entry: u64,
    bytes: Option<u64>,
    exits: Option<u64>,
    guest_ns: Option<u64>,
    /// Bytes of the file with what its machine's disks got since the snapshot before.
    disk_bytes: Option<u64>,
    error: Option<String>,
}

impl SnapshotInfo {
    fn of(folder: &Folder, named: &Named) -> (Self, Option<RunError>) {
        let disks = folder.path_of(FileKind::Disks, named.entry);
        let header = named.header();
        let place = header.as_ref().ok().map(|header| header.place);
        let info = Self {
            entry: named.entry,
            bytes: named.path.metadata().ok().map(|file| file.len()),
            exits: place.map(|place| place.exits),
            guest_ns: place.map(|place| place.guest_ns),
            disk_bytes: disks.metadata().ok().map(|file| file.len()),
            error: header.as_ref().err().map(ToString::to_string),
        };
        let error = header.err().map(|source| RunError::Snapshot {
            path: named.path.clone(),
            source,
        });
        (info, error)
    }
}

impl fmt::Display for Info {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.log.fmt(formatter)?;
        if self.snapshots.is_empty() {
            return Ok(());
        }
        let bytes: u64 = self.snapshots.iter().filter_map(|snapshot| snapshot.bytes).sum();
        writeln!(
            formatter,
            "snapshots     {} in {bytes} bytes",
            self.snapshots.len()
        )?;
        for SnapshotInfo {
            entry,
            bytes,
            exits,
            guest_ns,
            disk_bytes,
            error,
        } in &self.snapshots
        {
            let bytes = bytes.unwrap_or_default();
            let disks = disk_bytes.map_or_else(String::new, |bytes| format!(", disks {bytes} bytes"));
            match (exits, guest_ns, error) {
                (Some(exits), Some(ns), None) => {
                    let (seconds, rest) = (ns / 1_000_000_000, ns % 1_000_000_000);
                    writeln!(
                        formatter,
                        "  entry {entry}, exit {exits}, guest time {seconds}.{rest:09} s, {bytes} bytes{disks}"
                    )?;
                }
                (.., error) => {
                    let why = error.as_deref().unwrap_or_default();
                    writeln!(formatter, "  entry {entry}, {bytes} bytes: {why}")?;
                }
            }
        }
        Ok(())
    }
}

fn info(log: &Path, json: bool) -> Result<Status, CommandError> {
    let folder = Folder::of(log);
    let (snapshots, errors): (Vec<_>, Vec<_>) = folder
        .list()?
        .iter()
        .map(|named| SnapshotInfo::of(&folder, named))
        .unzip();
    let info = Info {
        log: LogInfo::of(&mut LogReader::open(log)?),
        snapshots,
    };
    let text = if json {
        serde_json::to_string(&info).map_err(|why| RunError::Other {
            what: "cannot write JSON".to_owned(),
            source: Box::new(why),
        })?
    } else {
        info.to_string()
    };
    let printed = print_text(&format!("{text}\n"), Status::Success);
    let damaged = info.log.fault.map(RunError::from);
    match damaged.or_else(|| errors.into_iter().flatten().next()) {
        Some(why) => Err(why.into()),
        None => printed,
    }
}

fn dump_to_stdout(log: &Path, format: DumpFormat, filter: &DumpFilter) -> Result<Status, CommandError> {
    let mut stdout = BufWriter::new(Printer::new());
    let mut reader = LogReader::open(log)?;
    let outcome = dump(&mut reader, filter, format, &mut stdout);
    let flushed = stdout.flush();
    let (entry, entries) = (*filter.sequences.start(), reader.entries());
    match outcome {
        Ok(_) if entries <= entry => Err(RunError::NoEntry {
            log: log.to_owned(),
            entry,
            entries,
        }
        .into()),
        Ok(_) => printed(flushed, Status::Success),
        Err(DumpError::Log(why)) => Err(why.into()),
        Err(DumpError::Output(why)) => printed(Err(why), Status::Success),
    }
}
