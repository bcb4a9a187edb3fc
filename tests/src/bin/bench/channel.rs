//! The lease of a pair whose channel is full: over TCP, between two network namespaces, at the rate
//! of a token bucket (`tc`, tbf).
//!
//! Primary, switch and clients are in one namespace, the backup is in the other. Large values are
//! written by many clients, so that the log wants more than the channel carries.

use lockstep_tests::harness::{Client, Guest, PairSpec, Replica, Scratch, Switch};
use nix::sched::{CloneFlags, unshare};
use serde_json::{Value, json};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Rates of the channel, in Mbit/s.
const RATES_MBIT_S: [u32; 2] = [1_000, 20];
const TIMEOUT_MS: u32 = 200;
/// The most that the bucket's queue holds, as time: more is lost, as on a router. A quarter of the
/// timeout, the lease is half.
const QUEUE_MS: u32 = 50;
/// Time for which the channel is kept full.
const FULL: Duration = Duration::from_secs(10);
const CLIENTS: u32 = 16;
const PIPELINE: u32 = 4;
const VALUE_BYTES: u32 = 16 << 10;
/// Figures that are compared with those of an earlier build.
const NAMED: [&str; 6] = [
    "log_mbit_s",
    "lease_gap_share",
    "lease_age_share",
    "lease_lapses",
    "failovers",
    "round_trip_us_p99",
];
/// Of the primary, and of the backup.
const ADDRESSES: [&str; 2] = ["10.99.1.1", "10.99.1.2"];

/// Figures of each rate, or why there are none.
pub fn figures() -> Value {
    let figures = RATES_MBIT_S.into_iter().map(one);
    Value::Array(figures.collect())
}

/// Figures of one rate, or why there are none. The thread has a network namespace of its own.
fn one(rate_mbit_s: u32) -> Value {
    let measured = thread::spawn(move || measure(rate_mbit_s)).join();
    let measured = measured.unwrap_or_else(|_| Err("the measurement failed".to_owned()));
    measured.unwrap_or_else(|why| json!({ "skipped": why }))
}

/// One run of each rate, as named figures; none of what the build does not report.
pub fn named() -> Vec<(String, f64)> {
    let named = RATES_MBIT_S.into_iter().flat_map(|rate| {
        let figures = one(rate);
        if let Some(why) = figures["skipped"].as_str() {
            eprintln!("bench: {rate} Mbit/s skipped: {why}");
        }
        let figure = move |key: &str| Some((format!("{rate} Mbit/s, {key}"), figures[key].as_f64()?));
        NAMED.into_iter().filter_map(figure)
    });
    named.collect()
}

fn shell(script: &str) -> Result<(), String> {
    let ran = Command::new("sh").args(["-ec", script]).output();
    let ran = ran.map_err(|why| format!("sh: {why}"))?;
    if ran.status.success() {
        return Ok(());
    }
    Err(format!(
        "`{script}`: {}",
        String::from_utf8_lossy(&ran.stderr).trim()
    ))
}

/// A process that keeps a network namespace, and ends with this value.
struct Other(std::process::Child);

impl Other {
    fn start() -> Result<Self, String> {
        let mut command = Command::new("unshare");
        // Ends with its standard input, so also with this process.
        command.args(["--net", "sh", "-c", "echo; exec cat"]);
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut other = Self(child.map_err(|why| format!("unshare: {why}"))?);
        let mut line = [0; 1];
        let made = other
            .0
            .stdout
            .as_mut()
            .map(|out| std::io::Read::read_exact(out, &mut line));
        match made {
            Some(Ok(())) => Ok(other),
            _ => Err("no network namespaces here".to_owned()),
        }
    }

    fn inside(&self) -> String {
        format!("nsenter --net=/proc/{}/ns/net", self.0.id())
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        // Nothing is left to do for one that has gone.
        let _ = self.0.wait();
    }
}

fn link(rate_mbit_s: u32) -> Result<Other, String> {
    unshare(CloneFlags::CLONE_NEWNET).map_err(|why| format!("no network namespace here: {why}"))?;
    let other = Other::start()?;
    let (id, inside, [here, there]) = (other.0.id(), other.inside(), ADDRESSES);
    // One bucket holds 2 ms of the rate, or a segment of the largest kind.
    let burst_bytes = (u64::from(rate_mbit_s) * 1_000_000 / 8 / 500).max(64 << 10);
    let bucket = format!("root tbf rate {rate_mbit_s}mbit burst {burst_bytes} latency {QUEUE_MS}ms");
    shell(&format!(
        "ip link set dev lo up
         ip link add name channel type veth peer name channel netns {id}
         ip address add {here}/24 dev channel
         ip link set dev channel up
         {inside} ip address add {there}/24 dev channel
         {inside} ip link set dev channel up
         tc qdisc add dev channel {bucket}
         {inside} tc qdisc add dev channel {bucket}"
    ))?;
    Ok(other)
}

