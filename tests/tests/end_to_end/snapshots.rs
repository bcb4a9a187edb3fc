//! Snapshots of recordings: a replay begins at each of them, a verification goes in pieces between
//! them, and nothing that happens to one harms its recording.

use lockstep_core::machine::page_set::PageSet;
use lockstep_core::machine::saved::pages::PAGE_BYTES;
use lockstep_core::replica::snapshot::{Place, Recording, Writer, read, read_header};
use lockstep_core::replica::transfer::{Capture, Received, Round, Sender};
use lockstep_tests::harness::process::run;
use lockstep_tests::harness::{
    Client, Ended, Guest, Process, Reply, Scratch, Switch, kvm, lockstep, logs, wait_until,
};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::process::Command;
use vm_memory::{Bytes, GuestAddress};

/// The shortest interval there is.
const EVERY: &str = "--snapshot-every=100ms";
const MEMORY_MIB: u64 = 16;
const RECORDINGS_MAX: usize = 5;
/// The entropy guest, asking everything, for a quarter of a second on a quick host.
const ENTROPY: &str = "rounds=100 spin0=2000 spin3=200000 landings=3 frames_ms=5 console_ms=5";
/// The guest that computes without an exit, until it was interrupted so often.
const STEADY: &str = "interrupts=40 pages=800 clock=page";
/// The compute guest, which makes no exit, for half a second or so.
const COMPUTE: &str = "megarounds=200";
/// The same for longer than any test.
const ENDLESS: &str = "megarounds=100000000";

fn command(verb: &str, guest: Guest, command_line: &str, log: &Path) -> Command {
    let mut command = lockstep();
    command
        .arg(verb)
        .arg(guest.image())
        .arg("--log")
        .arg(log)
        .args(["--command-line", command_line])
        .arg(format!("--memory-mib={MEMORY_MIB}"));
    command
}

fn folder(log: &Path) -> PathBuf {
    log.with_file_name("log.snapshots")
}

