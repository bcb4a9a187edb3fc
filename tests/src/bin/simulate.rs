//! Runs the simulator over a range of seeds.

use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::Parser;
use lockstep_tests::simulator::{Mark, Marks, Outcome, simulate};

/// Seeds between two looks at the clock.
const SEEDS_A_LOOK: u64 = 64;

/// Failing seeds that are shown before the run gives up.
const FAILURES_MAX: usize = 5;

/// Simulates pairs, their failures and their clients in virtual time, and judges what comes out.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many seeds to run.
    #[arg(long, default_value_t = 10_000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Run this seed only, and print everything that happens.
    #[arg(long)]
    trace: Option<u64>,
    /// Fail if a rare path was never taken.
    #[arg(long)]
    all_marks: bool,
}

#[derive(Default)]
struct Summary {
    marks: Marks,
    failovers: u64,
    virtual_ns: u128,
    happenings: u64,
    failures: Vec<Outcome>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    // A broken assertion is a finding with a seed; its place in the source is printed with the trace only.
    if arguments.trace.is_none() {
        std::panic::set_hook(Box::new(|_| ()));
    }
    match arguments.trace {
        Some(seed) => show(&simulate(seed, true)),
        None => run(&arguments),
    }
}

fn show(outcome: &Outcome) -> ExitCode {
    print!("{}", outcome.trace);
    match &outcome.failure {
        Some(failure) => {
            println!("seed {}: {failure}", outcome.seed);
            ExitCode::FAILURE
        }
        None => {
            println!("seed {}: every promise was kept", outcome.seed);
            ExitCode::SUCCESS
        }
    }
}

fn run(arguments: &Arguments) -> ExitCode {
    let start = Instant::now();
    let mut shown = start;
    let mut summary = Summary::default();
    let mut done = 0;
    for seed in arguments.first..arguments.first.saturating_add(arguments.seeds) {
        take(&mut summary, simulate(seed, false));
        done += 1;
        if summary.failures.len() == FAILURES_MAX {
            break;
        }
        if done % SEEDS_A_LOOK == 0 && shown.elapsed() >= Duration::from_secs(5) {
            shown = Instant::now();
            println!("{}", progress(done, start, &summary));
        }
    }
    println!("{}", progress(done, start, &summary));
    report(arguments, &summary)
}

fn take(summary: &mut Summary, outcome: Outcome) {
    summary.marks.add(outcome.marks);
    summary.failovers += u64::from(outcome.marks.has(Mark::BackupLive));
    summary.happenings += outcome.happenings;
    summary.virtual_ns += u128::from(outcome.virtual_ns);
    if let Some(failure) = &outcome.failure {
        println!("seed {}: {failure}", outcome.seed);
        println!(
            "  repeat: cargo run --release -p lockstep-tests --bin simulate -- --trace {}",
            outcome.seed
        );
        summary.failures.push(outcome);
    }
}

fn progress(done: u64, start: Instant, summary: &Summary) -> String {
    let seconds = start.elapsed().as_secs_f64().max(1e-9);
    let (seeds, failovers) = (done as f64 / seconds, summary.failovers as f64 / seconds);
    let hours = summary.virtual_ns as f64 / 3.6e12;
    format!(
        "{done} seeds, {seeds:.0} a second; {} failovers, {failovers:.0} a second; {} happenings, {hours:.2} virtual hours",
        summary.failovers, summary.happenings
    )
}

fn report(arguments: &Arguments, summary: &Summary) -> ExitCode {
    let missing = summary.marks.missing();
    println!(
        "{} of {} rare paths taken",
        Mark::ALL.len() - missing.len(),
        Mark::ALL.len()
    );
    for mark in &missing {
        println!("  never: {mark}");
    }
    let incomplete = arguments.all_marks && !missing.is_empty();
    if summary.failures.is_empty() && !incomplete {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
