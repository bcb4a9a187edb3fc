//! `make bench`: what protection costs, unprotected against protected in one run, alternating, medians.
//!
//! Prints a table and writes `bench.json`. Absolute figures are this machine's and this hour's; the ratios are the result.

#![allow(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a benchmark that cannot measure stops"
)]

mod measure;
mod serving;

use lockstep_tests::harness::Guest;
use measure::{Sample, cpu_seconds, median};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Alternating rounds of each workload.
const ROUNDS: usize = 3;
/// How long an idle pair is looked at.
const IDLE: Duration = Duration::from_secs(5);
/// Clients and pipeline depth of each workload, and its requests.
const WORKLOADS: [(u32, u32, u32); 4] = [(1, 1, 5_000), (1, 16, 50_000), (16, 1, 20_000), (16, 16, 100_000)];

fn main() {
    let mut results = Vec::new();
    println!(
        "clients pipeline |  unprotected   protected  ratio | CPU/op ratio | p50 ms: unprotected protected | p99 ms: unprotected protected"
    );
    for (clients, pipeline, requests) in WORKLOADS {
        results.push(compare(clients, pipeline, requests));
    }
    let compute = compute_ratio();
    println!("compute guest: {:.3} of the unprotected speed", compute);
    let pair = pair_figures();
    println!("pair: {pair}");
    let all = json!({ "serving": results, "compute_ratio": compute, "pair": pair });
    std::fs::write("bench.json", format!("{all:#}\n")).expect("bench.json can be written");
}

fn compare(clients: u32, pipeline: u32, requests: u32) -> Value {
    let (mut alone, mut protected) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        alone.push(serving::unprotected(clients, pipeline, requests));
        protected.push(serving::protected(clients, pipeline, requests));
    }
    let of = |samples: &[Sample], field: fn(&Sample) -> f64| median(samples.iter().map(field).collect());
    let row = |samples: &[Sample]| {
        json!({
            "requests_per_second": of(samples, |sample| sample.requests_per_second),
            "cpu_us_per_request": of(samples, |sample| sample.cpu_us_per_request),
            "p50_ms": of(samples, |sample| sample.p50_ms),
            "p99_ms": of(samples, |sample| sample.p99_ms),
        })
    };
    let (alone, protected) = (row(&alone), row(&protected));
    let number = |row: &Value, key: &str| row[key].as_f64().unwrap_or(f64::NAN);
    let ratio = |key: &str| number(&protected, key) / number(&alone, key);
    println!(
        "{clients:7} {pipeline:8} | {:12.0} {:11.0}  {:5.2} | {:12.2} | {:19.3} {:9.3} | {:19.3} {:9.3}",
        number(&alone, "requests_per_second"),
        number(&protected, "requests_per_second"),
        ratio("requests_per_second"),
        ratio("cpu_us_per_request"),
        number(&alone, "p50_ms"),
        number(&protected, "p50_ms"),
        number(&alone, "p99_ms"),
        number(&protected, "p99_ms"),
    );
    json!({
        "clients": clients,
        "pipeline": pipeline,
        "unprotected": alone,
        "protected": protected,
        "throughput_ratio": ratio("requests_per_second"),
        "cpu_per_request_ratio": ratio("cpu_us_per_request"),
        "added_p50_us": (number(&protected, "p50_ms") - number(&alone, "p50_ms")) * 1_000.0,
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

/// Log traffic of an idle pair, and what a loaded one reports of itself.
fn pair_figures() -> Value {
    let mut pair = serving::serving_pair();
    let bytes = |pair: &mut lockstep_tests::harness::Pair| {
        let statistics = pair
            .primary
            .events()
            .into_iter()
            .rfind(|line| line["event"] == "statistics");
        statistics
            .and_then(|line| line["log_bytes"].as_u64())
            .unwrap_or(0)
    };
    std::thread::sleep(Duration::from_secs(1));
    let (before, cpu_before) = (bytes(&mut pair), cpu_seconds(pair.primary.process.id()));
    std::thread::sleep(IDLE);
    let idle_mbit = (bytes(&mut pair) - before) as f64 * 8.0 / 1e6 / IDLE.as_secs_f64();
    let idle_cpu = (cpu_seconds(pair.primary.process.id()) - cpu_before) / IDLE.as_secs_f64();
    let started = (Instant::now(), bytes(&mut pair));
    serving::load(&pair, 16, 1, 20_000);
    let load_mbit = (bytes(&mut pair) - started.1) as f64 * 8.0 / 1e6 / started.0.elapsed().as_secs_f64();
    let last = pair
        .primary
        .events()
        .into_iter()
        .rfind(|line| line["event"] == "statistics")
        .unwrap_or_default();
    let keys = [
        "held_us_p50",
        "held_us_p99",
        "lag_us_p50",
        "lag_us_p99",
        "round_trip_us_p50",
        "round_trip_us_p99",
    ];
    let mut figures =
        json!({ "idle_log_mbit_s": idle_mbit, "idle_cpu": idle_cpu, "load_log_mbit_s": load_mbit });
    for key in keys {
        figures[key] = last[key].clone();
    }
    figures
}
