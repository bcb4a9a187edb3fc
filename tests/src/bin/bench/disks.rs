//! Disks: the guest `disk` reads and writes one, alone, in a pair whose sides have an image each,
//! and in one whose sides share it, beside `fio` on the host with the same file; in turn, round by
//! round, so that whatever else the host does meets all of them.

use super::measure::median;
use lockstep_tests::harness::{Guest, PairSpec, Process, Scratch, lockstep};
use serde_json::{Value, json};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Size of the image: no hole, and nothing that compresses.
const IMAGE_MIB: usize = 64;
/// As a busy host needs it: no pair is to part.
const TIMEOUT_MS: &str = "2000";

/// A load.
struct Load {
    name: &'static str,
    /// As the guest and `fio` name it.
    measure: &'static str,
    fio: &'static str,
    block_kib: u64,
    blocks: u64,
    /// Blocks after which everything is flushed; 0: never.
    flush: u64,
    in_flight: u64,
}

/// 4 KiB anywhere and 1 MiB in order. A guest's request has 124 KiB at most: of a block of 1 MiB it
/// makes nine.
const LOADS: [Load; 6] = [
    Load {
        name: "4 KiB random reads",
        measure: "random-read",
        fio: "randread",
        block_kib: 4,
        blocks: 4000,
        flush: 0,
        in_flight: 8,
    },
    Load {
        name: "4 KiB random writes",
        measure: "random-write",
        fio: "randwrite",
        block_kib: 4,
        blocks: 4000,
        flush: 0,
        in_flight: 8,
    },
    Load {
        name: "4 KiB random writes, each flushed",
        measure: "random-write",
        fio: "randwrite",
        block_kib: 4,
        blocks: 200,
        flush: 1,
        in_flight: 1,
    },
    Load {
        name: "1 MiB sequential reads",
        measure: "sequential-read",
        fio: "read",
        block_kib: 1024,
        blocks: 128,
        flush: 0,
        in_flight: 16,
    },
    Load {
        name: "1 MiB sequential writes",
        measure: "sequential-write",
        fio: "write",
        block_kib: 1024,
        blocks: 128,
        flush: 0,
        in_flight: 16,
    },
    Load {
        name: "1 MiB sequential writes, each flushed",
        measure: "sequential-write",
        fio: "write",
        block_kib: 1024,
        blocks: 32,
        flush: 1,
        in_flight: 16,
    },
];

/// What carries the load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Fio,
    Run,
    Mirrored,
    Shared,
}

impl By {
    const ALL: [Self; 4] = [Self::Fio, Self::Run, Self::Mirrored, Self::Shared];

    fn key(self) -> &'static str {
        match self {
            Self::Fio => "fio",
            Self::Run => "run",
            Self::Mirrored => "mirrored",
            Self::Shared => "shared",
        }
    }
}

/// One run.
#[derive(Clone, Copy, Debug)]
struct Run {
    bytes_per_second: f64,
    /// Bytes of the log for each that was read or written.
    log_ratio: f64,
}

/// Medians of so many rounds.
pub fn figures(rounds: u64) -> Value {
    let rows = LOADS.iter().map(|load| row(load, rounds));
    Value::Array(rows.collect())
}

fn row(load: &Load, rounds: u64) -> Value {
    let mut runs = By::ALL.map(|by| (by, Vec::new()));
    for round in 1..=rounds {
        eprintln!("bench: {}, round {round} of {rounds}", load.name);
        for (by, of) in &mut runs {
            of.push(run(*by, load));
        }
    }
    let mut row = json!({ "load": load.name, "block_kib": load.block_kib, "blocks": load.blocks });
    for (by, of) in runs {
        let values = |field: fn(&Run) -> f64| of.iter().map(field).collect::<Vec<f64>>();
        let rates = values(|run| run.bytes_per_second);
        row[by.key()] = json!({
            "bytes_per_second": median(rates.clone()),
            "bytes_per_second_least": rates.iter().copied().fold(f64::INFINITY, f64::min),
            "bytes_per_second_most": rates.iter().copied().fold(0.0, f64::max),
            "log_bytes_per_byte": median(values(|run| run.log_ratio)),
        });
    }
    row
}

fn run(by: By, load: &Load) -> Run {
    let scratch = Scratch::new();
    let image = image(&scratch);
    match by {
        By::Fio => fio(load, &image),
        By::Run => alone(load, &image),
        By::Mirrored => {
            let copy = scratch.join("copy.img");
            fs::copy(&image, &copy).expect("an image can be copied");
            let text = |path: &Path| path.display().to_string();
            pair(load, scratch, [text(&image), text(&copy)])
        }
        By::Shared => {
            let disk = format!("{},shared", image.display());
            pair(load, scratch, [disk.clone(), disk])
        }
    }
}

