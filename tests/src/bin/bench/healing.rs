//! A machine that acts alone takes a newcomer while its guest writes memory and serves clients: how
//! long the guest is paused, how long it takes until the newcomer is armed, how long clients wait
//! meanwhile, and how much memory both sides use.
//!
//! The guest counts the pages that it writes and the longest time it did not get to it, and says so
//! once a second.

use super::measure::median;
use super::options::Healing;
use lockstep_tests::harness::{Client, Guest, Replica, Reply, Scratch, Switch, lockstep};
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// Clients, each with one request at a time and a pause before the next.
const CLIENTS: usize = 4;
const CLIENT_PAUSE: Duration = Duration::from_millis(2);
/// The guest and its clients are watched for so long before the newcomer starts.
const BEFORE: Duration = Duration::from_secs(3);
/// Newcomers that were lost, as on a busy host, before a cell of the table stays empty.
const LOST_MAX: usize = 3;
/// Mebibytes that the guest itself needs, or a sixteenth of its memory where that is more.
const GUEST_MIB: u64 = 24;
/// A guest fills 3 GiB in half a minute where nothing else runs.
const FILLED_MAX: Duration = Duration::from_secs(600);
/// Bytes that the local channel is measured with, in pieces of as many as a record has.
const CHANNEL_BYTES: u64 = 512 << 20;
const PIECE_BYTES: usize = 128 << 10;

/// One cell of the table.
#[derive(Clone, Copy, Debug)]
struct Cell {
    memory_mib: u64,
    pages_a_second: u64,
    /// 0: whatever the channel takes.
    mbit_s: u64,
}

impl Cell {
    fn written_mib(self) -> u64 {
        self.memory_mib - GUEST_MIB.max(self.memory_mib / 16)
    }
}

/// Figures of each cell; printed as they come.
pub fn figures(options: &Healing) -> Value {
    let local_mbit_s = local_mbit_s();
    println!("\na newcomer joins a machine whose guest writes; local channel {local_mbit_s:.0} Mbit/s");
    header();
    let mut rows = Vec::new();
    for memory_mib in options.memory_mib.iter().copied() {
        for pages_a_second in options.pages_a_second.iter().copied() {
            for mbit_s in options.mbit_s.iter().copied() {
                let cell = Cell {
                    memory_mib,
                    pages_a_second,
                    mbit_s,
                };
                let rounds: Vec<Value> = (0..options.rounds)
                    .filter_map(|_| patiently(cell, options))
                    .collect();
                let channel = if mbit_s == 0 { local_mbit_s } else { mbit_s as f64 };
                let row = medians(cell, channel, &rounds);
                print(&row);
                rows.push(row);
            }
        }
    }
    json!({ "local_channel_mbit_s": local_mbit_s, "rows": rows })
}

/// Rate of a local channel when nothing else is done.
fn local_mbit_s() -> f64 {
    let (mut from, mut to) = UnixStream::pair().expect("a socket pair");
    let reading = thread::spawn(move || {
        let mut bytes = vec![0; PIECE_BYTES];
        while to.read(&mut bytes).is_ok_and(|count| count > 0) {}
    });
    let piece = vec![1; PIECE_BYTES];
    let begun = Instant::now();
    for _ in 0..CHANNEL_BYTES / PIECE_BYTES as u64 {
        from.write_all(&piece).expect("it is read");
    }
    drop(from);
    reading.join().expect("a reader");
    CHANNEL_BYTES as f64 * 8.0 / 1e6 / begun.elapsed().as_secs_f64()
}

fn patiently(cell: Cell, options: &Healing) -> Option<Value> {
    for _ in 0..LOST_MAX {
        match measure(cell, options) {
            Ok(measured) => return Some(measured),
            Err(why) => eprintln!("bench: {cell:?}: {why}: measured again; this host is busy"),
        }
    }
    None
}

/// A machine of one cell.
struct Fixture {
    scratch: Scratch,
    switch: Switch,
    cell: Cell,
    timeout_ms: u64,
}

impl Fixture {
    fn start(&self, name: &str) -> Replica {
        let report = self.scratch.join(&format!("{name}.jsonl"));
        let Cell {
            memory_mib,
            pages_a_second,
            mbit_s,
        } = self.cell;
        let mut command: Command = lockstep();
        command
            .arg("replica")
            .arg(Guest::KeyValue.image())
            .args(["--name", "web"])
            .arg(format!("--memory-mib={memory_mib}"))
            .arg(format!(
                "--command-line=write_mib={} write_pages={pages_a_second}",
                self.cell.written_mib()
            ))
            .arg(format!("--transfer-mbit={mbit_s}"))
            .arg(format!("--timeout-ms={}", self.timeout_ms))
            .arg(format!("--lag-ms-max={}", self.timeout_ms * 5))
            .arg("--network")
            .arg(self.switch.attachment())
            .arg("--shared-directory")
            .arg(self.scratch.join("shared"))
            .arg("--report")
            .arg(&report);
        Replica::start(name, &mut command, report)
    }
}

