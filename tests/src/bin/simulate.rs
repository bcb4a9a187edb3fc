//! Runs the simulator over a range of seeds.

use std::process::ExitCode;
use std::sync::{Mutex, PoisonError};
use std::thread::available_parallelism;
use std::time::{Duration, Instant};

use clap::Parser;
use lockstep_tests::simulator::{
    Marks, Outcome, SEEDS_FOR_ALL_MARKS, Summary, report_of, simulate, simulate_many,
};

/// A world is made of many small things that live briefly: a seventh less time than with the C library's allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(5);

/// Simulates pairs, their failures and their clients in virtual time, and judges what comes out.
#[derive(Debug, Parser)]
struct Arguments {
    /// How many seeds to run.
    #[arg(long, default_value_t = 10_000)]
    seeds: u64,
    /// The first of them.
    #[arg(long, default_value_t = 0)]
    first: u64,
    /// Threads; 0 is one for each processor.
    #[arg(long, default_value_t = 0)]
    threads: usize,
    /// Run this seed only, and print everything that happens.
    #[arg(long)]
    trace: Option<u64>,
    /// Fail if a rare path was never taken, also where there are too few seeds to expect that.
    #[arg(long)]
    all_marks: bool,
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
    let threads = match arguments.threads {
        0 => available_parallelism().map_or(1, usize::from),
        threads => threads,
    };
    let start = Instant::now();
    let shown = Mutex::new(start);
    let look = |summary: &Summary| {
        let mut shown = shown.lock().unwrap_or_else(PoisonError::into_inner);
        if shown.elapsed() >= PROGRESS {
            *shown = Instant::now();
            println!("{}", progress(start, summary));
        }
    };
    let summary = simulate_many(arguments.first, arguments.seeds, threads, look);
    println!("{}, on {threads} threads", progress(start, &summary));
    report(arguments, &summary)
}

fn progress(start: Instant, summary: &Summary) -> String {
    let seconds = start.elapsed().as_secs_f64().max(1e-9);
    let (seeds, failovers) = (summary.seeds as f64 / seconds, summary.failovers as f64 / seconds);
    let hours = summary.virtual_ns as f64 / 3.6e12;
    format!(
        "{} seeds, {seeds:.0} a second; {} failovers, {failovers:.0} a second; {} happenings, {hours:.2} virtual hours",
        summary.seeds, summary.failovers, summary.happenings
    )
}

fn report(arguments: &Arguments, summary: &Summary) -> ExitCode {
    for failure in &summary.failures {
        println!("\n{}", report_of(failure));
    }
    let missing = summary.marks.missing();
    let (marks, points) = Marks::count();
    println!(
        "{} of {} reached: {marks} rare paths, {points} points at which a process died or stood still",
        marks + points - missing.len(),
        marks + points
    );
    for mark in &missing {
        println!("  never: {mark}");
    }
    let expected = arguments.all_marks || arguments.seeds >= SEEDS_FOR_ALL_MARKS;
    let incomplete = expected && !missing.is_empty();
    if summary.failures.is_empty() && !incomplete {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