fn measure(rate_mbit_s: u32) -> Result<Value, String> {
    let other = link(rate_mbit_s)?;
    let scratch = Scratch::new();
    let switch = Switch::start_quiet(&scratch);
    let spec = PairSpec::new(Guest::KeyValue)
        .setting("timeout-ms", &TIMEOUT_MS.to_string())
        .setting("lag-ms-max", "2000")
        .setting("network", &switch.attachment());
    let shared = scratch.directory("shared");
    let channel = format!("tcp:{}:7000", ADDRESSES[0]);
    let report = scratch.join("primary.jsonl");
    let mut command = spec.command("primary", &channel, &shared, &report);
    let mut primary = Replica::start("primary", &mut command, report);
    primary.wait_for("listening");
    let report = scratch.join("backup.jsonl");
    let command = spec.command("backup", &channel, &shared, &report);
    let mut entered = Command::new("nsenter");
    entered
        .arg(format!("--net=/proc/{}/ns/net", other.0.id()))
        .arg("--")
        .arg(command.get_program())
        .args(command.get_args());
    let mut backup = Replica::start("backup", &mut entered, report);
    primary.wait_for("protected");
    backup.wait_for("protected");
    drop(Client::connect(switch.client_address()));
    let before = newest(&primary);
    let started = Instant::now();
    let mut load = Command::new("redis-benchmark");
    load.args([
        "-h",
        "127.0.0.1",
        "-p",
        &switch.client_address().port().to_string(),
    ])
    .args(["-t", "set", "-l", "-q", "-r", "1000"])
    .args(["-c", &CLIENTS.to_string(), "-P", &PIPELINE.to_string()])
    .args(["-d", &VALUE_BYTES.to_string()])
    .stdout(Stdio::null())
    .stderr(Stdio::null());
    let mut load = load.spawn().map_err(|why| format!("redis-benchmark: {why}"))?;
    thread::sleep(FULL);
    let after = newest(&primary);
    let seconds = started.elapsed().as_secs_f64();
    let _ = load.kill();
    let _ = load.wait();
    let count = |value: &Value, key: &str| value[key].as_u64().unwrap_or(0);
    let log_bytes = count(&after, "log_bytes") - count(&before, "log_bytes");
    // None of what an earlier build does not report.
    let share = |key: &str| Some(after[key].as_f64()? / (f64::from(TIMEOUT_MS) * 1_000.0 / 2.0));
    let parted = [&primary, &backup]
        .iter()
        .find_map(|side| side.event("noticed"))
        .map(|noticed| noticed["cause"].clone());
    Ok(json!({
        "rate_mbit_s": rate_mbit_s,
        "log_mbit_s": log_bytes as f64 * 8.0 / 1e6 / seconds,
        "lease_gap_share": share("lease_gap_us_max"),
        "lease_age_share": share("lease_age_us_max"),
        "lease_lapses": after["lease_lapses"],
        "failovers": u32::from(parted.is_some()),
        "cause": parted,
        "held": primary.count("held"),
        "round_trip_us_p50": after["round_trip_us_p50"],
        "round_trip_us_p99": after["round_trip_us_p99"],
    }))
}

fn newest(primary: &Replica) -> Value {
    let events = primary.events();
    let newest = events.into_iter().rfind(|line| line["event"] == "statistics");
    newest.unwrap_or_default()
}

/// A table for people.
pub fn print(figures: &Value) {
    println!(
        "\nfull channel, timeout {TIMEOUT_MS} ms, {CLIENTS} clients, values of {VALUE_BYTES} bytes, {} s",
        FULL.as_secs()
    );
    println!(
        "  Mbit/s: of the link, of the log | longest, of the lease: between renewals, age at one | lapses, failovers"
    );
    for row in figures.as_array().into_iter().flatten() {
        if let Some(why) = row["skipped"].as_str() {
            println!("  skipped: {why}");
            continue;
        }
        let number = |key: &str| row[key].as_f64().unwrap_or(f64::NAN);
        println!(
            "  {:15} {:15.1} | {:34.2} {:19.2} | {:6} {:10}",
            row["rate_mbit_s"],
            number("log_mbit_s"),
            number("lease_gap_share"),
            number("lease_age_share"),
            row["lease_lapses"],
            row["failovers"]
        );
    }
}
