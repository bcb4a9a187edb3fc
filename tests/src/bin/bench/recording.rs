//! Cost of the snapshots of a recording, and the time in which they bring a replay to its end.

use super::measure::{Sample, median};
use super::serving;
use lockstep_tests::harness::{Client, Guest, Process, Scratch, Switch, lockstep};
use nix::sys::signal::Signal;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

/// Time between two snapshots.
const EVERY: &str = "--snapshot-every=2s";
/// Clients, pipeline depth, and requests of each kind in one load.
const LOAD: (u32, u32, u32) = (16, 1, 20_000);
/// Loads one after the other: ten seconds or more in all.
const LOADS: usize = 3;
/// Recordings without snapshots and with them, in turn.
const ROUNDS: usize = 3;

/// Records the key-value guest under load, without snapshots and with them, in turn; replays the
/// last recording whole, from its last snapshot, and in pieces.
pub fn figures() -> Value {
    let scratch = Scratch::new();
    let (mut without, mut with) = (Vec::new(), Vec::new());
    for round in 1..=ROUNDS {
        without.extend(recorded(&scratch, &format!("plain-{round}"), &[]));
        with.extend(recorded(&scratch, &format!("snapshots-{round}"), &[EVERY]));
    }
    let (plain, snapshots) = (medians(&without), medians(&with));
    let log = scratch.join(&format!("snapshots-{ROUNDS}"));
    let alone = scratch.join("alone");
    std::fs::copy(&log, &alone).expect("a log can be copied");
    let info = run(lockstep().args(["log", "info", "--json"]).arg(&log)).0;
    let info: Value = serde_json::from_str(&info).expect("JSON");
    let listed = info["snapshots"].as_array().expect("a list");
    let bytes: u64 = listed.iter().filter_map(|one| one["bytes"].as_u64()).sum();
    json!({
        "every": EVERY,
        "plain": plain,
        "with_snapshots": snapshots,
        "throughput_ratio": number(&snapshots, "requests_per_second") / number(&plain, "requests_per_second"),
        "entries": info["entries"],
        "log_bytes": info["bytes"],
        "snapshots": listed.len(),
        "snapshot_bytes": bytes,
        "replay_seconds": timed("replay", &log, &[]),
        "replay_from_last_seconds": timed("replay", &log, &["--from", "last"]),
        "verify_whole_seconds": timed("verify", &alone, &[]),
        "verify_in_pieces_seconds": timed("verify", &log, &[]),
        "processors": std::thread::available_parallelism().map_or(0, usize::from),
    })
}

/// Prints them.
pub fn print(figures: &Value) {
    let (plain, with) = (&figures["plain"], &figures["with_snapshots"]);
    println!("\nrecording under 16 clients           | without snapshots | {EVERY}");
    for (name, key) in [("requests/s", "requests_per_second"), ("p99 ms", "p99_ms")] {
        println!(
            "{name:36} | {:17.2} | {:.2}",
            number(plain, key),
            number(with, key)
        );
    }
    println!(
        "{} entries in {} bytes, {} snapshots in {} bytes",
        figures["entries"], figures["log_bytes"], figures["snapshots"], figures["snapshot_bytes"]
    );
    for (name, key) in [
        ("replay, all of it", "replay_seconds"),
        ("replay --from last", "replay_from_last_seconds"),
        ("verify, without snapshots", "verify_whole_seconds"),
        ("verify, in pieces", "verify_in_pieces_seconds"),
    ] {
        println!("{name:36} | {:.2} s", number(figures, key));
    }
}

fn number(row: &Value, key: &str) -> f64 {
    row[key].as_f64().unwrap_or(f64::NAN)
}

fn recorded(scratch: &Scratch, name: &str, flags: &[&str]) -> Vec<Sample> {
    let switch = Switch::start_quiet(scratch);
    let log: PathBuf = scratch.join(name);
    let mut command = lockstep();
    command.arg("record").arg(Guest::KeyValue.image()).args(flags);
    command.arg("--log").arg(&log);
    let mut recording = Process::start(name, command.arg("--network").arg(switch.attachment()));
    drop(Client::connect(switch.client_address()));
    let (clients, pipeline, requests) = LOAD;
    let samples = (0..LOADS)
        .map(|_| {
            serving::benchmark(
                switch.client_address(),
                recording.id(),
                clients,
                pipeline,
                requests,
            )
        })
        .collect();
    recording.signal(Signal::SIGTERM);
    let _ = recording.wait().expect_code(0);
    samples
}

fn medians(samples: &[Sample]) -> Value {
    let of = |field: fn(&Sample) -> f64| median(samples.iter().map(field).collect());
    json!({
        "requests_per_second": of(|sample| sample.requests_per_second),
        "p50_ms": of(|sample| sample.p50_ms),
        "p99_ms": of(|sample| sample.p99_ms),
    })
}

fn timed(verb: &str, log: &Path, flags: &[&str]) -> f64 {
    let mut command = lockstep();
    command.arg(verb).arg(Guest::KeyValue.image()).args(flags);
    run(command.arg("--log").arg(log)).1
}

/// Runs a command, however long it takes: what it printed, and its time in seconds.
fn run(command: &mut Command) -> (String, f64) {
    let begun = Instant::now();
    let output = command.output().expect("the command runs");
    assert!(output.status.success(), "{command:?}: {output:?}");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    (text, begun.elapsed().as_secs_f64())
}