fn names(log: &Path) -> Vec<String> {
    let entries = fs::read_dir(folder(log)).into_iter().flatten();
    let mut names: Vec<_> = entries
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

fn paths(log: &Path) -> Vec<PathBuf> {
    names(log).iter().map(|name| folder(log).join(name)).collect()
}

/// Numbers of the first entries of all snapshots, as `log info` lists them.
fn listed(log: &Path) -> Vec<u64> {
    let info = run(lockstep().args(["log", "info", "--json"]).arg(log)).expect_code(0);
    let info: Value = serde_json::from_str(&info.stdout).unwrap();
    let snapshots = info["snapshots"].as_array().unwrap();
    snapshots
        .iter()
        .map(|snapshot| {
            assert!(snapshot["bytes"].as_u64() > Some(0), "{snapshot}");
            assert!(snapshot["error"].is_null(), "{snapshot}");
            snapshot["entry"].as_u64().unwrap()
        })
        .collect()
}

/// Records until the guest ends by itself, with a snapshot at least. On a busy host the guest may be
/// done before the first is due, and is recorded again.
fn recorded(guest: Guest, command_line: &str, log: &Path) -> Ended {
    for _ in 0..RECORDINGS_MAX {
        let ended =
            run(command("record", guest, command_line, log).args([EVERY, "--overwrite"])).expect_code(0);
        if !names(log).is_empty() {
            return ended;
        }
    }
    panic!("{RECORDINGS_MAX} recordings without a snapshot");
}

fn replayed_from(guest: Guest, command_line: &str, log: &Path, from: &str) -> Ended {
    run(command("replay", guest, command_line, log).args(["--from", from]))
}

fn verified(guest: Guest, command_line: &str, log: &Path) -> Ended {
    run(&mut command("verify", guest, command_line, log))
}

/// Replays from each snapshot, and verifies in pieces.
fn check(guest: Guest, command_line: &str, log: &Path, stdout: &str) {
    let entries = listed(log);
    for entry in &entries {
        let ended = replayed_from(guest, command_line, log, &entry.to_string()).expect_code(0);
        let file = format!("snapshot-{entry:010}");
        ended.expect_named(&["begins at a snapshot", &file, "the replay equals the log"]);
        assert!(stdout.ends_with(&ended.stdout), "{ended}");
    }
    let ended = verified(guest, command_line, log).expect_code(0);
    ended.expect_named(&[&format!("pieces={}", entries.len() + 1)]);
    assert!(ended.stdout.contains("without divergence"), "{ended}");
}

#[test]
fn a_guest_that_asks_everything_is_replayed_from_each() {
    let Some(_kvm) = kvm::shared() else { return };
    let scratch = Scratch::new();
    let log = scratch.join("log");
    let ended = recorded(Guest::Entropy, ENTROPY, &log);
    check(Guest::Entropy, ENTROPY, &log, &ended.stdout);
}

#[test]
fn a_guest_that_makes_no_exit_is_replayed_from_where_it_was_found() {
    let Some(_kvm) = kvm::shared() else { return };
    let scratch = Scratch::new();
    let log = scratch.join("log");
    let ended = recorded(Guest::Compute, COMPUTE, &log);
    check(Guest::Compute, COMPUTE, &log, &ended.stdout);
}

/// Events enter it at common points: their parts are before a snapshot and behind it.
#[test]
fn a_guest_that_makes_no_exit_and_is_interrupted_is_replayed_from_each() {
    let Some(_kvm) = kvm::shared() else { return };
    let scratch = Scratch::new();
    let log = scratch.join("log");
    let ended = recorded(Guest::Steady, STEADY, &log);
    let kinds = run(lockstep().args(["log", "info", "--json"]).arg(&log)).expect_code(0);
    let kinds: Value = serde_json::from_str(&kinds.stdout).unwrap();
    assert!(
        kinds["kinds"]["common point"]["entries"].as_u64() > Some(0),
        "{kinds}"
    );
    check(Guest::Steady, STEADY, &log, &ended.stdout);
}

/// Records the key-value guest under load until it has so many snapshots.
fn recorded_under_load(scratch: &Scratch, snapshots: usize) -> PathBuf {
    let switch = Switch::start(scratch);
    let log = scratch.join("log");
    let mut record = command("record", Guest::KeyValue, "", &log);
    record.arg(EVERY).arg("--network").arg(switch.attachment());
    let mut recording = Process::start("record", &mut record);
    let mut client = Client::connect(switch.client_address());
    let mut round = 0;
    while names(&log)
        .iter()
        .filter(|name| name.starts_with("snapshot-"))
        .count()
        < snapshots
    {
        round += 1;
        let (key, value) = (format!("key-{}", round % 100), format!("{round}"));
        assert_eq!(client.call(&["SET", &key, &value]), Reply::ok());
        assert_eq!(client.call(&["GET", &key]), Reply::bulk(&value));
    }
    recording.signal(Signal::SIGTERM);
    let _ = recording.wait().expect_code(0);
    log
}

#[test]
fn a_server_under_load_is_replayed_from_each() {
    let Some(_kvm) = kvm::shared() else { return };
    let scratch = Scratch::new();
    let log = recorded_under_load(&scratch, 4);
    let stdout = run(&mut command("replay", Guest::KeyValue, "", &log))
        .expect_code(0)
        .stdout;
    check(Guest::KeyValue, "", &log, &stdout);
    let last = replayed_from(Guest::KeyValue, "", &log, "last").expect_code(0);
    last.expect_named(&[names(&log).last().unwrap()]);
    // Between two snapshots, the one before is meant.
    let entries = listed(&log);
    let between = replayed_from(Guest::KeyValue, "", &log, &(entries[1] + 1).to_string()).expect_code(0);
    between.expect_named(&[&format!("snapshot-{:010}", entries[1])]);
}

#[test]
fn a_guest_with_an_instruction_clock_is_replayed_from_between_exits() {
    let Some(_kvm) = kvm::shared() else { return };
    let scratch = Scratch::new();
    let log = scratch.join("log");
    // Longer, until a snapshot has come: how long a landing takes is the host's affair.
    let mut landings = 50;
    let (options, ended) = loop {
        let options = format!("sources=timer0 landings={landings} spin0=100000000");
        let mut record = command("record", Guest::Entropy, &options, &log);
        let ended = run(record.args([EVERY, "--clock=statistic", "--overwrite"]));
        if ended.code() == Some(4) {
            kvm::skip("this host's KVM has no instruction clock `statistic`");
            return;
        }
        let ended = ended.expect_code(0);
        if !names(&log).is_empty() {
            break (options, ended);
        }
        landings *= 4;
        assert!(landings < 100_000, "no snapshot: {ended}");
    };
    let options = options.as_str();
    let last = replayed_from(Guest::Entropy, options, &log, "last").expect_code(0);
    assert!(ended.stdout.ends_with(&last.stdout), "{last}");
    verified(Guest::Entropy, options, &log)
        .expect_code(0)
        .expect_named(&["pieces="]);
}

/// The log says nothing of the state where a kick found the guest, and ends at the exit before.
#[test]
fn a_recording_that_was_stopped_where_it_made_no_exit_ends_there() {
    let Some(_kvm) = kvm::shared() else { return };
    let scratch = Scratch::new();
    let log = recorded_until_snapshot(&scratch);
    replayed_from(Guest::Compute, ENDLESS, &log, "last")
        .expect_code(0)
        .expect_named(&["the replay equals the log"]);
    let _ = verified(Guest::Compute, ENDLESS, &log).expect_code(0);
}

/// Records the compute guest until it has a snapshot behind its first line.
fn recorded_until_snapshot(scratch: &Scratch) -> PathBuf {
    let log = scratch.directory("endless").join("log");
    let mut record = command("record", Guest::Compute, ENDLESS, &log);
    let mut recording = Process::start("record", record.arg(EVERY));
    wait_until(
        || {
            names(&log)
                .contains(&"snapshot-0000000002".to_owned())
                .then_some(())
        },
        || "a snapshot behind its first line".to_owned(),
    );
    recording.signal(Signal::SIGINT);
    let _ = recording.wait().expect_code(0);
    log
}

#[test]
fn a_verification_records_snapshots_and_goes_in_pieces() {
    let Some(_kvm) = kvm::shared() else { return };
    let mut verify = lockstep();
    verify.arg("verify").arg(Guest::Entropy.image());
    verify.args([EVERY, "--runs=2", "--memory-mib=16", "--command-line", ENTROPY]);
    let ended = run(&mut verify).expect_code(0);
    ended.expect_named(&["pieces=", "run=2"]);
    assert!(
        ended.stdout.contains("replayed 2 times without divergence"),
        "{ended}"
    );
}

#[test]
fn a_log_is_the_same_with_snapshots_and_without() {
    let Some(_kvm) = kvm::shared() else { return };
    let scratch = Scratch::new();
    let (log, plain) = (scratch.join("log"), scratch.join("plain"));
    let _ = recorded(Guest::Compute, COMPUTE, &log);
    let _ = run(&mut command("record", Guest::Compute, COMPUTE, &plain)).expect_code(0);
    // It asks for nothing, so the entries behind the environment are those of every run.
    assert_eq!(logs::read(&log)[1..], logs::read(&plain)[1..]);

    // A log of a guest that is told of time replays where its snapshots are not.
    let log = scratch.directory("entropy").join("log");
    let first = recorded(Guest::Entropy, ENTROPY, &log);
    let alone = scratch.join("alone");
    fs::copy(&log, &alone).unwrap();
    let again = run(&mut command("replay", Guest::Entropy, ENTROPY, &alone)).expect_code(0);
    assert_eq!(again.stdout, first.stdout);
}

#[test]
fn an_entry_that_no_snapshot_is_before_or_that_is_not_in_the_log_is_refused() {
    let Some(_kvm) = kvm::shared() else { return };
    let scratch = Scratch::new();
    let log = scratch.join("log");
    let _ = run(&mut command("record", Guest::Smoke, "", &log)).expect_code(0);
    for from in ["7", "last"] {
        replayed_from(Guest::Smoke, "", &log, from)
            .expect_code(3)
            .expect_named(&["has no snapshot", "--snapshot-every"]);
    }
    let log = recorded_until_snapshot(&scratch);
    replayed_from(Guest::Compute, ENDLESS, &log, "0")
        .expect_code(3)
        .expect_named(&["no snapshot at or before entry 0"]);
    replayed_from(Guest::Compute, ENDLESS, &log, "9999")
        .expect_code(3)
        .expect_named(&["no entry 9999"]);
    run(lockstep().args(["log", "dump", "--from=9999"]).arg(&log))
        .expect_code(3)
        .expect_named(&["no entry 9999"]);
}

/// Everything that reads the snapshot refuses it by name.
fn expect_refused(log: &Path, path: &Path, code: i32, named: &str) {
    let file = path.display().to_string();
    for ended in [
        replayed_from(Guest::Compute, COMPUTE, log, "last"),
        verified(Guest::Compute, COMPUTE, log),
    ] {
        ended.expect_code(code).expect_named(&[&file, named]);
    }
    // The log does not need it.
    let _ = run(&mut command("replay", Guest::Compute, COMPUTE, log)).expect_code(0);
}

#[test]
fn a_snapshot_that_is_damaged_or_foreign_is_named_and_harms_no_other_replay() {
    let Some(_kvm) = kvm::shared() else { return };
    let scratch = Scratch::new();
    let log = scratch.join("log");
    let _ = recorded(Guest::Compute, COMPUTE, &log);
    let path = paths(&log).pop().unwrap();
    let whole = fs::read(&path).unwrap();
    let changed = |place: usize, value: u8| {
        let mut bytes = whole.clone();
        bytes[place] ^= value;
        bytes
    };
    let cases: [(Vec<u8>, i32, &str); 6] = [
        (changed(whole.len() / 2, 1), 42, "damaged"),
        (changed(50, 1), 42, "damaged"),
        (whole[..whole.len() - 1].to_vec(), 42, "cut short"),
        (whole[..100].to_vec(), 42, "cut short"),
        (changed(4, 6), 43, "format version 7"),
        (b"something else, and long enough to be as long as a header of a snapshot has to be: 128 bytes, which are a few more than this.".repeat(2), 42, "not a snapshot"),
    ];
    for (bytes, code, named) in cases {
        fs::write(&path, bytes).unwrap();
        expect_refused(&log, &path, code, named);
    }
    fs::write(&path, changed(50, 1)).unwrap();
    let info = run(lockstep().args(["log", "info"]).arg(&log)).expect_code(42);
    info.expect_named(&[&path.display().to_string()]);
    assert!(info.stdout.contains("is damaged"), "{info}");

    // Of another recording of the same guest.
    let other = scratch.directory("other").join("log");
    let _ = recorded(Guest::Compute, COMPUTE, &other);
    let stranger = paths(&other).pop().unwrap();
    fs::copy(&stranger, &path).unwrap();
    expect_refused(&log, &path, 43, "another recording");
    fs::rename(&stranger, stranger.with_file_name("snapshot-0000000009")).unwrap();
    expect_refused(
        &other,
        &stranger.with_file_name("snapshot-0000000009"),
        42,
        "its name",
    );
}

/// The snapshot with one byte of its memory changed, and every digest right.
fn forged(bytes: &[u8]) -> Vec<u8> {
    let header = read_header(&mut &*bytes).unwrap();
    let recording = Recording {
        name: header.recording,
        machine: header.machine,
        memory_bytes: header.memory_bytes,
    };
    let (_, received) = read(&mut &*bytes, &recording).unwrap();
    let last = GuestAddress(header.memory_bytes - 1);
    let byte: u8 = received.memory.read_obj(last).unwrap();
    received.memory.write_obj(!byte, last).unwrap();
    rewritten(received, &recording, header.place)
}

/// A snapshot of what was received from another.
pub(crate) fn rewritten(received: Received, recording: &Recording, place: Place) -> Vec<u8> {
    let (mut sender, first) = Sender::new(recording.name, recording.memory_bytes);
    let mut writer = Writer::new(Cursor::new(Vec::new())).unwrap();
    writer.put(&first).unwrap();
    let pages = PageSet::first(recording.memory_bytes / PAGE_BYTES as u64);
    let mut round = Round::first(received.memory, pages);
    while let Some(pages) = round.next_pages() {
        if let Some(record) = sender.pages(pages) {
            writer.put(&record).unwrap();
        }
    }
    let capture = Capture {
        machine: received.machine,
        position: received.position,
    };
    for record in sender.last(capture) {
        writer.put(&record).unwrap();
    }
    writer.finish(recording, place).unwrap().into_inner()
}

#[test]
fn a_snapshot_that_differs_from_the_run_is_a_divergence_at_its_boundary() {
    let Some(_kvm) = kvm::shared() else { return };
    let scratch = Scratch::new();
    let log = scratch.join("log");
    let mut record = command("record", Guest::Entropy, ENTROPY, &log);
    // A common point behind the snapshot would have the page as it was, and mend it.
    let _ = run(record.args([EVERY, "--event-latency-ms=0"])).expect_code(0);
    let path = paths(&log).pop().unwrap();
    let entry = *listed(&log).last().unwrap();
    fs::write(&path, forged(&fs::read(&path).unwrap())).unwrap();
    verified(Guest::Entropy, ENTROPY, &log)
        .expect_code(40)
        .expect_named(&[&format!("at entry {entry}: memory"), "from its snapshot"]);
    // Its end is compared, too.
    replayed_from(Guest::Entropy, ENTROPY, &log, "last")
        .expect_code(40)
        .expect_named(&["memory"]);
}

#[test]
fn a_log_that_is_cut_off_before_a_snapshot_says_so() {
    let Some(_kvm) = kvm::shared() else { return };
    let scratch = Scratch::new();
    let log = scratch.join("log");
    let _ = recorded(Guest::Entropy, ENTROPY, &log);
    let header = read_header(&mut &*fs::read(paths(&log).pop().unwrap()).unwrap()).unwrap();
    let whole = fs::read(&log).unwrap();
    fs::write(&log, &whole[..header.place.log_offset as usize - 1]).unwrap();
    for ended in [
        replayed_from(Guest::Entropy, ENTROPY, &log, "last"),
        verified(Guest::Entropy, ENTROPY, &log),
    ] {
        ended
            .expect_code(42)
            .expect_named(&[&log.display().to_string(), "cut off"]);
    }
}

#[test]
fn an_interrupt_in_the_middle_of_a_snapshot_leaves_nothing_of_it() {
    let Some(_kvm) = kvm::shared() else { return };
    for signal in [Signal::SIGINT, Signal::SIGTERM] {
        let scratch = Scratch::new();
        let log = scratch.join("log");
        // Much memory, all of it in use.
        let mut record = lockstep();
        record
            .arg("record")
            .arg(Guest::KeyValue.image())
            .args([
                "--memory-mib=300",
                "--command-line=write_mib=250 write_pages=1000000",
            ])
            .arg(EVERY)
            .arg("--log")
            .arg(&log);
        let mut recording = Process::start("record", &mut record);
        let partial = folder(&log).join("snapshot.partial");
        let bytes = || fs::metadata(&partial).map_or(0, |file| file.len());
        wait_until(
            || (bytes() > 4 << 20).then_some(()),
            || "a snapshot that is being written".to_owned(),
        );
        recording.signal(signal);
        let _ = recording.wait().expect_code(0);
        assert!(!partial.exists());
        let is_snapshot = |name: &String| name.starts_with("snapshot-");
        assert!(names(&log).iter().all(is_snapshot), "{:?}", names(&log));
    }
}

#[test]
fn another_recording_takes_the_place_of_snapshots_only_where_it_may() {
    let Some(_kvm) = kvm::shared() else { return };
    let scratch = Scratch::new();
    let log = scratch.join("log");
    let _ = recorded(Guest::Compute, COMPUTE, &log);
    fs::write(
        folder(&log).join("snapshot.partial"),
        "of a process that was killed",
    )
    .unwrap();
    fs::remove_file(&log).unwrap();
    let record = || command("record", Guest::Smoke, "", &log);
    run(&mut record())
        .expect_code(3)
        .expect_named(&["log.snapshots exists already", "--overwrite"]);
    assert!(!log.exists());
    let _ = run(record().arg("--overwrite")).expect_code(0);
    assert!(!folder(&log).exists());
}
