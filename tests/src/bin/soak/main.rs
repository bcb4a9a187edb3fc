//! `make soak`: records and replays guests under load for a given time, and compares everything.
//!
//! A round is one recording and one replay of it: every output, every digest, the final memory, the
//! exit status and the text on the console must be the same; or a pair in checkpoint mode whose
//! primary is killed, and whose guest must come to its end on the other side with everything as
//! computed. Prints a table and writes JSON. A log that did not replay is kept.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a soak that cannot go on stops"
)]

mod load;
mod report;
mod round;
mod workload;

use clap::Parser;
use lockstep_tests::harness::Interrupt;
use report::Report;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};

/// Time of a run of which no other end is wanted.
const SECONDS: u64 = 30;

/// Records and replays guests under load, and compares everything.
#[derive(Debug, Parser)]
struct Arguments {
    /// Go on for so many seconds; every workload is run at least once. Default: 30, or no end where
    /// a number of common points is wanted.
    #[arg(long)]
    seconds: Option<u64>,
    /// Stop before, when so many events have entered.
    #[arg(long, default_value_t = u64::MAX, hide_default_value = true)]
    events: u64,
    /// Stop before, when so many common points have been made and met. Unless others are named,
    /// only the guest is run that makes them as often as it can.
    #[arg(long)]
    common_points: Option<u64>,
    /// Only workloads whose name begins so, as \"steady, clock none\".
    #[arg(long, default_value = "", hide_default_value = true)]
    only: String,
    /// Command line of their guests instead of the usual one, for a host that is slow.
    #[arg(long)]
    command_line: Option<String>,
    /// Where the figures go.
    #[arg(long, default_value = "soak.json")]
    json: PathBuf,
    /// Where logs go that did not replay.
    #[arg(long, default_value = "target/soak")]
    keep: PathBuf,
}

/// Status of arguments that name nothing.
const USAGE: u8 = 2;

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let interrupt = Interrupt::watch();
    let only = match arguments.common_points {
        Some(_) if arguments.only.is_empty() => workload::MOST_COMMON_POINTS,
        _ => &arguments.only,
    };
    let workloads = workload::offered(only, arguments.command_line.as_deref());
    if workloads.is_empty() {
        eprintln!("soak: no workload of this host is named {only:?}...");
        return ExitCode::from(USAGE);
    }
    let start = Instant::now();
    let mut report = Report::new(&workloads);
    let seconds = match arguments.common_points {
        Some(_) => u64::MAX,
        None => SECONDS,
    };
    let limit = Duration::from_secs(arguments.seconds.unwrap_or(seconds));
    let points_max = arguments.common_points.unwrap_or(u64::MAX);
    let enough = |report: &Report| {
        let total = report.total();
        start.elapsed() >= limit || total.events() >= arguments.events || total.common_points() >= points_max
    };
    for turn in 0.. {
        for (index, workload) in workloads.iter().enumerate() {
            if interrupt.is_asked() || turn > 0 && enough(&report) {
                continue;
            }
            let came_to = round::run(workload, turn, &arguments.keep);
            println!("{workload}: {came_to}");
            report.add(index, came_to);
            if arguments.common_points.is_some() {
                println!("{} common points so far", report.total().common_points());
            }
        }
        if interrupt.is_asked() || enough(&report) {
            break;
        }
    }
    print!("\n{report}");
    let json = report.to_json(start.elapsed());
    std::fs::write(&arguments.json, format!("{json:#}\n")).expect("the figures can be written");
    if report.divergences() > 0 {
        ExitCode::FAILURE
    } else if interrupt.is_asked() {
        Interrupt::STATUS.into()
    } else {
        ExitCode::SUCCESS
    }
}
