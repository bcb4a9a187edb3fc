//! `lockstep doctor`: every property has its line, under a key that stays.

use lockstep_tests::harness::process::run;
use lockstep_tests::harness::{kvm, lockstep};
use serde_json::Value;
use std::collections::BTreeSet;

/// Keys are promises: added to, never renamed or taken away.
const PROPERTIES: [&str; 33] = [
    "kvm.access",
    "kvm.version",
    "kvm.capabilities",
    "performance_counter",
    "io_uring",
    "ports.ring3",
    "single_step.ring0",
    "single_step.ring3",
    "hardware_breakpoint.ring0",
    "hardware_breakpoint.ring3",
    "irq_window.ring0",
    "irq_window.ring3",
    "clock.step.ring0",
    "clock.step.ring3",
    "clock.statistic.ring0",
    "clock.statistic.ring3",
    "cpuid_table.ring0",
    "cpuid_table.ring3",
    "hidden_instructions.ring0",
    "hidden_instructions.ring3",
    "rdtsc_forbidden.ring3",
    "kernel_instructions.ring0",
    "state_transfer.ring3",
    "dirty_log",
    "determinism",
    "cost.exit.ring0",
    "cost.exit.ring3",
    "cost.interrupt.ring0",
    "cost.interrupt.ring3",
    "cost.step.ring0",
    "cost.step.ring3",
    "cost.kick",
    "cost.first_write",
];
const USES: [&str; 5] = [
    "record_replay_at_exits",
    "exact_interrupts_ring0",
    "exact_interrupts_ring3",
    "unmodified_kernels",
    "our_guests",
];

fn texts(report: &Value, list: &str, key: &str) -> BTreeSet<String> {
    let lines = report[list].as_array().unwrap();
    lines
        .iter()
        .map(|line| line[key].as_str().unwrap().to_owned())
        .collect()
}

#[test]
fn the_report_for_programs_has_every_property_and_use_and_the_status_says_the_same() {
    let Some(_kvm) = kvm::shared() else { return };
    let ended = run(lockstep().args(["doctor", "--quick", "--json"]));
    let report: Value = serde_json::from_str(&ended.stdout).unwrap_or_else(|why| panic!("{why}: {ended}"));
    let (properties, uses) = (
        texts(&report, "findings", "property"),
        texts(&report, "verdicts", "use"),
    );
    assert!(PROPERTIES.iter().all(|key| properties.contains(*key)), "{ended}");
    assert!(USES.iter().all(|key| uses.contains(*key)), "{ended}");
    for text in ["judgement", "tried", "seen", "follows"] {
        assert!(!texts(&report, "findings", text).contains(""), "{text}: {ended}");
    }
    for line in report["findings"].as_array().unwrap() {
        let figures = ["median_ns", "p99_ns"].map(|key| line[key].as_u64());
        let measured = line["judgement"] == "measured";
        assert_eq!(figures.map(|figure| figure.is_some()), [measured; 2], "{line}");
    }
    let wanted = if report["usable"] == true { 0 } else { 4 };
    assert_eq!(ended.code(), Some(wanted), "{ended}");
    assert_eq!(
        ended.stderr, "",
        "there is no progress where there is no terminal"
    );
}

#[test]
fn the_table_names_every_use_and_the_run_has_the_length_that_was_asked_for() {
    let Some(_kvm) = kvm::shared() else { return };
    let ended = run(lockstep().args(["doctor", "--quick", "--length", "321"]));
    for text in [
        "a run of 321 exits",
        "record and replay at exits",
        "exact interrupts in ring 0",
        "exact interrupts in ring 3",
        "unmodified kernels",
        "our guests",
    ] {
        assert!(ended.stdout.contains(text), "{text}: {ended}");
    }
    // A pipe has no width: lines fit where people read.
    let widest = ended.stdout.lines().map(|line| line.chars().count()).max();
    assert!(widest.is_some_and(|widest| widest <= 100), "{ended}");
}
