//! The fuzz targets as ordinary tests: every seed, then mutations of the seeds, the same ones from
//! the same `LOCKSTEP_SEED`. `LOCKSTEP_FUZZ_TIMES` multiplies their number. What fails is printed
//! as the text of a new seed.
#![allow(clippy::expect_used, clippy::panic, reason = "a test may fail")]

mod memory;

use lockstep_tests::fuzz::corpus::{self, Seed};
use lockstep_tests::fuzz::mutate::{self, Random};
use lockstep_tests::fuzz::{TARGETS, Target, target};

/// Prints the input that a target panics at.
struct Watch<'a> {
    target: &'a str,
    origin: &'a str,
    bytes: &'a [u8],
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let Self {
                target,
                origin,
                bytes,
            } = self;
            println!(
                "target {target} fails at {origin}; to keep it: tests/fuzz/seeds/{target}/NAME.hex with"
            );
            println!("{}", corpus::to_hex(bytes));
        }
    }
}

fn run(target: &Target, origin: &str, bytes: &[u8]) {
    let watch = Watch {
        target: target.name,
        origin,
        bytes,
    };
    (target.run)(bytes);
    memory::assert_bounded();
    drop(watch);
}

fn run_all(name: &str) {
    let (target, seeds) = (target(name), corpus::seeds(name));
    for Seed { name, bytes } in &seeds {
        run(&target, name, bytes);
    }
    let seed = Random::seed();
    println!("LOCKSTEP_SEED={seed}");
    let mut random = Random::new(seed);
    for number in 0..target.mutations * times() {
        run(
            &target,
            &format!("mutation {number}"),
            &mutate::mutated(&seeds, &mut random),
        );
    }
}

fn times() -> usize {
    std::env::var("LOCKSTEP_FUZZ_TIMES")
        .map_or(1, |times| times.parse().expect("LOCKSTEP_FUZZ_TIMES is a number"))
}

#[test]
fn log() {
    run_all("log");
}

#[test]
fn handshake() {
    run_all("handshake");
}

#[test]
fn configuration() {
    run_all("configuration");
}

#[test]
fn image() {
    run_all("image");
}

#[test]
fn kernel() {
    run_all("kernel");
}

#[test]
fn saved() {
    run_all("saved");
}

#[test]
fn devices() {
    run_all("devices");
}

#[test]
fn switch() {
    run_all("switch");
}

#[test]
fn resp() {
    run_all("resp");
}

#[test]
fn transfer() {
    run_all("transfer");
}

#[test]
fn snapshot() {
    run_all("snapshot");
}

#[test]
fn parts() {
    run_all("parts");
}

#[test]
fn disk() {
    run_all("disk");
}

/// What `make fuzz` would do.
fn make_fuzz() -> String {
    let mut make = std::process::Command::new("make");
    let root = concat!(env!("CARGO_MANIFEST_DIR"), "/..");
    let said = make.args(["--dry-run", "--directory", root, "fuzz"]).output();
    let said = said.expect("make, which starts these tests");
    String::from_utf8(said.stdout).expect("text")
}

/// Every target has a program for libFuzzer, which `make fuzz` runs, seeds, and a test here.
#[test]
fn every_target_is_driven_from_everywhere() {
    let folder = corpus::folder().with_file_name("fuzz_targets");
    let tests = include_str!("main.rs");
    let made = make_fuzz();
    let made = made.lines().find(|line| line.starts_with("for target in "));
    let made = made.expect("a line for all targets").replace(';', " ");
    for Target { name, .. } in TARGETS {
        let program =
            std::fs::read_to_string(folder.join(format!("{name}.rs"))).expect("a program for libFuzzer");
        assert!(program.contains(&format!("fuzz::{name}::run")), "{name}");
        assert!(!corpus::seeds(name).is_empty(), "{name}");
        assert!(tests.contains(&format!("run_all(\"{name}\")")), "{name}");
        assert!(
            made.split_whitespace().any(|word| word == *name),
            "{name}: {made}"
        );
    }
}

/// An input that breaks a promise is noticed.
#[test]
fn a_target_that_panics_fails() {
    let broken = Target {
        name: "broken",
        run: |bytes| assert!(bytes.len() < 3),
        mutations: 0,
    };
    run(&broken, "here", b"ok");
    let outcome = std::panic::catch_unwind(|| run(&broken, "here", b"not ok"));
    assert!(outcome.is_err());
}