/// An image of noise (xorshift64), written and synced, so that no load pays for it.
fn image(scratch: &Scratch) -> PathBuf {
    let mut state = 1_u64;
    let words = (0..(IMAGE_MIB << 20) / 8).flat_map(|_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    });
    let path = scratch.write("disk.img", words.collect::<Vec<u8>>());
    let file = fs::File::open(&path).and_then(|file| file.sync_all());
    file.expect("an image can be synced");
    path
}

fn guest_words(load: &Load) -> String {
    format!(
        "measure={} block_kib={} blocks={} flush={} in_flight={} area_kib={}",
        load.measure,
        load.block_kib,
        load.blocks,
        load.flush,
        load.in_flight,
        IMAGE_MIB << 10
    )
}

fn alone(load: &Load, image: &Path) -> Run {
    let mut command = lockstep();
    command.arg("run").arg(Guest::Disk.image());
    command
        .args(["--command-line", &guest_words(load), "--disk"])
        .arg(image);
    let ended = Process::start("run", &mut command).wait().expect_code(0);
    of_guest(&ended.stdout, 0.0)
}

fn pair(load: &Load, scratch: Scratch, disks: [String; 2]) -> Run {
    let spec = PairSpec::new(Guest::Disk)
        .with_disks(disks)
        .setting("timeout-ms", TIMEOUT_MS)
        .setting("command-line", &guest_words(load));
    let mut pair = spec.start_in(scratch);
    let ended = pair.primary.process.wait().expect_code(0);
    let log_bytes = pair.primary.summary()["log_bytes"].as_f64().unwrap_or(f64::NAN);
    of_guest(&ended.stdout, log_bytes)
}

/// What the guest has printed of itself: `disk: measured BYTES bytes in N blocks in US us`.
fn of_guest(stdout: &str, log_bytes: f64) -> Run {
    let (_, text) = stdout.split_once("measured ").expect("the guest has measured");
    let numbers: Vec<f64> = text.split(' ').filter_map(|word| word.parse().ok()).collect();
    let (bytes, us) = (numbers[0], numbers[2]);
    Run {
        bytes_per_second: bytes / us * 1e6,
        log_ratio: log_bytes / bytes,
    }
}

fn fio(load: &Load, image: &Path) -> Run {
    let bytes = load.blocks * (load.block_kib << 10);
    let mut command = Command::new("fio");
    command
        .args([
            "--name=bench",
            "--direct=1",
            "--ioengine=libaio",
            "--output-format=json",
        ])
        .arg(format!("--filename={}", image.display()))
        .arg(format!("--rw={}", load.fio))
        .arg(format!("--bs={}k", load.block_kib))
        .arg(format!("--size={IMAGE_MIB}m"))
        .arg(format!("--io_size={bytes}"))
        .arg(format!("--iodepth={}", load.in_flight));
    if load.flush > 0 {
        // It flushes at once only what it does not have under way.
        command
            .arg(format!("--fdatasync={}", load.flush))
            .arg("--iodepth=1");
    }
    let output = command.output().expect("fio runs: `make bench` installs it");
    assert!(output.status.success(), "{output:?}");
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let report: Value = serde_json::from_str(&text).expect("JSON of fio");
    let of = if load.fio.contains("read") {
        "read"
    } else {
        "write"
    };
    let number = |key: &str| report["jobs"][0][of][key].as_f64().unwrap_or(f64::NAN);
    Run {
        bytes_per_second: number("bw_bytes"),
        log_ratio: 0.0,
    }
}

/// Prints them.
pub fn print(figures: &Value) {
    println!(
        "\n{:38} | {:>9} {:>9} {:>9} {:>9} | log bytes a byte: {:>9} {:>9}",
        "disks, MiB/s", "fio", "run", "mirrored", "shared", "mirrored", "shared"
    );
    for row in figures.as_array().into_iter().flatten() {
        let rate = |by: By| number(&row[by.key()]["bytes_per_second"]) / f64::from(1 << 20);
        let log = |by: By| number(&row[by.key()]["log_bytes_per_byte"]);
        println!(
            "{:38} | {:9.1} {:9.1} {:9.1} {:9.1} | {:17} {:9.4} {:9.4}",
            row["load"].as_str().unwrap_or_default(),
            rate(By::Fio),
            rate(By::Run),
            rate(By::Mirrored),
            rate(By::Shared),
            "",
            log(By::Mirrored),
            log(By::Shared)
        );
    }
}

fn number(value: &Value) -> f64 {
    value.as_f64().unwrap_or(f64::NAN)
}
