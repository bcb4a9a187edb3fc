//! `make soak`: records and replays guests under load for a given time, and compares everything.
//!
//! A round is one recording and one replay of it: every output, every digest, the final memory, the
//! exit status and the text on the console must be the same; or a pair in checkpoint mode whose
//! primary is killed, and whose guest must come to its end on the other side with everything as
//! computed. With `--guest linux` a Debian guest under a mixed load is recorded and replayed, and
//! then protected by a pair whose sides are killed in turn. Prints a table and writes JSON. A log
//! that did not replay is kept.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a soak that cannot go on stops"
)]

mod linux;
mod load;
mod report;
mod round;
mod struck;
mod workload;

use clap::Parser;
use lockstep_tests::harness::{Boots, Interrupt, linux as kernels};
use report::Report;
use round::{CameTo, Round};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::{Duration, Instant};
use workload::{Guests, Load, Workload};

/// Time of a run of which no other end is wanted.
const SECONDS: u64 = 30;

/// Records and replays guests under load, and compares everything.
#[derive(Debug, Parser)]
struct Arguments {
    /// Guests that are run.
    #[arg(long, value_enum, default_value_t = Guests::Small)]
    guest: Guests,
    /// Name what would be run, and stop.
    #[arg(long)]
    list: bool,
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
    /// Folder of the logs that did not replay.
    #[arg(long, default_value = "target/soak")]
    keep: PathBuf,
}

/// Longest share of the time that a workload has in one round: its log is a file.
const SHARE_MAX: Duration = Duration::from_secs(7200);

/// Status of arguments that name nothing.
const USAGE: u8 = 2;

/// As lockstep's: this host lacks something.
const HOST: u8 = 4;

impl Arguments {
    fn only(&self) -> &str {
        match self.common_points {
            Some(_) if self.only.is_empty() => workload::MOST_COMMON_POINTS,
            _ => &self.only,
        }
    }

    fn limit(&self) -> Duration {
        let seconds = match self.common_points {
            Some(_) => u64::MAX,
            None => SECONDS,
        };
        Duration::from_secs(self.seconds.unwrap_or(seconds))
    }
}

/// Part of the time that is `left` for the next of so many workloads.
fn share(left: Duration, workloads: usize) -> Duration {
    (left / u32::try_from(workloads).unwrap_or(u32::MAX).max(1)).min(SHARE_MAX)
}

/// Why this host cannot run these.
fn lacks(workloads: &[Workload], list: bool) -> Option<String> {
    let linux = workloads.iter().find_map(|workload| match workload.boots {
        Boots::Kernel(linux) => Some(linux),
        Boots::Image(_) => None,
    })?;
    if let Some(seen) = kernels::lacking() {
        return Some(format!(
            "this host cannot run a kernel in ring 0 ({seen}); `make soak LAB=1 GUEST=linux` does, in the lab"
        ));
    }
    (!list && !linux.is_built())
        .then(|| "there is no Debian guest with a mixed load: `make guests-debian` builds it".to_owned())
}

/// Runs `workload` and compares. A log that does not replay is kept.
fn run(workload: &Workload, round: &Round<'_>) -> CameTo {
    match workload.load {
        Load::Failover => round::fail_over(workload),
        // A failure of these is counted, and the soak goes on.
        Load::Struck => counted(|came_to| struck::run(workload, round, came_to)),
        Load::Mixed => counted(|came_to| linux::run(workload, round, came_to)),
        Load::None | Load::Frames | Load::Clients => round::record_and_replay(workload, round),
    }
}

/// Has a round that gives up by a panic come to what it had come to, with that as the difference.
fn counted(round: impl FnOnce(&mut CameTo)) -> CameTo {
    let mut came_to = CameTo::default();
    if let Err(why) = catch_unwind(AssertUnwindSafe(|| round(&mut came_to))) {
        let text = why.downcast_ref::<String>().map(String::as_str);
        let text = text.or_else(|| why.downcast_ref::<&str>().copied());
        came_to.difference = Some(text.unwrap_or("it gave up without a word").to_owned());
        println!("FAILED: {}", came_to.difference.as_deref().unwrap_or_default());
    }
    came_to
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let interrupt = Interrupt::watch();
    let workloads = workload::chosen(
        arguments.guest,
        arguments.only(),
        arguments.command_line.as_deref(),
    );
    if let Some(why) = lacks(&workloads, arguments.list) {
        eprintln!("soak: {why}");
        return ExitCode::from(HOST);
    }
    let workloads = workload::offered(workloads);
    if workloads.is_empty() {
        eprintln!(
            "soak: no workload of this host is named {:?}...",
            arguments.only()
        );
        return ExitCode::from(USAGE);
    }
    if arguments.list {
        workloads.iter().for_each(|workload| println!("{workload}"));
        return ExitCode::SUCCESS;
    }
    let start = Instant::now();
    let mut report = Report::new(&workloads);
    let limit = arguments.limit();
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
            let round = Round {
                turn,
                share: share(limit.saturating_sub(start.elapsed()), workloads.len() - index),
                keep: &arguments.keep,
                interrupt: &interrupt,
            };
            let came_to = run(workload, &round);
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

#[cfg(test)]
mod tests {
    use super::*;

    fn arguments(words: &[&str]) -> Arguments {
        Arguments::try_parse_from([&["soak"], words].concat()).expect("arguments that are taken")
    }

    #[test]
    fn the_small_guests_are_run_for_half_a_minute_where_nothing_is_said() {
        let arguments = arguments(&[]);
        assert_eq!(arguments.guest, Guests::Small);
        assert_eq!(arguments.limit(), Duration::from_secs(SECONDS));
        assert_eq!(arguments.only(), "");
    }

    #[test]
    fn a_linux_is_asked_for_by_name_and_others_are_refused() {
        let linux = arguments(&["--guest", "linux", "--seconds", "3600"]);
        assert_eq!(linux.guest, Guests::Linux);
        assert_eq!(linux.limit(), Duration::from_secs(3600));
        assert!(Arguments::try_parse_from(["soak", "--guest", "windows"]).is_err());
    }

    #[test]
    fn common_points_alone_set_no_end_and_choose_who_makes_them() {
        let points = arguments(&["--common-points", "9"]);
        assert_eq!(points.limit(), Duration::from_secs(u64::MAX));
        assert_eq!(points.only(), workload::MOST_COMMON_POINTS);
        let named = arguments(&["--common-points", "9", "--only", "entropy"]);
        assert_eq!(named.only(), "entropy");
    }

    #[test]
    fn a_round_that_gives_up_is_counted_with_its_reason_and_what_it_had_done() {
        let came_to = counted(|came_to| {
            came_to.strikes = 3;
            panic!("a write is lost: {}", 7);
        });
        assert_eq!(came_to.strikes, 3);
        assert_eq!(came_to.difference.as_deref(), Some("a write is lost: 7"));
        assert_eq!(counted(|_| ()).difference, None);
    }

    #[test]
    fn the_time_that_is_left_is_shared_among_the_workloads_that_are_left() {
        assert_eq!(share(Duration::from_secs(3600), 2), Duration::from_secs(1800));
        assert_eq!(share(Duration::from_secs(1200), 1), Duration::from_secs(1200));
        assert_eq!(share(Duration::from_secs(u64::MAX), 2), SHARE_MAX);
        assert_eq!(share(Duration::from_secs(30), 0), Duration::from_secs(30));
    }
}
