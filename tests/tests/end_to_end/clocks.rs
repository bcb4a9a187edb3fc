//! Instruction clocks: an event enters at instruction N after an exit, N varies, and a replay lands
//! at the same N.

use lockstep_tests::harness::process::run;
use lockstep_tests::harness::{Ended, Guest, Scratch, kvm, lockstep};
use serde_json::Value;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;

/// One loop in ring 0 without an exit, into which timer interrupts land. Without a clock it ends by
/// its count. There are many, because on a busy host most timers are over before the guest is in
/// it: their interrupts enter at the exit itself.
const LOOP: &str = "sources=timer0 landings=64 spin0=100000000";

fn command(verb: &str, clock: &str, command_line: &str) -> Command {
    let mut command = lockstep();
    command
        .arg(verb)
        .arg(Guest::Entropy.image())
        .args(["--clock", clock, "--memory-mib", "16"]);
    command.args(["--command-line", command_line]);
    command
}

/// True if this host has `clock`; where it has not, it says so with status 4, and the test is
/// skipped.
fn offered(clock: &str) -> bool {
    let ended = run(&mut command("run", clock, "sources=cpuid"));
    let offered = ended.code() != Some(4);
    if !offered {
        ended.expect_named(&[clock]);
        kvm::skip(&format!("this host's KVM has no instruction clock `{clock}`"));
    }
    offered
}

fn recorded(clock: &str, command_line: &str, log: &Path) -> Ended {
    run(command("record", clock, command_line).arg("--log").arg(log)).expect_code(0)
}

fn replayed(clock: &str, command_line: &str, log: &Path) -> Ended {
    run(command("replay", clock, command_line).arg("--log").arg(log)).expect_code(0)
}

/// Instructions after an exit at which the events of a log entered, and the instruction pointer
/// there.
fn landings(log: &Path) -> Vec<(u64, String)> {
    let dump = run(lockstep()
        .args(["log", "dump", "--json", "--kind", "event"])
        .arg(log))
    .expect_code(0);
    dump.stdout
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap())
        .filter(|entry| entry["body"]["event"] == "timer")
        .map(|entry| {
            (
                entry["instructions"].as_u64().unwrap(),
                entry["rip"].as_str().unwrap().to_owned(),
            )
        })
        .collect()
}

/// Timer interrupts that entered the guest's loop, as it says itself: those it was asked to wait
/// for, and sometimes one that fired before it had stopped its timer.
fn landed(ended: &Ended) -> u64 {
    let said = ended
        .stdout
        .split_once("landed ")
        .and_then(|(_, rest)| rest.split_once(','));
    let (count, _) = said.unwrap_or_else(|| panic!("no landings: {ended}"));
    count.parse().unwrap()
}

#[test]
fn the_statistic_clock_lands_anywhere_in_an_exit_free_loop_and_there_again() {
    let Some(_kvm) = kvm::shared() else { return };
    if !offered("statistic") {
        return;
    }
    let scratch = Scratch::new();
    let log = scratch.join("log");
    let first = recorded("statistic", LOOP, &log);
    assert!(landed(&first) >= 64, "{first}");
    let positions = landings(&log);
    assert!(positions.len() as u64 >= landed(&first), "{positions:?}, {first}");
    let within: Vec<_> = positions
        .iter()
        .filter(|(instructions, _)| *instructions > 0)
        .collect();
    assert!(within.iter().all(|(_, rip)| rip != "0x0"), "{positions:?}");
    let different: BTreeSet<u64> = within.iter().map(|(instructions, _)| *instructions).collect();
    assert!(different.len() > 1, "{positions:?}");
    for _ in 0..5 {
        // The guest prints the loop count at each landing: a replay that lands elsewhere prints
        // something else.
        assert_eq!(replayed("statistic", LOOP, &log).stdout, first.stdout);
    }
    let again = scratch.join("again");
    recorded("statistic", LOOP, &again).expect_named(&[]);
    assert_ne!(landings(&again), positions, "the outside decides where");
}

#[test]
fn the_step_clock_lands_in_an_exit_free_loop_and_there_again() {
    let Some(_kvm) = kvm::shared() else { return };
    if !offered("step") {
        return;
    }
    let scratch = Scratch::new();
    let (log, once) = (scratch.join("log"), "sources=timer0 landings=1 spin0=100000000");
    let first = recorded("step", once, &log);
    assert!(landed(&first) >= 1, "{first}");
    let positions = landings(&log);
    assert!(
        positions.iter().any(|(instructions, _)| *instructions > 0),
        "{positions:?}"
    );
    for _ in 0..3 {
        assert_eq!(replayed("step", once, &log).stdout, first.stdout);
    }
}

