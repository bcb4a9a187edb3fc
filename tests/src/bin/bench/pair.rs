//! Figures that a pair reports of itself: its log, its lag, its channel; idle, and under load.

use super::measure::cpu_seconds;
use super::serving;
use lockstep_tests::harness::Pair;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

/// Time for which an idle pair is watched, after as long a rest as a statistics line may take to
/// come.
const IDLE: Duration = Duration::from_secs(5);
const REST: Duration = Duration::from_secs(1);
/// The load: clients, pipeline depth, requests of each kind.
const LOAD: (u32, u32, u32) = (16, 1, 20_000);
/// Figures that a statistics line gives in percentiles.
const PERCENTILES: [&str; 6] = [
    "held_us_p50",
    "held_us_p99",
    "lag_us_p50",
    "lag_us_p99",
    "round_trip_us_p50",
    "round_trip_us_p99",
];

/// Log traffic and processor time of an idle pair, and what a pair under load reports.
pub fn figures() -> Value {
    let (idle_log_mbit_s, idle_cpu) = serving::of_a_pair(idle);
    // A pair of its own: what it reports is then of the load alone.
    let (load_log_mbit_s, last) = serving::of_a_pair(under_load);
    let mut figures = json!({
        "idle_log_mbit_s": idle_log_mbit_s,
        "idle_cpu": idle_cpu,
        "load_log_mbit_s": load_log_mbit_s,
    });
    for key in PERCENTILES {
        figures[key] = last[key].clone();
    }
    figures
}

fn idle(pair: &Pair) -> (f64, f64) {
    let primary = pair.primary.process.id();
    std::thread::sleep(REST);
    let (bytes, cpu) = (log_bytes(pair), cpu_seconds(primary));
    std::thread::sleep(IDLE);
    let seconds = IDLE.as_secs_f64();
    (
        (log_bytes(pair) - bytes) as f64 * 8.0 / 1e6 / seconds,
        (cpu_seconds(primary) - cpu) / seconds,
    )
}

fn under_load(pair: &Pair) -> (f64, Value) {
    let (clients, pipeline, requests) = LOAD;
    let (started, bytes) = (Instant::now(), log_bytes(pair));
    serving::load(pair, clients, pipeline, requests);
    let mbit_s = (log_bytes(pair) - bytes) as f64 * 8.0 / 1e6 / started.elapsed().as_secs_f64();
    (mbit_s, last_statistics(pair))
}

fn last_statistics(pair: &Pair) -> Value {
    let events = pair.primary.events();
    let last = events.into_iter().rfind(|line| line["event"] == "statistics");
    last.unwrap_or_default()
}

/// Bytes of the log so far, by the newest statistics: they are up to 100 ms old.
pub fn log_bytes(pair: &Pair) -> u64 {
    last_statistics(pair)["log_bytes"].as_u64().unwrap_or(0)
}

/// A table for people.
pub fn print(figures: &Value) {
    let number = |key: &str| figures[key].as_f64().unwrap_or(f64::NAN);
    println!(
        "\nidle pair: log {:.4} Mbit/s, primary {:.2} % of a core",
        number("idle_log_mbit_s"),
        100.0 * number("idle_cpu")
    );
    let (clients, pipeline, _) = LOAD;
    println!(
        "pair under {clients} clients, pipeline {pipeline}: log {:.1} Mbit/s; microseconds, p50 and p99:",
        number("load_log_mbit_s")
    );
    for (what, name) in [
        ("held", "outputs waited in the gate"),
        ("lag", "the backup was behind"),
        ("round_trip", "round trip of the channel"),
    ] {
        println!(
            "  {name:28} {:>8} {:>8}",
            number(&format!("{what}_us_p50")),
            number(&format!("{what}_us_p99"))
        );
    }
}