fn measure(cell: Cell, options: &Healing) -> Result<Value, String> {
    let scratch = Scratch::new();
    scratch.directory("shared");
    let switch = Switch::start_quiet(&scratch);
    let fixture = Fixture {
        scratch,
        switch,
        cell,
        timeout_ms: options.timeout_ms,
    };
    let mut holder = fixture.start("holder");
    holder.wait_for("listening");
    let begun = Instant::now();
    while !holder.process.stdout().contains("key-value: ready") {
        if begun.elapsed() > FILLED_MAX || !holder.process.is_running() {
            return Err("the guest does not get to its end of filling memory".to_owned());
        }
        thread::sleep(Duration::from_millis(50));
    }
    let clients = Clients::start(fixture.switch.client_address());
    let lines = wait_for_lines(&holder, 1);
    thread::sleep(BEFORE);
    let before = clients.take();
    let guest_before = account(&holder, lines);
    let lines = lines_of(&holder).len();
    forget_peak(holder.process.id());
    let begun = Instant::now();
    let mut newcomer = fixture.start("newcomer");
    let armed = armed(&mut holder, &mut newcomer);
    let took = begun.elapsed();
    let during = clients.take();
    if let Err(why) = armed {
        clients.stop();
        return Err(why);
    }
    // The line that has the end of the transfer in it.
    wait_for_lines(&holder, lines_of(&holder).len() + 1);
    let guest_during = account(&holder, lines);
    let sent = holder.event("sent");
    let memory =
        json!({ "holder": memory_of(holder.process.id()), "newcomer": memory_of(newcomer.process.id()) });
    clients.stop();
    Ok(json!({
        "sent": sent.ok_or("no report of what was sent")?,
        "armed_s": took.as_secs_f64(),
        "guest_before": guest_before,
        "guest_during": guest_during,
        "client_before": latency(before),
        "client_during": latency(during),
        "memory": memory,
    }))
}

/// Waits until both sides say that the newcomer is armed.
fn armed(holder: &mut Replica, newcomer: &mut Replica) -> Result<(), String> {
    lockstep_tests::harness::wait_until(
        || {
            let lost = holder
                .event("newcomer_lost")
                .map(|lost| Err(format!("the newcomer was lost: {}", lost["cause"])));
            let gone = (!newcomer.process.is_running()).then(|| Err("the newcomer has ended".to_owned()));
            let armed = holder.event("armed").and(newcomer.event("armed")).map(|_| Ok(()));
            thread::sleep(Duration::from_millis(20));
            armed.or(lost).or(gone)
        },
        || format!("`armed`: {:?}", holder.events()),
    )
}

/// Figures that the guest has printed so far: pages a second, and its longest turn in microseconds.
fn lines_of(holder: &Replica) -> Vec<[u64; 2]> {
    let said = holder.process.stdout();
    let line = |line: &str| {
        let rest = line.split_once("writer: ")?.1;
        let (pages, rest) = rest.split_once(" pages/s, longest turn ")?;
        Some([pages.parse().ok()?, rest.strip_suffix(" us")?.parse().ok()?])
    };
    said.lines().filter_map(line).collect()
}

fn wait_for_lines(holder: &Replica, count: usize) -> usize {
    lockstep_tests::harness::wait_until(
        || Some(lines_of(holder).len()).filter(|lines| *lines >= count),
        || format!("a line of the guest: {}", holder.process.stdout()),
    )
}

/// Median of the pages a second, and the longest turn, since so many lines.
fn account(holder: &Replica, lines: usize) -> Value {
    let said = lines_of(holder);
    let said = said.get(lines..).unwrap_or_default();
    let pages = said.iter().map(|[pages, _]| *pages as f64).collect();
    let longest_us = said.iter().map(|[_, longest]| *longest).max();
    json!({ "pages_a_second": median(pages), "longest_turn_ms": longest_us.map(|us| us as f64 / 1e3) })
}

/// The largest resident set counts anew from here (proc(5), clear_refs).
fn forget_peak(process: u32) {
    // Without it the peak is that of the whole life: of the same machine, so little is lost.
    let _ = std::fs::write(format!("/proc/{process}/clear_refs"), "5");
}

/// Largest resident set, and proportional set now, in MiB.
fn memory_of(process: u32) -> Value {
    let field = |file: &str, name: &str| {
        let text = std::fs::read_to_string(format!("/proc/{process}/{file}")).ok()?;
        let line = text.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
        Some(kib >> 10)
    };
    json!({ "peak_rss_mib": field("status", "VmHWM:"), "pss_mib": field("smaps_rollup", "Pss:") })
}

/// Clients under way.
struct Clients {
    stopping: Arc<AtomicBool>,
    waits_ms: Arc<Mutex<Vec<f64>>>,
    threads: Vec<JoinHandle<()>>,
}

