//! SIGTERM, SIGINT and SIGHUP end every role at once, with status 0, and leave nothing behind.

use lockstep_logging_channel::{Body, EndReason};
use lockstep_tests::harness::process::run;
use lockstep_tests::harness::{
    Guest, Pair, PairSpec, Process, Replica, Scratch, Switch, kvm, lockstep, logs, wait_until,
};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::path::Path;
use std::process::Command;

const SIGNALS: [Signal; 3] = [Signal::SIGTERM, Signal::SIGINT, Signal::SIGHUP];

/// A guest that says a line and then computes for longer than any test waits.
const FOR_EVER: [&str; 2] = ["--command-line", "megarounds=100000000"];
const FIRST_LINE: &str = "megarounds";

fn compute(verb: &str) -> Command {
    let mut command = lockstep();
    command
        .arg(verb)
        .arg(Guest::Compute.image())
        .args(FOR_EVER)
        .args(["--memory-mib", "16"]);
    command
}

#[test]
fn a_guest_that_never_exits_is_stopped() {
    let Some(_kvm) = kvm::shared() else { return };
    for signal in SIGNALS {
        let mut process = Process::start("run", &mut compute("run"));
        process.wait_for_stdout(FIRST_LINE);
        process.signal(signal);
        let _ = process.wait().expect_code(0);
    }
}

#[test]
fn a_stopped_recording_is_a_whole_log() {
    let Some(_kvm) = kvm::shared() else { return };
    let scratch = Scratch::new();
    let log = scratch.join("log");
    let mut process = Process::start("record", compute("record").arg("--log").arg(&log));
    process.wait_for_stdout(FIRST_LINE);
    process.signal(Signal::SIGTERM);
    let _ = process.wait().expect_code(0);
    let entries = logs::read(&log);
    assert!(
        matches!(&entries.last().unwrap().body, Body::End(end) if end.reason == EndReason::Stopped),
        "{entries:?}"
    );
}

#[test]
fn a_stopped_replay_has_not_shown_anything() {
    let Some(_kvm) = kvm::shared() else { return };
    let scratch = Scratch::new();
    let log = scratch.join("log");
    let machine = |verb: &str| {
        let mut command = lockstep();
        command
            .arg(verb)
            .arg(Guest::Compute.image())
            .arg("--log")
            .arg(&log);
        command.args(["--command-line", "megarounds=400", "--memory-mib", "16"]);
        command
    };
    let _ = run(&mut machine("record")).expect_code(0);
    let mut process = Process::start("replay", &mut machine("replay"));
    process.wait_for_stdout(FIRST_LINE);
    process.signal(Signal::SIGTERM);
    process
        .wait()
        .expect_code(1)
        .expect_named(&["stopped from outside"]);
}

#[test]
fn a_stopped_verification_has_not_shown_anything_and_leaves_no_files() {
    let Some(_kvm) = kvm::shared() else { return };
    for signal in SIGNALS {
        let scratch = Scratch::new();
        // One never ends by itself; the other replays for longer than any test waits.
        let cases = [
            (FOR_EVER[1], FIRST_LINE),
            ("megarounds=1", "replayed without divergence"),
        ];
        for (work, begun) in cases {
            let mut verify = lockstep();
            verify.arg("verify").arg(Guest::Compute.image());
            verify.args(["--memory-mib=16", "--runs=1000000", "--command-line", work]);
            let mut process = Process::start("verify", verify.env("TMPDIR", scratch.path()));
            if begun == FIRST_LINE {
                process.wait_for_stdout(begun);
            } else {
                process.wait_for_stderr(begun);
            }
            process.signal(signal);
            process
                .wait()
                .expect_code(1)
                .expect_named(&["stopped from outside"]);
            assert_eq!(scratch.names(), Vec::<String>::new());
        }
    }
}

