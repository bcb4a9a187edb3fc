//! `make torture`: rounds of real pairs with real clients, each with a fault; see
//! `lockstep_tests::campaign`.
//!
//! A line a round on standard error while it runs; a table on standard output at the end. Exit
//! status 1 where a round broke a promise. The plans of a seed are always the same; what the
//! machine makes of them is not.

use clap::Parser;
use lockstep_tests::campaign::{Only, Outcome, Scenario, Summary, picture};
use lockstep_tests::harness::{Interrupt, kvm};
use serde_json::json;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Kills, stops, cuts off and starves real pairs under load, and judges what their clients saw.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many rounds
    #[arg(long, default_value_t = 50)]
    rounds: u64,
    /// Seed of the plans [default: the time]
    #[arg(long)]
    seed: Option<u64>,
    /// Run this round of the seed and no other
    #[arg(long, value_name = "N")]
    round: Option<u64>,
    /// Rounds of this kind only, for example kill-primary@primary:before-send, chain, or starts
    #[arg(long, value_name = "KIND")]
    only: Option<Only>,
    /// Name the kinds there are
    #[arg(long)]
    list: bool,
    /// Write everything as JSON
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    /// Draw how long failovers took
    #[arg(long, value_name = "FILE")]
    svg: Option<PathBuf>,
    /// Where failed rounds keep their logs, captures and histories
    #[arg(long, value_name = "DIRECTORY", default_value = "target/torture/failed")]
    keep: PathBuf,
    /// Give up after so many failed rounds
    #[arg(long, value_name = "N", default_value_t = 10)]
    failures_max: usize,
    /// Keep those of every round
    #[arg(long)]
    keep_all: bool,
    /// Run replicas with this defect; the build needs the feature `mutants`, and the campaign
    /// should fail
    #[arg(long, value_name = "NAME")]
    mutant: Option<String>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    if arguments.list {
        Only::all().iter().for_each(|kind| println!("{kind}"));
        return ExitCode::SUCCESS;
    }
    let Some(_kvm) = kvm::alone() else {
        eprintln!("no campaign without /dev/kvm");
        return ExitCode::FAILURE;
    };
    // A panic of the harness is a failed round, and is told as one.
    std::panic::set_hook(Box::new(|_| ()));
    campaign(&arguments, &Interrupt::watch())
}

fn campaign(arguments: &Arguments, interrupt: &Interrupt) -> ExitCode {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let seed = arguments.seed.unwrap_or(now.as_millis() as u64);
    let rounds = arguments
        .round
        .map_or(0..arguments.rounds, |round| round..round + 1);
    let count = rounds.end - rounds.start;
    eprintln!("campaign: seed {seed}, {count} rounds");
    let (began, mut summary) = (Instant::now(), Summary::default());
    for round in rounds {
        let scenario = Scenario::draw(seed, round, arguments.only);
        let outcome = one(arguments, &scenario);
        summary.add(outcome);
        let minutes = began.elapsed().as_secs_f64() / 60.0;
        if summary.rounds() % 25 == 0 {
            let (done, failed) = (summary.rounds(), summary.failed());
            eprintln!(
                "--- {done} of {count} rounds, {failed} failed, {:.1} a minute",
                done as f64 / minutes
            );
        }
        if summary.failed() >= arguments.failures_max {
            eprintln!("campaign: given up after {} failed rounds", summary.failed());
            break;
        }
        if interrupt.is_asked() {
            break;
        }
    }
    let took = began.elapsed();
    println!("\n{}", summary.table(took));
    let about = json!({ "seed": seed, "started_unix_s": now.as_secs(), "took_s": took.as_secs_f64() });
    write(arguments.json.as_deref(), || {
        format!("{:#}\n", summary.to_json(about))
    });
    let caption = format!("make torture: seed {seed}, {} rounds", summary.rounds());
    write(arguments.svg.as_deref(), || picture::draw(&summary, &caption));
    let (verdict, code) = if summary.failed() > 0 {
        ("promises were broken", ExitCode::FAILURE)
    } else if interrupt.is_asked() {
        (
            "interrupted; every promise was kept so far",
            Interrupt::STATUS.into(),
        )
    } else {
        ("every promise was kept", ExitCode::SUCCESS)
    };
    println!("verdict: {verdict} (seed {seed})");
    code
}

fn one(arguments: &Arguments, scenario: &Scenario) -> Outcome {
    let (mut outcome, evidence) = scenario.run(arguments.mutant.as_deref());
    let title = outcome.title.clone();
    let failed = !outcome.failures.is_empty();
    let points = outcome.points;
    let mark = match (failed, points.missed()) {
        (true, _) => "FAILED".to_owned(),
        (false, 0) => "ok".to_owned(),
        (false, missed) => format!("ok, but {missed} of {} points not met", points.planned),
    };
    let standing = outcome
        .standing
        .map_or_else(|| "?".to_owned(), |standing| format!("{standing:?}"));
    let gap = outcome.times.map_or(String::new(), |times| {
        format!(", clients waited {:.0} ms", times.gap_ns as f64 / 1e6)
    });
    eprintln!(
        "round {:>4}: {} -> {standing}, {} operations{gap}, {:.1} s: {mark}",
        title.round,
        title.plan,
        outcome.acknowledged,
        outcome.took.as_secs_f64()
    );
    // Of a round with many points, some are beyond what its sides come to.
    let missed_all = points.missed() > 0 && points.met == 0;
    if failed || missed_all || arguments.keep_all {
        let directory = arguments
            .keep
            .join(format!("seed-{}-round-{}", title.seed, title.round));
        if let Some(evidence) = evidence
            && let Err(why) = evidence.keep(&directory, &title, &outcome.failures)
        {
            outcome
                .failures
                .push(format!("not kept in {}: {why}", directory.display()));
        }
        if failed {
            tell(arguments, &outcome, &directory);
        }
    }
    outcome
}

fn tell(arguments: &Arguments, outcome: &Outcome, directory: &Path) {
    for failure in &outcome.failures {
        eprintln!("    {failure}");
    }
    let only = arguments
        .only
        .map_or(String::new(), |kind| format!(" ONLY={kind}"));
    let directory = directory.display();
    eprintln!(
        "    repeat: make torture SEED={} ROUND={}{only}",
        outcome.title.seed, outcome.title.round
    );
    eprintln!("    look:   cat {directory}/failures.txt {directory}/*.stderr");
    eprintln!(
        "            lockstep log dump {directory}/channel.log; tshark -r {directory}/frames*.pcapng; less {directory}/history.jsonl"
    );
}

fn write(path: Option<&Path>, text: impl FnOnce() -> String) {
    let Some(path) = path else { return };
    if let Err(why) = std::fs::write(path, text()) {
        eprintln!("cannot write {}: {why}", path.display());
    }
}