impl Clients {
    fn start(address: SocketAddr) -> Self {
        let (stopping, waits_ms) = (
            Arc::new(AtomicBool::new(false)),
            Arc::<Mutex<Vec<f64>>>::default(),
        );
        let threads = (0..CLIENTS)
            .map(|number| {
                let (stopping, waits_ms) = (stopping.clone(), waits_ms.clone());
                let mut client = Client::connect(address);
                thread::spawn(move || {
                    let key = format!("client-{number}");
                    while !stopping.load(Ordering::Relaxed) {
                        let begun = Instant::now();
                        assert_eq!(client.call(&["SET", &key, "value"]), Reply::ok());
                        let waited_ms = begun.elapsed().as_secs_f64() * 1e3;
                        waits_ms.lock().expect("no client fails").push(waited_ms);
                        thread::sleep(CLIENT_PAUSE);
                    }
                })
            })
            .collect();
        Self {
            stopping,
            waits_ms,
            threads,
        }
    }

    /// The waits since this was last asked.
    fn take(&self) -> Vec<f64> {
        std::mem::take(&mut *self.waits_ms.lock().expect("no client fails"))
    }

    fn stop(self) {
        self.stopping.store(true, Ordering::Relaxed);
        for thread in self.threads {
            thread.join().expect("no connection breaks");
        }
    }
}

fn latency(waits_ms: Vec<f64>) -> Value {
    let longest = waits_ms.iter().copied().fold(f64::NAN, f64::max);
    json!({ "requests": waits_ms.len(), "p50_ms": median(waits_ms), "max_ms": longest })
}

/// Medians of the rounds; of the longest pause and wait also the longest of all.
fn medians(cell: Cell, channel_mbit_s: f64, rounds: &[Value]) -> Value {
    let values = |path: &str| -> Vec<f64> {
        let found = rounds.iter().filter_map(|round| round.pointer(path)?.as_f64());
        found.collect()
    };
    let of = |path: &str| median(values(path));
    let most = |path: &str| values(path).into_iter().fold(f64::NAN, f64::max);
    let memory_s = (cell.memory_mib << 20) as f64 * 8.0 / 1e6 / channel_mbit_s;
    json!({
        "memory_mib": cell.memory_mib,
        "pages_a_second": cell.pages_a_second,
        "transfer_mbit": cell.mbit_s,
        "rounds": rounds.len(),
        "pause_ms": of("/sent/pause_ns") / 1e6,
        "pause_ms_max": most("/sent/pause_ns") / 1e6,
        "pages_a_second_written": of("/guest_during/pages_a_second"),
        "longest_turn_ms": of("/guest_during/longest_turn_ms"),
        "longest_turn_ms_before": of("/guest_before/longest_turn_ms"),
        "sent_s": of("/sent/took_ns") / 1e9,
        "armed_s": of("/armed_s"),
        "memory_through_channel_s": memory_s,
        "armed_ratio": of("/armed_s") / memory_s,
        "channel_rounds": of("/sent/rounds"),
        "copied_mib": of("/sent/copied_pages") / 256.0,
        "declined": of("/sent/declined"),
        "sent_mib": of("/sent/bytes") / f64::from(1 << 20),
        "client_p50_ms_before": of("/client_before/p50_ms"),
        "client_p50_ms": of("/client_during/p50_ms"),
        "client_max_ms_before": most("/client_before/max_ms"),
        "client_max_ms": most("/client_during/max_ms"),
        "holder_peak_rss_mib": most("/memory/holder/peak_rss_mib"),
        "holder_pss_mib": of("/memory/holder/pss_mib"),
        "newcomer_peak_rss_mib": most("/memory/newcomer/peak_rss_mib"),
        "newcomer_pss_mib": of("/memory/newcomer/pss_mib"),
    })
}

fn header() {
    println!(
        "{:>6} {:>8} {:>6} | {:>15} | {:>15} | {:>13} | {:>8} {:>5} {:>8} | {:>13} | {:>15} | {:>11} | {:>11}",
        "MiB",
        "pages/s",
        "Mbit/s",
        "pause ms (most)",
        "turn ms(before)",
        "armed s (x)",
        "sent MiB",
        "rnds",
        "copied",
        "p50 (before)",
        "most ms(before)",
        "holder MiB",
        "newcomer"
    );
}

fn print(row: &Value) {
    let number = |key: &str| row[key].as_f64().unwrap_or(f64::NAN);
    println!(
        "{:6.0} {:8.0} {:6.0} | {:7.1} {:7.1} | {:7.1} {:7.1} | {:7.1} {:5.1} | {:8.0} {:5.0} {:8.0} | {:6.2} {:6.2} | {:7.1} {:7.1} | {:5.0} {:5.0} | {:5.0} {:5.0}",
        number("memory_mib"),
        number("pages_a_second_written"),
        number("transfer_mbit"),
        number("pause_ms"),
        number("pause_ms_max"),
        number("longest_turn_ms"),
        number("longest_turn_ms_before"),
        number("armed_s"),
        number("armed_ratio"),
        number("sent_mib"),
        number("channel_rounds"),
        number("copied_mib"),
        number("client_p50_ms"),
        number("client_p50_ms_before"),
        number("client_max_ms"),
        number("client_max_ms_before"),
        number("holder_peak_rss_mib"),
        number("holder_pss_mib"),
        number("newcomer_peak_rss_mib"),
        number("newcomer_pss_mib"),
    );
}