#[test]
fn a_switch_removes_its_socket() {
    for signal in SIGNALS {
        let scratch = Scratch::new();
        let mut switch = Switch::start(&scratch);
        assert!(scratch.names().contains(&"switch".to_owned()));
        switch.process.signal(signal);
        let _ = switch.process.wait().expect_code(0);
        assert!(
            !scratch.names().contains(&"switch".to_owned()),
            "{:?}",
            scratch.names()
        );
    }
}

/// Starts one side of a pair that waits for the other.
fn lonely(role: &str, scratch: &Scratch) -> Replica {
    let shared = scratch.directory("shared");
    let (channel, report) = (
        format!("unix:{}", scratch.join("channel").display()),
        scratch.join("report"),
    );
    let mut command = PairSpec::new(Guest::Smoke).command(role, &channel, &shared, &report);
    Replica::start(role, &mut command, report)
}

#[test]
fn a_primary_that_waits_for_its_backup_is_stopped() {
    let Some(_kvm) = kvm::shared() else { return };
    for signal in SIGNALS {
        let scratch = Scratch::new();
        let mut primary = lonely("primary", &scratch);
        primary.wait_for("listening");
        // Its first sign of life is written beside that.
        let [_, _, seen] = ALONE_ENDED;
        let seen = scratch.join("shared").join(seen);
        wait_until(
            || seen.exists().then_some(()),
            || format!("{}: {}", seen.display(), primary.account()),
        );
        primary.process.signal(signal);
        let _ = primary.process.wait().expect_code(0);
        assert_eq!(scratch.names(), ["report", "shared"]);
        assert_no_pair_is_left(&scratch.join("shared"), &ALONE_ENDED, &[]);
    }
}

#[test]
fn a_backup_that_waits_for_its_primary_is_stopped() {
    let Some(_kvm) = kvm::shared() else { return };
    for signal in SIGNALS {
        let scratch = Scratch::new();
        let mut backup = lonely("backup", &scratch);
        backup.process.wait_for_stderr("looking for the primary");
        backup.process.signal(signal);
        let _ = backup.process.wait().expect_code(0);
        assert_eq!(scratch.names(), ["report", "shared"]);
        // It claims nothing, and makes no folder for a machine that nobody holds.
        assert_eq!(left_in(&scratch.join("shared")), ["identity"]);
    }
}

/// Records of a machine that ended in its first generation, beside its name.
const ALONE_ENDED: [&str; 3] = [
    "default/ended-0000000001",
    "default/generation-0000000001",
    "default/seen-0000000001",
];
/// Records of one that ended in its second, after a pair had been armed in its first.
const SECOND_ENDED: [&str; 4] = [
    "default/backup-0000000001",
    "default/ended-0000000002",
    "default/generation-0000000001",
    "default/generation-0000000002",
];
/// Its signs of life: the first of a generation removes those of earlier ones, and it may have ended
/// before it gave one.
const SEEN: [&str; 2] = ["default/seen-0000000001", "default/seen-0000000002"];

/// A side that ended alone, and a pair of which both have ended in good order, leave nobody to be
/// waited for, and in the shared directory the name of it, that of its machine, all of `records`,
/// and nothing but those that `may` stay.
fn assert_no_pair_is_left(shared: &Path, records: &[&str], may: &[&str]) {
    let mut left = left_in(shared);
    for record in may {
        if let Some(place) = left.iter().position(|name| name == record) {
            left.remove(place);
        }
    }
    let mut expected = [&["default", "default/machine", "identity"], records].concat();
    expected.sort_unstable();
    assert_eq!(left, expected);
    let condition = condition(shared);
    assert_eq!(condition, "ended");
}

/// Condition of the only machine in a shared directory, as `lockstep list` gives it.
fn condition(shared: &Path) -> Value {
    let mut list = lockstep();
    list.args(["list", "--json", "--shared-directory"]).arg(shared);
    let machines: Value = serde_json::from_str(&run(&mut list).expect_code(0).stdout).unwrap();
    machines[0]["condition"].clone()
}

