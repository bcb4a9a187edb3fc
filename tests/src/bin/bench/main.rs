//! `make bench`: what protection costs, unprotected against protected in one run, alternating,
//! medians.
//!
//! Prints tables and writes `bench.json`. Absolute figures are this machine's and this hour's; the
//! ratios are the result. Where an earlier build is named, the two are measured in turn instead,
//! and their ratios are the result.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a benchmark that cannot measure stops"
)]

mod aims;
mod before;
mod channel;
mod checkpoint;
mod disks;
mod failover;
mod healing;
mod measure;
mod options;
mod pair;
mod recording;
mod rejoining;
mod serving;

use lockstep_tests::harness::{Build, Guest};
use measure::{Sample, median};
use options::{Only, Options};
use serde_json::{Value, json};
use std::process::ExitCode;
use std::time::Instant;

/// Alternating rounds of each workload.
const ROUNDS: usize = 5;
/// Clients and pipeline depth of each workload, and its requests of each kind.
const WORKLOADS: [(u32, u32, u32); 4] = [(1, 1, 5_000), (1, 16, 50_000), (16, 1, 20_000), (16, 16, 200_000)];

fn main() -> ExitCode {
    let options = match Options::read(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(why) => {
            eprintln!("bench: {why}");
            return ExitCode::from(2);
        }
    };
    if let Some(timeout_ms) = options.timeout_ms {
        serving::be_patient(timeout_ms);
    }
    let compared = matches!(options.only, None | Some(Only::Channel));
    if Build::has_before() && !compared {
        eprintln!("bench: BEFORE goes with everything or with ONLY=channel: leave ONLY out");
        return ExitCode::from(2);
    }
    let all = if Build::has_before() {
        before::figures(options.only, options.before_rounds)
    } else {
        match options.only {
            Some(Only::Channel) => {
                let figures = channel::figures();
                channel::print(&figures);
                json!({ "channel": figures })
            }
            Some(Only::Healing) => {
                let figures = healing::figures(&options.healing);
                aims::print_healing(&figures);
                json!({ "healing": figures })
            }
            Some(Only::Recording) => {
                let figures = recording::figures();
                recording::print(&figures);
                json!({ "recording": figures })
            }
            Some(Only::Checkpoint) => {
                let figures = checkpoint::figures(options.checkpoint_rounds);
                checkpoint::print(&figures);
                json!({ "checkpoint": figures })
            }
            Some(Only::Disks) => {
                let (figures, rejoining) = (disks::figures(options.disk_rounds), rejoining::figures());
                disks::print(&figures);
                rejoining::print(&rejoining);
                aims::print_disks(&figures);
                json!({ "disks": figures, "rejoining": rejoining })
            }
            None => everything(&options),
        }
    };
    std::fs::write("bench.json", format!("{all:#}\n")).expect("bench.json can be written");
    ExitCode::SUCCESS
}

fn everything(options: &Options) -> Value {
    println!(
        "{:>7} {:>8} | {:>11} {:>9} {:>5} | {:>11} {:>9} {:>5} | {:>11} {:>9} | {:>11} {:>9}",
        "", "", "requests/s:", "", "", "CPU us/op:", "", "", "p50 ms:", "", "p99 ms:", ""
    );
    println!(
        "{:>7} {:>8} | {:>11} {:>9} {:>5} | {:>11} {:>9} {:>5} | {:>11} {:>9} | {:>11} {:>9}",
        "clients",
        "pipeline",
        "unprotected",
        "protected",
        "ratio",
        "unprotected",
        "protected",
        "ratio",
        "unprotected",
        "protected",
        "unprotected",
        "protected"
    );
    let serving: Vec<Value> = WORKLOADS
        .into_iter()
        .map(|(clients, pipeline, requests)| compare(clients, pipeline, requests))
        .collect();
    let all = json!({
        "serving": serving,
        "compute_ratio": compute_ratio(),
        "pair": pair::figures(),
        "failover": failover::figures(),
        "channel": channel::figures(),
        "healing": healing::figures(&options.healing),
        "recording": recording::figures(),
        "checkpoint": checkpoint::figures(options.checkpoint_rounds),
        "disks": disks::figures(options.disk_rounds),
        "rejoining": rejoining::figures(),
    });
    pair::print(&all["pair"]);
    failover::print(&all["failover"]);
    channel::print(&all["channel"]);
    recording::print(&all["recording"]);
    checkpoint::print(&all["checkpoint"]);
    disks::print(&all["disks"]);
    rejoining::print(&all["rejoining"]);
    aims::print(&all);
    aims::print_healing(&all["healing"]);
    aims::print_disks(&all["disks"]);
    all
}

fn compare(clients: u32, pipeline: u32, requests: u32) -> Value {
    let (mut alone, mut protected) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        alone.push(serving::unprotected(clients, pipeline, requests));
        protected.push(serving::protected(clients, pipeline, requests));
    }
    let (alone, protected) = (medians(&alone), medians(&protected));
    let number = |row: &Value, key: &str| row[key].as_f64().unwrap_or(f64::NAN);
    let ratio = |key: &str| number(&protected, key) / number(&alone, key);
    println!(
        "{clients:7} {pipeline:8} | {:11.0} {:9.0} {:5.2} | {:11.2} {:9.2} {:5.2} | {:11.3} {:9.3} | {:11.3} {:9.3}",
        number(&alone, "requests_per_second"),
        number(&protected, "requests_per_second"),
        ratio("requests_per_second"),
        number(&alone, "cpu_us_per_request"),
        number(&protected, "cpu_us_per_request"),
        ratio("cpu_us_per_request"),
        number(&alone, "p50_ms"),
        number(&protected, "p50_ms"),
        number(&alone, "p99_ms"),
        number(&protected, "p99_ms"),
    );
    json!({
        "clients": clients,
        "pipeline": pipeline,
        "throughput_ratio": ratio("requests_per_second"),
        "cpu_per_request_ratio": ratio("cpu_us_per_request"),
        "added_p50_us": (number(&protected, "p50_ms") - number(&alone, "p50_ms")) * 1_000.0,
        "unprotected": alone,
        "protected": protected,
    })
}

fn medians(samples: &[Sample]) -> Value {
    let of = |field: fn(&Sample) -> f64| median(samples.iter().map(field).collect());
    json!({
        "requests_per_second": of(|sample| sample.requests_per_second),
        "cpu_us_per_request": of(|sample| sample.cpu_us_per_request),
        "p50_ms": of(|sample| sample.p50_ms),
        "p99_ms": of(|sample| sample.p99_ms),
    })
}

/// Unprotected time over the primary's time for the compute guest, median of alternating rounds.
fn compute_ratio() -> f64 {
    let ratios = (0..ROUNDS).map(|_| {
        let started = Instant::now();
        serving::run_alone(Guest::Compute);
        let alone = started.elapsed();
        let mut pair = serving::pair(Guest::Compute);
        let started = Instant::now();
        pair.primary.wait_for("ended");
        alone.as_secs_f64() / started.elapsed().as_secs_f64()
    });
    median(ratios.collect())
}
