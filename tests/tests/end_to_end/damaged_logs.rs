//! Logs that are cut, changed, foreign, or of another machine: refused with the place or the field.

use lockstep_tests::harness::process::run;
use lockstep_tests::harness::{Ended, Guest, Scratch, kvm, lockstep, logs};
use std::path::{Path, PathBuf};
use std::process::Command;

const OPTIONS: &str = "sources=tsc,halt rounds=2";

fn command(verb: &str, log: &Path) -> Command {
    let mut command = lockstep();
    command
        .arg(verb)
        .arg(Guest::Entropy.image())
        .arg("--log")
        .arg(log);
    command.args([
        "--command-line",
        OPTIONS,
        "--memory-mib",
        "16",
        "--digest-interval-exits",
        "64",
    ]);
    command
}

fn record(scratch: &Scratch) -> PathBuf {
    let log = scratch.join("log");
    let _ = run(&mut command("record", &log)).expect_code(0);
    log
}

fn info(log: &Path) -> Ended {
    run(lockstep().args(["log", "info"]).arg(log))
}

/// `count` places spread over `length` bytes, the first and the last among them.
fn places(length: usize, count: usize) -> impl Iterator<Item = usize> {
    (0..count).map(move |index| index * (length - 1) / (count - 1))
}

#[test]
fn a_log_cut_anywhere_is_damaged() {
    let Some(_kvm) = kvm::shared() else { return };
    let scratch = Scratch::new();
    let whole = std::fs::read(record(&scratch)).unwrap();
    for length in places(whole.len(), 12) {
        let cut = scratch.write("cut", &whole[..length]);
        let text = cut.display().to_string();
        run(&mut command("replay", &cut))
            .expect_code(42)
            .expect_named(&[&text, "cut off"]);
        info(&cut).expect_code(42).expect_named(&[&text, "cut off"]);
    }
}

#[test]
fn a_log_cut_between_two_entries_is_replayed_up_to_there_and_damaged() {
    let Some(_kvm) = kvm::shared() else { return };
    let scratch = Scratch::new();
    let (log, cut) = (record(&scratch), scratch.join("cut"));
    let kept = logs::altered(&log, &cut, |entries| {
        entries.truncate(entries.len() / 2);
        entries.len()
    });
    let ended = run(&mut command("replay", &cut)).expect_code(42);
    ended.expect_named(&["cut off", &format!("after {kept} good entries")]);
}

#[test]
fn bytes_behind_the_end_are_damage() {
    let Some(_kvm) = kvm::shared() else { return };
    let scratch = Scratch::new();
    let whole = std::fs::read(record(&scratch)).unwrap();
    let again = whole.clone();
    let behind: [&[u8]; 3] = [b"x", &[0; 4096], &again];
    for bytes in behind {
        let longer = scratch.write("longer", [&whole, bytes].concat());
        let text = longer.display().to_string();
        let place = format!("damaged at byte {}", whole.len());
        let dump = run(lockstep().args(["log", "dump"]).arg(&longer));
        for ended in [run(&mut command("replay", &longer)), info(&longer), dump] {
            ended.expect_code(42).expect_named(&[&text, &place]);
        }
    }
}

#[test]
fn a_log_with_any_byte_changed_is_damaged() {
    let Some(_kvm) = kvm::shared() else { return };
    let scratch = Scratch::new();
    let whole = std::fs::read(record(&scratch)).unwrap();
    // Bytes 4 and 5 are the format version, which is refused by its number.
    for place in places(whole.len(), 40).filter(|place| !(4..6).contains(place)) {
        let mut changed = whole.clone();
        changed[place] ^= 0x10;
        let path = scratch.write("changed", &changed);
        info(&path)
            .expect_code(42)
            .expect_named(&[&path.display().to_string(), "at byte"]);
    }
}

#[test]
fn a_log_of_a_later_format_is_refused_by_its_number() {
    let Some(_kvm) = kvm::shared() else { return };
    let scratch = Scratch::new();
    let mut bytes = std::fs::read(record(&scratch)).unwrap();
    bytes[4..6].copy_from_slice(&7_u16.to_le_bytes());
    let later = scratch.write("later", &bytes);
    run(&mut command("replay", &later))
        .expect_code(43)
        .expect_named(&["version 7"]);
}

#[test]
fn what_is_no_log_is_said_to_be_none() {
    let scratch = Scratch::new();
    for (name, bytes) in [
        ("text", b"root:x:0:0:root".to_vec()),
        ("zeros", vec![0; 4096]),
        ("empty", Vec::new()),
    ] {
        let path = scratch.write(name, bytes);
        info(&path)
            .expect_code(42)
            .expect_named(&[&path.display().to_string()]);
    }
}

#[test]
fn every_difference_of_the_machine_is_named() {
    let Some(_kvm) = kvm::shared() else { return };
    let scratch = Scratch::new();
    let log = record(&scratch);
    let settings = [
        ("--memory-mib=17", "guest memory in bytes"),
        ("--command-line=other", "guest command line"),
        ("--mac=52:54:00:4c:53:99", "network device address"),
        ("--clock=step", "instruction clock"),
        ("--digest-interval-exits=65", "digest interval in exits"),
    ];
    for (setting, field) in settings {
        let mut replay = lockstep();
        replay
            .arg("replay")
            .arg(Guest::Entropy.image())
            .arg("--log")
            .arg(&log)
            .arg(setting);
        let name = setting.split('=').next().unwrap();
        let others = [
            ("--memory-mib", "16"),
            ("--command-line", OPTIONS),
            ("--digest-interval-exits", "64"),
        ];
        for (other, value) in others.into_iter().filter(|(other, _)| *other != name) {
            replay.args([other, value]);
        }
        run(&mut replay)
            .expect_code(43)
            .expect_named(&[&format!("{field} differs")]);
    }
    let mut other_image = lockstep();
    other_image
        .arg("replay")
        .arg(Guest::Smoke.image())
        .arg("--log")
        .arg(&log);
    run(&mut other_image)
        .expect_code(43)
        .expect_named(&["guest image digest differs"]);
}

#[test]
fn two_logs_are_compared() {
    let Some(_kvm) = kvm::shared() else { return };
    let scratch = Scratch::new();
    let (log, other) = (record(&scratch), scratch.join("other"));
    let _ = run(&mut command("record", &other)).expect_code(0);
    let diff = |left: &Path, right: &Path| run(lockstep().args(["log", "diff"]).arg(left).arg(right));
    let _ = diff(&log, &log).expect_code(0);
    assert!(
        diff(&log, &other).expect_code(1).stdout.contains("entry"),
        "no entry is named"
    );
}
