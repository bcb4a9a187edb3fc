//! The key-value guest under redis-benchmark, alone and protected.

use super::measure::{Sample, cpu_seconds};
use lockstep_tests::harness::{Client, Guest, Pair, PairSpec, Process, Scratch, Switch, lockstep};
use std::net::SocketAddr;
use std::process::Command;
use std::sync::OnceLock;

/// Commands of a workload.
const COMMANDS: &str = "set,get";
/// Number of them.
pub const COMMANDS_COUNT: f64 = 2.0;

/// Pairs that part while they are measured, before the figure is given up. Where each parts with
/// one half, all of them do in one of 32 runs; a sound host parts none.
const PARTED_MAX: usize = 5;

/// Silence after which a side gives up the other: that which users get.
const TIMEOUT_MS: u64 = 200;

/// Another one, for a host on which pairs part with it.
static TIMEOUT_MS_WANTED: OnceLock<u64> = OnceLock::new();

/// Has every pair be more patient, from here on.
pub fn be_patient(timeout_ms: u64) {
    // It is said once, when the command line was read.
    let _ = TIMEOUT_MS_WANTED.set(timeout_ms);
}

/// Silence after which a side gives up the other.
pub fn timeout_ms() -> u64 {
    TIMEOUT_MS_WANTED.get().copied().unwrap_or(TIMEOUT_MS)
}

/// One run against an unprotected machine.
pub fn unprotected(clients: u32, pipeline: u32, requests: u32) -> Sample {
    let scratch = Scratch::new();
    let switch = Switch::start_quiet(&scratch);
    let mut command = lockstep();
    command
        .arg("run")
        .arg(Guest::KeyValue.image())
        .arg("--network")
        .arg(switch.attachment());
    let machine = Process::start("run", &mut command);
    drop(Client::connect(switch.client_address()));
    benchmark(switch.client_address(), machine.id(), clients, pipeline, requests)
}

/// One run against a pair that stays one.
pub fn protected(clients: u32, pipeline: u32, requests: u32) -> Sample {
    of_a_pair(|pair| load(pair, clients, pipeline, requests))
}

/// A measurement of a pair that serves, and stays one meanwhile.
///
/// # Panics
/// Every pair parted.
pub fn of_a_pair<T>(measure: impl Fn(&Pair) -> T) -> T {
    let timeout_ms = timeout_ms();
    let spec = PairSpec::new(Guest::KeyValue)
        .with_quiet_switch()
        .setting("timeout-ms", &timeout_ms.to_string())
        .setting("lag-ms-max", &(timeout_ms * 5).to_string());
    of_pairs(&spec, measure)
}

/// The same, of a pair of `spec`.
///
/// # Panics
/// Every pair parted.
pub fn of_pairs<T>(spec: &PairSpec, measure: impl Fn(&Pair) -> T) -> T {
    (0..PARTED_MAX)
        .find_map(|_| {
            let pair = spec.start();
            drop(pair.client());
            let measured = measure(&pair);
            still_protected(&pair).then_some(measured)
        })
        .expect("a pair that does not part: this host is too busy for a figure")
}

/// True if the pair is still one. With the timeout that users get, another load on the host may
/// part it, and what was measured then is not a protected machine.
fn still_protected(pair: &Pair) -> bool {
    let parted = pair
        .primary
        .event("noticed")
        .or_else(|| pair.backup.event("noticed"));
    if let Some(noticed) = &parted {
        eprintln!(
            "bench: the pair parted ({}): measured again; this host is busy",
            noticed["cause"]
        );
    }
    parted.is_none()
}

/// A pair of `guest` that has just become one.
pub fn pair(guest: Guest) -> Pair {
    PairSpec::new(guest).start()
}

/// Runs `guest` to its end.
pub fn run_alone(guest: Guest) {
    let mut command = lockstep();
    command.arg("run").arg(guest.image());
    let _ = Process::start("run", &mut command).wait().expect_code(0);
}

/// Loads a pair.
pub fn load(pair: &Pair, clients: u32, pipeline: u32, requests: u32) -> Sample {
    let (address, primary) = (pair.switch().client_address(), pair.primary.process.id());
    benchmark(address, primary, clients, pipeline, requests)
}

/// Loads the guest at `address`, which process `machine` runs.
pub fn benchmark(address: SocketAddr, machine: u32, clients: u32, pipeline: u32, requests: u32) -> Sample {
    let before = cpu_seconds(machine);
    let output = Command::new("redis-benchmark")
        .args([
            "-h",
            &address.ip().to_string(),
            "-p",
            &address.port().to_string(),
            "-t",
            COMMANDS,
            "--csv",
        ])
        .args([
            "-c",
            &clients.to_string(),
            "-P",
            &pipeline.to_string(),
            "-n",
            &requests.to_string(),
        ])
        .output()
        .expect("redis-benchmark runs: `make deps` installs it");
    let cpu = cpu_seconds(machine) - before;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let column = |number: usize| mean(&text, number);
    Sample {
        requests_per_second: column(1),
        cpu_us_per_request: cpu * 1e6 / (f64::from(requests) * COMMANDS_COUNT),
        p50_ms: column(4),
        p99_ms: column(6),
    }
}

/// Mean of a column of redis-benchmark's CSV: test, rps, avg, min, p50, p95, p99, max.
fn mean(csv: &str, column: usize) -> f64 {
    let values: Vec<f64> = csv
        .lines()
        .skip(1)
        .filter_map(|line| line.split(',').nth(column)?.trim_matches('"').parse().ok())
        .collect();
    values.iter().sum::<f64>() / values.len() as f64
}