/// Everything in a shared directory, sorted, hidden files too. The id at the end of a name is left
/// out.
fn left_in(shared: &Path) -> Vec<String> {
    let mut found = Vec::new();
    let mut folders = vec![shared.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let entry = entry.unwrap();
            let name = entry.path().strip_prefix(shared).unwrap().display().to_string();
            let kind = name.rsplit_once('-').filter(|(_, id)| id.len() == 32);
            found.push(kind.map_or(name.clone(), |(kind, _)| kind.to_owned()));
            if entry.file_type().unwrap().is_dir() {
                folders.push(entry.path());
            }
        }
    }
    found.sort();
    found
}

fn pair() -> Pair {
    PairSpec::new(Guest::Compute)
        .setting("command-line", FOR_EVER[1])
        .setting("memory-mib", "16")
        .start()
}

fn assert_no_socket_is_left(pair: &Pair) {
    let names = pair.scratch.names();
    assert_eq!(names, ["backup.jsonl", "primary.jsonl", "shared"]);
}

#[test]
fn when_a_protected_primary_is_stopped_its_backup_goes_on() {
    let Some(_kvm) = kvm::alone() else { return };
    let mut pair = pair();
    pair.primary.process.wait_for_stdout(FIRST_LINE);
    let _ = pair.primary.stop().expect_code(0);
    // A guest that never exits is replayed to where the log ends, and lives on from there.
    pair.backup.wait_for("won");
    pair.backup.process.signal(Signal::SIGINT);
    let _ = pair.backup.process.wait().expect_code(0);
    assert_no_socket_is_left(&pair);
    assert_no_pair_is_left(&pair.shared, &SECOND_ENDED, &SEEN);
}

#[test]
fn when_a_protecting_backup_is_stopped_its_primary_goes_on() {
    let Some(_kvm) = kvm::alone() else { return };
    let mut pair = pair();
    pair.primary.process.wait_for_stdout(FIRST_LINE);
    let _ = pair.backup.stop().expect_code(0);
    pair.primary.wait_for("solo");
    pair.primary.process.signal(Signal::SIGINT);
    let _ = pair.primary.process.wait().expect_code(0);
    assert_no_socket_is_left(&pair);
    assert_no_pair_is_left(&pair.shared, &SECOND_ENDED, &SEEN);
}

/// As Ctrl-C stops a pair in the foreground of one terminal: whichever side is stopped first, nobody
/// is left to go on, and the store says so.
#[test]
fn a_pair_that_is_stopped_together_is_at_its_end() {
    let Some(_kvm) = kvm::alone() else { return };
    for signal in SIGNALS {
        let mut pair = pair();
        pair.primary.process.wait_for_stdout(FIRST_LINE);
        pair.backup.process.signal(signal);
        pair.primary.process.signal(signal);
        let _ = pair.primary.process.wait().expect_code(0);
        let _ = pair.backup.process.wait().expect_code(0);
        assert_no_socket_is_left(&pair);
        assert_eq!(condition(&pair.shared), "ended");
    }
}

#[test]
fn a_pair_whose_guest_has_ended_leaves_nothing() {
    let Some(_kvm) = kvm::alone() else { return };
    let mut pair = PairSpec::new(Guest::Smoke).start();
    let _ = pair.primary.process.wait().expect_code(0);
    let _ = pair.backup.process.wait().expect_code(0);
    assert_no_socket_is_left(&pair);
    assert_no_pair_is_left(
        &pair.shared,
        &[&ALONE_ENDED[..], &["default/backup-0000000001"]].concat(),
        &[],
    );
}

/// A peer that was stopped would ask when it wakes, and has to find that the generation is taken.
#[test]
fn a_claim_is_kept_while_the_peer_may_ask() {
    let Some(_kvm) = kvm::alone() else { return };
    let mut pair = pair();
    pair.primary.process.wait_for_stdout(FIRST_LINE);
    pair.primary.process.signal(Signal::SIGSTOP);
    pair.backup.wait_for("won");
    let _ = pair.backup.stop().expect_code(0);
    pair.primary.process.signal(Signal::SIGCONT);
    let _ = pair.primary.process.wait().expect_code(41);
}
