//! `lockstep demo`: what a program reads from it, whatever is lost.

use lockstep_tests::harness::{Process, kvm, lockstep, wait_until};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;

/// Every key that the result for programs has.
const KEYS: [&str; 15] = [
    "ok",
    "clients",
    "connections_broken",
    "acknowledged_writes",
    "lost_writes",
    "wrong_reads",
    "detect_ms",
    "arbitrate_ms",
    "live_ms",
    "client_gap_ms",
    "divergences",
    "log_entries",
    "log_bytes",
    "held_us_p50",
    "held_us_p99",
];

/// The last line of a demonstration that went well.
fn result(options: &[&str]) -> Value {
    let mut command = lockstep();
    command.args(["demo", "--json", "--seed", "7"]).args(options);
    let ended = Process::start("demo", &mut command).wait().expect_code(0);
    let last = ended.stdout.lines().last().unwrap_or_default();
    let result: Value = serde_json::from_str(last).unwrap_or_else(|why| panic!("{why}: {last}"));
    for key in KEYS {
        assert!(result.get(key).is_some(), "{key} is missing: {result}");
    }
    assert_eq!(result["ok"], true, "{result}");
    for key in ["connections_broken", "lost_writes", "wrong_reads", "divergences"] {
        assert_eq!(result[key], 0, "{key}: {result}");
    }
    assert!(
        result["acknowledged_writes"]
            .as_u64()
            .is_some_and(|writes| writes > 0),
        "{result}"
    );
    result
}

#[test]
fn a_killed_primary_is_outlived() {
    let Some(_kvm) = kvm::alone() else { return };
    let result = result(&["--timeout-ms", "2000", "--after", "1", "--duration", "3"]);
    assert_eq!(result["clients"], 8);
    for key in ["detect_ms", "arbitrate_ms", "live_ms"] {
        assert!(result[key].is_number(), "{key}: {result}");
    }
}

#[test]
fn a_stopped_primary_is_outlived_and_fenced_when_it_wakes() {
    let Some(_kvm) = kvm::alone() else { return };
    let times = ["--timeout-ms", "1500", "--after", "1", "--duration", "7"];
    let result = result(&[&times[..], &["--signal", "stop"]].concat());
    assert!(result["live_ms"].is_number(), "{result}");
}

#[test]
fn a_killed_backup_is_outlived() {
    let Some(_kvm) = kvm::alone() else { return };
    let times = ["--timeout-ms", "2000", "--after", "1", "--duration", "3"];
    let result = result(&[&times[..], &["--kill", "backup", "--clients", "12"]].concat());
    assert_eq!(result["clients"], 12);
}

#[test]
fn without_a_loss_there_is_nothing_to_notice() {
    let Some(_kvm) = kvm::alone() else { return };
    let result = result(&["--timeout-ms", "2000", "--duration", "2", "--kill", "none"]);
    assert!(result["detect_ms"].is_null(), "{result}");
}

/// The process among the children of `parent` whose command is `lockstep role`.
fn child(parent: u32, role: &str) -> Option<Pid> {
    let children = std::fs::read_to_string(format!("/proc/{parent}/task/{parent}/children")).ok()?;
    let is_role = |id: &&str| {
        let command = std::fs::read_to_string(format!("/proc/{id}/cmdline")).unwrap_or_default();
        command.split('\0').nth(1) == Some(role)
    };
    let id = children.split_whitespace().find(is_role)?;
    id.parse().ok().map(Pid::from_raw)
}

#[test]
fn a_pair_that_parts_by_itself_is_no_demonstration() {
    let Some(_kvm) = kvm::alone() else { return };
    let mut command = lockstep();
    command.args([
        "demo",
        "--kill",
        "none",
        "--duration",
        "5",
        "--timeout-ms",
        "1000",
    ]);
    let mut demo = Process::start("demo", &mut command);
    let backup = wait_until(
        || child(demo.id(), "backup").filter(|_| demo.stdout().contains("nothing is lost")),
        || "the demonstration's backup".to_owned(),
    );
    kill(backup, Signal::SIGSTOP).expect("it runs");
    let ended = demo.wait().expect_code(1);
    ended.expect_named(&["the pair parted before anything was done to it", "--timeout-ms"]);
}
