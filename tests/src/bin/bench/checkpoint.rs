//! Checkpoint mode beside replay: the key-value guest under redis-benchmark, unprotected, with a
//! backup that replays, and with one that is sent checkpoints, by the length of an epoch. In turn,
//! round by round, so that whatever else the host does meets all of them. Replay is measured
//! without common points too: a guest that needs none must not pay for them.

use super::measure::{Sample, median};
use super::{pair, serving};
use lockstep_tests::harness::{Guest, PairSpec};
use serde_json::{Value, json};
use std::time::Instant;

/// Epochs, in milliseconds.
const EPOCHS_MS: [u32; 3] = [5, 20, 50];
/// Clients of each load, without pipelining.
const CLIENTS: [u32; 2] = [1, 16];
/// Requests of each kind that a client makes without checkpoints.
const REQUESTS: u32 = 2_000;
/// With them, a client makes for so long the requests of each kind, and is answered once an epoch
/// and what a checkpoint takes.
const LOAD_MS: u32 = 2_000;
const CHECKPOINT_MS: u32 = 4;
/// As a busy host needs it: no pair is to part.
const TIMEOUT_MS: &str = "2000";

/// Protection of the guest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Nothing,
    Replay,
    /// Replay, and events enter at exits alone.
    Exits,
    Checkpoints {
        epoch_ms: u32,
    },
}

impl By {
    fn all() -> impl Iterator<Item = Self> {
        let checkpoints = EPOCHS_MS.map(|epoch_ms| Self::Checkpoints { epoch_ms });
        [Self::Nothing, Self::Replay, Self::Exits]
            .into_iter()
            .chain(checkpoints)
    }

    fn name(self) -> String {
        match self {
            Self::Nothing => "unprotected".to_owned(),
            Self::Replay => "replay".to_owned(),
            Self::Exits => "replay, exits".to_owned(),
            Self::Checkpoints { epoch_ms } => format!("--epoch-ms {epoch_ms}"),
        }
    }

    /// Requests of each kind, of all clients.
    fn requests(self, clients: u32) -> u32 {
        match self {
            Self::Checkpoints { epoch_ms } => clients * LOAD_MS / (epoch_ms + CHECKPOINT_MS),
            _ => clients * REQUESTS,
        }
    }
}

/// One run: what clients saw, and what the log took.
#[derive(Clone, Copy, Debug)]
struct Run {
    sample: Sample,
    log_bytes_per_second: f64,
    log_bytes_per_request: f64,
}

/// Medians of so many rounds.
pub fn figures(rounds: u64) -> Value {
    let mut rows = Vec::new();
    for clients in CLIENTS {
        let mut runs: Vec<(By, Vec<Run>)> = By::all().map(|by| (by, Vec::new())).collect();
        for round in 0..rounds {
            eprintln!(
                "bench: {clients} clients, round {} of {rounds}, with checkpoints and without",
                round + 1
            );
            for (by, of) in &mut runs {
                of.push(run(*by, clients));
            }
        }
        let unprotected = medians(&runs[0].1);
        let replay = medians(&runs[1].1);
        let row = |(by, of): &(By, Vec<Run>)| row(*by, clients, of, [&unprotected, &replay]);
        rows.extend(runs.iter().map(row));
    }
    Value::Array(rows)
}

