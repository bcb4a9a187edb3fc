//! `lockstep log info|dump|diff`: looks into log files.

use crate::printing::{print_text, printed};
use crate::status::{CommandError, Status};
use lockstep_host::error::RunError;
use lockstep_logging_channel::LogReader;
use lockstep_logging_channel::diff::{Diff, diff};
use lockstep_logging_channel::dump::{DumpError, DumpFilter, DumpFormat, dump};
use lockstep_logging_channel::info::LogInfo;
use lockstep_logging_channel::view::entry_kind_named;
use lockstep_process::writing::standard::Printer;
use std::io::{BufWriter, Write};
use std::path::PathBuf;

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
        /// Only entries of this kind (may be given several times): environment, value, event,
        /// output, digests, end
        #[arg(long = "kind", value_name = "KIND")]
        kinds: Vec<String>,
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
            let filter = DumpFilter {
                sequences: *from..=*to,
                kinds: kinds_named(kinds)?,
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

fn kinds_named(names: &[String]) -> Result<Option<Vec<lockstep_logging_channel::Kind>>, CommandError> {
    let kind = |name: &String| {
        entry_kind_named(name).ok_or_else(|| {
            CommandError::setting(
                "kind",
                format!("there is no entry kind `{name}`: `lockstep log dump --help` names them"),
            )
        })
    };
    let kinds = names.iter().map(kind).collect::<Result<Vec<_>, _>>()?;
    Ok((!kinds.is_empty()).then_some(kinds))
}

fn info(log: &std::path::Path, json: bool) -> Result<Status, CommandError> {
    let info = LogInfo::of(&mut LogReader::open(log)?);
    let text = if json {
        serde_json::to_string(&info).map_err(|why| RunError::Other {
            what: "cannot write JSON".to_owned(),
            source: Box::new(why),
        })?
    } else {
        info.to_string()
    };
    let printed = print_text(&format!("{text}\n"), Status::Success);
    match info.fault {
        Some(why) => Err(why.into()),
        None => printed,
    }
}

fn dump_to_stdout(
    log: &std::path::Path,
    format: DumpFormat,
    filter: &DumpFilter,
) -> Result<Status, CommandError> {
    let mut stdout = BufWriter::new(Printer::new());
    let outcome = dump(&mut LogReader::open(log)?, filter, format, &mut stdout);
    let flushed = stdout.flush();
    match outcome {
        Ok(_) => printed(flushed, Status::Success),
        Err(DumpError::Log(why)) => Err(why.into()),
        Err(DumpError::Output(why)) => printed(Err(why), Status::Success),
    }
}
