//! Every guest is recorded, and its replay is the recording over again.

use lockstep_tests::harness::process::run;
use lockstep_tests::harness::{
    Client, Ended, Guest, Process, Reply, SLOWNESS, Scratch, Switch, kvm, lockstep, logs,
};
use nix::sys::signal::Signal;
use std::fs;
use std::path::Path;
use std::process::Command;

/// The entropy guest, asking everything, briefly.
const ENTROPY: &str = "rounds=3 spin0=2000 spin3=20000 landings=3 frames_ms=5 console_ms=5";

fn command(verb: &str, guest: Guest, command_line: &str, log: &Path) -> Command {
    let mut command = lockstep();
    command
        .arg(verb)
        .arg(guest.image())
        .arg("--log")
        .arg(log)
        .args(["--command-line", command_line]);
    command
}

/// Records and replays; gives both ends.
fn record_and_replay(guest: Guest, command_line: &str, code: i32) -> (Ended, Ended) {
    let scratch = Scratch::new();
    let log = scratch.join("log");
    let recorded = run(&mut command("record", guest, command_line, &log)).expect_code(code);
    let replayed = run(&mut command("replay", guest, command_line, &log)).expect_code(code);
    replayed.expect_named(&["the replay equals the log"]);
    (recorded, replayed)
}

#[test]
fn the_smoke_guest_is_replayed() {
    let Some(_kvm) = kvm::shared() else { return };
    let (recorded, replayed) = record_and_replay(Guest::Smoke, "hello there", 0);
    assert!(
        recorded.stdout.contains("command line: hello there"),
        "{recorded}"
    );
    assert_eq!(replayed.stdout, recorded.stdout);
}

#[test]
fn a_guest_that_fails_fails_in_its_replay() {
    let Some(_kvm) = kvm::shared() else { return };
    let (recorded, replayed) = record_and_replay(Guest::Smoke, "status=3", 1);
    recorded.expect_named(&["status=3"]);
    replayed.expect_named(&["status=3"]);
}

#[test]
fn the_compute_guest_is_replayed() {
    let Some(_kvm) = kvm::shared() else { return };
    let (recorded, replayed) = record_and_replay(Guest::Compute, "megarounds=10", 0);
    assert!(recorded.stdout.contains("checksum: "), "{recorded}");
    assert_eq!(replayed.stdout, recorded.stdout);
}

#[test]
fn the_entropy_guest_sees_in_its_replay_what_it_saw() {
    let Some(_kvm) = kvm::shared() else { return };
    let (first, replayed) = record_and_replay(Guest::Entropy, ENTROPY, 0);
    assert_eq!(replayed.stdout, first.stdout);
    let (second, _) = record_and_replay(Guest::Entropy, ENTROPY, 0);
    assert_ne!(second.stdout, first.stdout, "nothing was left to chance");
}

#[test]
fn a_recording_of_the_first_format_version_is_replayed() {
    let Some(_kvm) = kvm::shared() else { return };
    let scratch = Scratch::new();
    let (log, first) = (scratch.join("log"), scratch.join("first"));
    let _ = run(&mut command("record", Guest::Entropy, ENTROPY, &log)).expect_code(0);
    logs::of_the_first_version(&log, &first);
    assert_eq!(logs::read(&first), logs::read(&log));
    let bytes = |path: &Path| fs::metadata(path).unwrap().len();
    assert!(bytes(&first) > bytes(&log), "it has headers");
    let replayed = run(&mut command("replay", Guest::Entropy, ENTROPY, &first)).expect_code(0);
    replayed.expect_named(&["the replay equals the log"]);
}

#[test]
fn what_is_typed_is_recorded() {
    let Some(_kvm) = kvm::shared() else { return };
    let scratch = Scratch::new();
    let (log, options) = (scratch.join("log"), "sources=console console_ms=60000");
    let mut recording = Process::start("record", &mut command("record", Guest::Entropy, options, &log));
    recording.type_in("typed\n");
    let recorded = recording.wait_with_input().expect_code(0);
    assert!(recorded.stdout.contains("bytes 6"), "{recorded}");
    let replayed = run(&mut command("replay", Guest::Entropy, options, &log)).expect_code(0);
    assert_eq!(replayed.stdout, recorded.stdout);
}

#[test]
fn a_recording_of_clients_that_was_stopped_is_replayed() {
    let Some(_kvm) = kvm::shared() else { return };
    let scratch = Scratch::new();
    let switch = Switch::start(&scratch);
    let log = scratch.join("log");
    let mut record = command("record", Guest::KeyValue, "", &log);
    let mut recording = Process::start("record", record.arg("--network").arg(switch.attachment()));
    let mut client = Client::connect(switch.client_address());
    for round in 0..50 {
        let key = format!("key-{round}");
        assert_eq!(client.call(&["SET", &key, "value"]), Reply::ok());
        assert_eq!(client.call(&["GET", &key]), Reply::bulk("value"));
    }
    recording.signal(Signal::SIGTERM);
    let recorded = recording.wait().expect_code(0);
    let replayed = run(&mut command("replay", Guest::KeyValue, "", &log)).expect_code(0);
    assert_eq!(replayed.stdout, recorded.stdout);
}

#[test]
fn many_replays_of_the_entropy_guest_do_not_diverge() {
    let Some(_kvm) = kvm::shared() else { return };
    let runs = 100 / SLOWNESS;
    let mut verify = lockstep();
    verify.arg("verify").arg(Guest::Entropy.image());
    verify.args(["--runs", &runs.to_string(), "--memory-mib", "16"]);
    let ended = run(verify.args(["--command-line", ENTROPY])).expect_code(0);
    let said = format!("replayed {runs} times without divergence");
    assert!(ended.stdout.contains(&said), "{ended}");
}