fn run(by: By, clients: u32) -> Run {
    let requests = by.requests(clients);
    let spec = PairSpec::new(Guest::KeyValue)
        .with_quiet_switch()
        .setting("timeout-ms", TIMEOUT_MS);
    let spec = match by {
        By::Nothing => {
            return Run {
                sample: serving::unprotected(clients, 1, requests),
                log_bytes_per_second: 0.0,
                log_bytes_per_request: 0.0,
            };
        }
        By::Replay => spec,
        By::Exits => spec.setting("event-latency-ms", "0"),
        By::Checkpoints { epoch_ms } => spec
            .setting("mode", "checkpoint")
            .setting("epoch-ms", &epoch_ms.to_string()),
    };
    serving::of_pairs(&spec, |pair| {
        let (started, bytes) = (Instant::now(), pair::log_bytes(pair));
        let sample = serving::load(pair, clients, 1, requests);
        let seconds = started.elapsed().as_secs_f64();
        let bytes = (pair::log_bytes(pair) - bytes) as f64;
        Run {
            sample,
            log_bytes_per_second: bytes / seconds,
            log_bytes_per_request: bytes / (f64::from(requests) * serving::COMMANDS_COUNT),
        }
    })
}

fn medians(runs: &[Run]) -> Run {
    let of = |field: fn(&Run) -> f64| median(runs.iter().map(field).collect());
    Run {
        sample: Sample {
            requests_per_second: of(|run| run.sample.requests_per_second),
            cpu_us_per_request: of(|run| run.sample.cpu_us_per_request),
            p50_ms: of(|run| run.sample.p50_ms),
            p99_ms: of(|run| run.sample.p99_ms),
        },
        log_bytes_per_second: of(|run| run.log_bytes_per_second),
        log_bytes_per_request: of(|run| run.log_bytes_per_request),
    }
}

fn row(by: By, clients: u32, runs: &[Run], [unprotected, replay]: [&Run; 2]) -> Value {
    let median = medians(runs);
    let spread = |field: fn(&Run) -> f64| {
        let values = || runs.iter().map(field);
        [
            values().fold(f64::NAN, f64::min),
            values().fold(f64::NAN, f64::max),
        ]
    };
    json!({
        "clients": clients,
        "by": by.name(),
        "rounds": runs.len(),
        "requests_per_second": median.sample.requests_per_second,
        "requests_per_second_spread": spread(|run| run.sample.requests_per_second),
        "of_replay": median.sample.requests_per_second / replay.sample.requests_per_second,
        "p50_ms": median.sample.p50_ms,
        "p50_ms_spread": spread(|run| run.sample.p50_ms),
        "added_p50_ms": median.sample.p50_ms - unprotected.sample.p50_ms,
        "p99_ms": median.sample.p99_ms,
        "cpu_us_per_request": median.sample.cpu_us_per_request,
        "log_bytes_per_second": median.log_bytes_per_second,
        "log_bytes_per_request": median.log_bytes_per_request,
    })
}

/// A table for people.
pub fn print(figures: &Value) {
    println!(
        "\n{:>7} {:14} | {:>10} {:>19} {:>9} | {:>7} {:>15} {:>8} {:>8} | {:>9} | {:>9} {:>11}",
        "clients",
        "protected by",
        "requests/s",
        "least to most",
        "of replay",
        "p50 ms",
        "least to most",
        "added ms",
        "p99 ms",
        "CPU us/op",
        "log KiB/s",
        "bytes a req"
    );
    for row in figures.as_array().into_iter().flatten() {
        let number = |key: &str| row[key].as_f64().unwrap_or(f64::NAN);
        let end = |key: &str, end: usize| row[key][end].as_f64().unwrap_or(f64::NAN);
        println!(
            "{:7} {:14} | {:10.0} {:9.0} {:9.0} {:9.3} | {:7.2} {:7.2} {:7.2} {:8.2} {:8.2} | {:9.1} | {:9.1} {:11.0}",
            number("clients"),
            row["by"].as_str().unwrap_or_default(),
            number("requests_per_second"),
            end("requests_per_second_spread", 0),
            end("requests_per_second_spread", 1),
            number("of_replay"),
            number("p50_ms"),
            end("p50_ms_spread", 0),
            end("p50_ms_spread", 1),
            number("added_p50_ms"),
            number("p99_ms"),
            number("cpu_us_per_request"),
            number("log_bytes_per_second") / 1024.0,
            number("log_bytes_per_request"),
        );
    }
}
