//! Runs random guests, each recorded and replayed, from a seed on, for a time or a number of them.

use clap::Parser;
use lockstep_kvm::Host;
use lockstep_tests::fuzz::guest::{Case, clocks, reduce, run};
use std::collections::BTreeMap;
use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Between two lines of progress.
const PROGRESS: Duration = Duration::from_secs(30);

/// Runs random guests on this machine's KVM, each recorded and replayed at once, and compares
/// everything. A seed that fails is printed with the smallest code that still fails; --seed repeats
/// it.
#[derive(Debug, Parser)]
struct Arguments {
    /// Seconds to go on for.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
    /// The first seed; the time, if none is given.
    #[arg(long)]
    first: Option<u64>,
    /// Run this seed only, so often.
    #[arg(long)]
    seed: Option<u64>,
    /// Times a single seed is run.
    #[arg(long, default_value_t = 20)]
    times: u64,
    /// Use this instruction clock instead of the seed's.
    #[arg(long)]
    clock: Option<String>,
    /// Take digests every so many exits instead of the seed's number; 0 for none.
    #[arg(long)]
    digests: Option<u64>,
    /// Failures after which it ends.
    #[arg(long, default_value_t = 1)]
    failures_max: u64,
}

#[derive(Default)]
struct Total {
    cases: u64,
    failures: u64,
    exits: u64,
    entries: u64,
    events: u64,
    between: u64,
    ends: BTreeMap<String, u64>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let host = match Host::open() {
        Ok(host) => host,
        Err(why) => {
            eprintln!("{why}");
            return ExitCode::FAILURE;
        }
    };
    std::panic::set_hook(Box::new(|_| ()));
    let mut clocks = clocks();
    if let Some(wanted) = &arguments.clock {
        clocks.retain(|clock| clock.to_string() == *wanted);
        if clocks.is_empty() {
            eprintln!("the clock {wanted} is not exact on this host");
            return ExitCode::FAILURE;
        }
    }
    let names: Vec<String> = clocks.iter().map(ToString::to_string).collect();
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    let first = arguments.first.unwrap_or(now.as_secs());
    println!("clocks: {}; from seed {first} on", names.join(", "));
    let seeds: Box<dyn Iterator<Item = u64>> = match arguments.seed {
        Some(seed) => Box::new((0..arguments.times).map(move |_| seed)),
        None => Box::new(first..),
    };
    let started = Instant::now();
    let mut total = Total::default();
    let mut progress = started + PROGRESS;
    for seed in seeds {
        let over = arguments.seed.is_none() && started.elapsed() >= Duration::from_secs(arguments.seconds);
        if over || total.failures >= arguments.failures_max {
            break;
        }
        if Instant::now() >= progress {
            println!("{} s: {} guests", started.elapsed().as_secs(), total.cases);
            progress += PROGRESS;
        }
        let mut case = Case::new(seed, &clocks);
        case.digest_interval_exits = arguments.digests.unwrap_or(case.digest_interval_exits);
        total.cases += 1;
        match run(&host, &case) {
            Ok(kept) => {
                total.exits += kept.exits;
                total.entries += kept.entries as u64;
                total.events += kept.events as u64;
                total.between += kept.between as u64;
                let reason = format!("{:?}", kept.reason);
                let end = reason.split(" (rip").next().unwrap_or_default().to_owned();
                *total.ends.entry(end).or_default() += 1;
            }
            Err(why) => {
                total.failures += 1;
                println!("seed {seed} FAILED: {why}\nwhole: {}", reduce::listing(&case));
                let (smallest, why) = reduce::reduce(&host, &case, why);
                println!("smallest: {}\n{why}", reduce::listing(&smallest));
                println!("again: cargo run -p lockstep-tests --bin fuzz-guest -- --seed {seed}");
            }
        }
    }
    println!(
        "{} guests in {} s: {} exits, {} log entries, {} events, {} of them between exits; {} failed",
        total.cases,
        started.elapsed().as_secs(),
        total.exits,
        total.entries,
        total.events,
        total.between,
        total.failures
    );
    for (end, times) in &total.ends {
        println!("  {times:6} {end}");
    }
    if total.failures == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}
