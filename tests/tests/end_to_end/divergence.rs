//! A log in which one thing is not what was recorded: the replay stops there, and says what
//! differs.

use lockstep_logging_channel::{Body, DeviceId, Digest, EndReason, Entry, EventKind, Value};
use lockstep_tests::harness::process::run;
use lockstep_tests::harness::{Ended, Guest, Scratch, kvm, lockstep, logs};
use std::path::Path;
use std::process::Command;

const OPTIONS: &str = "sources=tsc,random,halt rounds=3";

fn machine(command: &mut Command) -> &mut Command {
    command.args([
        "--command-line",
        OPTIONS,
        "--memory-mib",
        "16",
        "--digest-interval-exits",
        "64",
    ])
}

fn record(log: &Path) {
    let mut command = lockstep();
    command
        .arg("record")
        .arg(Guest::Entropy.image())
        .arg("--log")
        .arg(log);
    let _ = run(machine(&mut command)).expect_code(0);
}

fn replay(log: &Path) -> Ended {
    let mut command = lockstep();
    command
        .arg("replay")
        .arg(Guest::Entropy.image())
        .arg("--log")
        .arg(log);
    run(machine(&mut command))
}

/// The last entry for which `change` does something, after it did.
fn change_last(entries: &mut [Entry], mut change: impl FnMut(&mut Entry) -> bool) -> u64 {
    entries
        .iter_mut()
        .rev()
        .find_map(|entry| change(entry).then_some(entry.sequence.0))
        .expect("such an entry")
}

/// Replays a recording after `change` was made to its last fitting entry: the report must name
/// `part`, and an entry from the changed one on.
fn expect_divergence(change: impl FnMut(&mut Entry) -> bool, part: &str) -> (u64, Ended) {
    let scratch = Scratch::new();
    let (log, altered) = (scratch.join("log"), scratch.join("altered"));
    record(&log);
    let sequence = logs::altered(&log, &altered, |entries| change_last(entries, change));
    let ended = replay(&altered).expect_code(40);
    ended.expect_named(&[
        &format!(": {part}\n"),
        "expected: ",
        "found: ",
        "recorded at ",
        "replayed at ",
        "before it:\n",
    ]);
    (sequence, ended)
}

fn names_entry(ended: &Ended, sequence: u64) -> bool {
    ended.stderr.contains(&format!("at entry {sequence}:"))
}

fn other(digest: &mut Digest) {
    digest.0[0] ^= 1;
}

#[test]
fn another_value_makes_the_guest_say_something_else() {
    let Some(_kvm) = kvm::shared() else { return };
    let change = |entry: &mut Entry| match &mut entry.body {
        Body::Value(Value::Random(bytes)) => {
            bytes[0] ^= 1;
            true
        }
        _ => false,
    };
    let scratch = Scratch::new();
    let (log, altered) = (scratch.join("log"), scratch.join("altered"));
    record(&log);
    let _ = logs::altered(&log, &altered, |entries| change_last(entries, change));
    let ended = replay(&altered).expect_code(40);
    ended.expect_named(&[
        "the replay differs from the log at entry",
        "expected: ",
        "found: ",
    ]);
}

#[test]
fn another_output_is_named() {
    let Some(_kvm) = kvm::shared() else { return };
    let change = |entry: &mut Entry| match &mut entry.body {
        Body::Output(output) => {
            other(&mut output.digest);
            true
        }
        _ => false,
    };
    let (sequence, ended) = expect_divergence(change, "output (device 3, serial console)");
    assert!(names_entry(&ended, sequence), "{ended}");
}

#[test]
fn another_device_is_named() {
    let Some(_kvm) = kvm::shared() else { return };
    let change = |entry: &mut Entry| match &mut entry.body {
        Body::Digests(parts) => {
            let timer = parts.iter_mut().find(|part| part.part == "interval timer");
            timer.is_some_and(|part| {
                other(&mut part.digest);
                true
            })
        }
        _ => false,
    };
    let (sequence, ended) = expect_divergence(change, "interval timer");
    assert!(names_entry(&ended, sequence), "{ended}");
}

#[test]
fn other_registers_are_named() {
    let Some(_kvm) = kvm::shared() else { return };
    let change = |entry: &mut Entry| match &mut entry.body {
        Body::Digests(parts) => {
            other(&mut parts[0].digest);
            true
        }
        _ => false,
    };
    let (sequence, ended) = expect_divergence(change, "registers");
    assert!(names_entry(&ended, sequence), "{ended}");
}

#[test]
fn another_memory_or_processor_at_the_end_is_named() {
    let Some(_kvm) = kvm::shared() else { return };
    for name in ["memory", "processor"] {
        let change = |entry: &mut Entry| match &mut entry.body {
            Body::End(end) => {
                let part = end.parts.iter_mut().find(|part| part.part == name);
                other(&mut part.unwrap().digest);
                true
            }
            _ => false,
        };
        let (sequence, ended) = expect_divergence(change, name);
        assert!(names_entry(&ended, sequence), "{ended}");
    }
}

#[test]
fn an_event_elsewhere_is_named() {
    let Some(_kvm) = kvm::shared() else { return };
    let change = |entry: &mut Entry| match &entry.body {
        Body::Event(event) if event.kind == EventKind::Timer => {
            entry.point.instructions = 5;
            true
        }
        _ => false,
    };
    let (_, ended) = expect_divergence(change, "execution point (device 1, interval timer)");
    ended.expect_named(&["exit "]);
}

#[test]
fn an_event_at_a_device_that_takes_no_such_thing_is_named() {
    let Some(_kvm) = kvm::shared() else { return };
    let change = |entry: &mut Entry| match &mut entry.body {
        Body::Event(event) if event.kind == EventKind::Timer => {
            event.device = DeviceId(4);
            true
        }
        _ => false,
    };
    let (sequence, ended) = expect_divergence(change, "event (device 4, network device)");
    assert!(names_entry(&ended, sequence), "{ended}");
}

#[test]
fn another_end_is_named() {
    let Some(_kvm) = kvm::shared() else { return };
    let change = |entry: &mut Entry| match &mut entry.body {
        Body::End(end) => {
            end.reason = EndReason::PoweredOff(9);
            true
        }
        _ => false,
    };
    let (sequence, ended) = expect_divergence(change, "end");
    assert!(names_entry(&ended, sequence), "{ended}");
}