/// A loop in ring 3 into which timer interrupts land: one between two exits, as what follows an
/// interrupt is not counted.
const LOOP_IN_RING_3: &str = "sources=timer3 landings=8 spin3=400";

/// What the doctor finds of `property` on this host, and what it saw.
fn finding(property: &str) -> (String, String) {
    let ended = run(lockstep().args(["doctor", "--quick", "--json"]));
    let report: Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|why| panic!("{why}: {ended}"));
    let findings = report["findings"].as_array().unwrap();
    let found = findings.iter().find(|finding| finding["property"] == property);
    let text = |key: &str| found.unwrap()[key].as_str().unwrap().to_owned();
    (text("judgement"), text("seen"))
}

#[test]
fn the_step_clock_lands_anywhere_in_ring_3_where_that_is_exact() {
    let Some(_kvm) = kvm::alone() else { return };
    let (judgement, seen) = finding("clock.step.ring3");
    if judgement != "yes" {
        kvm::skip(&format!(
            "clock `step` is not exact in ring 3 of this host ({seen}); `make lab-test TEST=clocks` has one"
        ));
        return;
    }
    let scratch = Scratch::new();
    let mut all = BTreeSet::new();
    for recording in 0..3 {
        let log = scratch.join(&format!("log-{recording}"));
        let first = recorded("step", LOOP_IN_RING_3, &log);
        assert!(landed(&first) >= 8, "{first}");
        let between: Vec<_> = landings(&log)
            .into_iter()
            .filter(|(instructions, _)| *instructions > 0)
            .collect();
        assert!(!between.is_empty(), "nothing landed between two exits: {first}");
        all.extend(between.into_iter().map(|(instructions, _)| instructions));
        // The guest prints the loop count at each landing: a replay that lands elsewhere prints
        // something else.
        for _ in 0..2 {
            assert_eq!(replayed("step", LOOP_IN_RING_3, &log).stdout, first.stdout);
        }
    }
    assert!(all.len() > 3, "the outside decides where: {all:?}");
}

#[test]
fn without_a_clock_events_enter_at_exits_only() {
    let Some(_kvm) = kvm::shared() else { return };
    let scratch = Scratch::new();
    let (log, both) = (
        scratch.join("log"),
        "sources=timer0,timer3,halt spin0=20000 spin3=20000 landings=3",
    );
    // Nor at common points.
    let mut record = command("record", "none", both);
    let first = run(record.args(["--event-latency-ms", "0"]).arg("--log").arg(&log)).expect_code(0);
    assert!(
        first.stdout.contains("timer0: ") && first.stdout.contains("landed 0, spun 20000"),
        "{first}"
    );
    let positions = landings(&log);
    assert!(
        !positions.is_empty() && positions.iter().all(|(instructions, _)| *instructions == 0),
        "{positions:?}"
    );
    assert_eq!(replayed("none", both, &log).stdout, first.stdout);
}

#[test]
fn every_source_is_replayed_with_every_clock() {
    let Some(_kvm) = kvm::shared() else { return };
    for clock in ["none", "step", "statistic"] {
        if !offered(clock) {
            continue;
        }
        let options = "rounds=2 spin0=20000 spin3=20000 landings=3 frames_ms=5 console_ms=5";
        let ended = run(command("verify", clock, options).args(["--runs", "3"])).expect_code(0);
        assert!(
            ended.stdout.contains("replayed 3 times without divergence"),
            "{ended}"
        );
    }
}

/// What is stepped ends in ring 3, halts, returns from interrupts and uses the network: none of it
/// may be told from running.
#[test]
fn the_step_clock_records_the_whole_entropy_guest_again_and_again() {
    let Some(_kvm) = kvm::shared() else { return };
    if !offered("step") {
        return;
    }
    let options = "rounds=2 spin0=20000 spin3=20000 landings=3 frames_ms=5 console_ms=5";
    for _ in 0..8 {
        let ended = run(command("verify", "step", options).args(["--runs", "3"])).expect_code(0);
        assert!(
            ended.stdout.contains("replayed 3 times without divergence"),
            "{ended}"
        );
    }
}
