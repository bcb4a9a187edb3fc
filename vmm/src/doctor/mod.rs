//! `lockstep doctor`: tells by measurement what this host is good for.

pub mod json;
pub mod progress;
pub mod survey;
pub mod table;

use super::printing::print_text;
use super::status::{CommandError, Status};
use clap::Args;
use lockstep_process::writing::standard;
use lockstep_qualify::Effort;
use progress::Progress;
use survey::Survey;

/// More exits than that are more than a day.
const LENGTH_EXITS_MAX: u64 = 10_000_000_000;

/// What to measure, and how to say it.
#[derive(Clone, Debug, Args)]
pub struct DoctorArguments {
    /// One JSON object instead of a table
    #[arg(long)]
    pub json: bool,
    /// Try everything a few times only, under five seconds
    #[arg(long)]
    pub quick: bool,
    /// Exits of the determinism run [default: 20000, with --quick 1000]
    #[arg(long, value_name = "EXITS", value_parser = clap::value_parser!(u64).range(1..=LENGTH_EXITS_MAX))]
    pub length: Option<u64>,
}

/// Measures this host and prints what it is good for. Status 4 where Lockstep cannot be used on it.
///
/// # Errors
/// The report cannot be written.
pub fn doctor(arguments: &DoctorArguments) -> Result<Status, CommandError> {
    let effort = if arguments.quick {
        Effort::QUICK
    } else {
        Effort::FULL
    };
    let effort = Effort {
        length_exits: arguments.length.unwrap_or(effort.length_exits),
        ..effort
    };
    let survey = Survey::of_this_host(&effort, &mut Progress::on_stderr())?;
    let text = if arguments.json {
        json::text(&survey)?
    } else {
        let columns = terminal_size::terminal_size().filter(|_| standard::output_is_terminal());
        table::text(&survey, columns.map(|(width, _)| width.0))
    };
    let status = if survey.is_usable() {
        Status::Success
    } else {
        Status::Host
    };
    print_text(&text, status)
}
