//! Two sides that do not fit together.

use lockstep_logging_channel::message::{Hello, Message, Refused};
use lockstep_logging_channel::{Environment, FORMAT_VERSION, Record, codec};
use lockstep_tests::harness::process::run;
use lockstep_tests::harness::{Guest, PairSpec, Replica, Scratch, Switch, kvm, lockstep, lockstep_path};
use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::Command;

/// Room for one side of a pair beside another, or beside the test itself.
struct Room {
    scratch: Scratch,
    channel: PathBuf,
    shared: PathBuf,
}

impl Room {
    fn new() -> Self {
        let scratch = Scratch::new();
        let (channel, shared) = (scratch.join("channel"), scratch.directory("shared"));
        Self {
            scratch,
            channel,
            shared,
        }
    }

    fn side(&self, role: &str, spec: &PairSpec) -> Replica {
        let channel = format!("unix:{}", self.channel.display());
        let report = self.scratch.join(&format!("{role}.jsonl"));
        let mut command = spec.command(role, &channel, &self.shared, &report);
        Replica::start(role, &mut command, report)
    }
}

fn compute() -> PairSpec {
    PairSpec::new(Guest::Compute).setting("command-line", "megarounds=10")
}

fn expect_both_refuse(primary_spec: &PairSpec, backup_spec: &PairSpec, field: &str) {
    let room = Room::new();
    let mut primary = room.side("primary", primary_spec);
    primary.wait_for("listening");
    let mut backup = room.side("backup", backup_spec);
    backup.process.wait().expect_code(43).expect_named(&[field]);
    primary.process.wait().expect_code(43).expect_named(&[field]);
    assert!(primary.event("protected").is_none() && backup.event("protected").is_none());
    assert_eq!(primary.process.stdout(), "", "the guest ran");
    assert!(!room.channel.exists(), "the socket was left behind");
}

/// This build's bytes and one more: another executable that does the same. Copied by a process of
/// its own, because one that is open for writing anywhere, if only in a child of another test,
/// cannot be run.
pub fn another_build(scratch: &Scratch) -> PathBuf {
    let path = scratch.join("another-build");
    let mut copy = Command::new("sh");
    copy.args(["-c", "cp \"$1\" \"$2\" && printf x >>\"$2\"", "sh"]);
    let _ = run(copy.arg(lockstep_path()).arg(&path)).expect_code(0);
    path
}

/// `lockstep --version` of `program`, without its line break.
fn version(program: &Path) -> String {
    let ended = run(Command::new(program).arg("--version")).expect_code(0);
    ended.stdout.trim_end().to_owned()
}

#[test]
fn two_builds_are_no_pair() {
    let Some(_kvm) = kvm::shared() else { return };
    let room = Room::new();
    let other = another_build(&room.scratch);
    let mut primary = room.side("primary", &compute());
    primary.wait_for("listening");
    let channel = format!("unix:{}", room.channel.display());
    let report = room.scratch.join("backup.jsonl");
    let mut command = Command::new(&other);
    command.args(
        compute()
            .command("backup", &channel, &room.shared, &report)
            .get_args(),
    );
    let mut backup = Replica::start("backup", &mut command, report);
    let short = |program: &Path| version(program).split(' ').nth(3).unwrap().to_owned();
    let (here, there) = (short(lockstep_path()), short(&other));
    assert_ne!(here, there);
    for side in [&mut backup, &mut primary] {
        let ended = side.process.wait().expect_code(43);
        ended.expect_named(&[
            "lockstep build",
            &format!("primary `{here}"),
            &format!("backup `{there}"),
        ]);
    }
}

#[test]
fn a_recording_of_another_build_is_replayed() {
    let Some(_kvm) = kvm::shared() else { return };
    let scratch = Scratch::new();
    let (other, log) = (another_build(&scratch), scratch.join("log"));
    let on = |program: &Path, verb: &str| {
        let mut command = Command::new(program);
        command.arg(verb).arg(Guest::Smoke.image()).arg("--log").arg(&log);
        run(&mut command).expect_code(0)
    };
    let _ = on(&other, "record");
    let _ = on(lockstep_path(), "replay");
    let info = run(lockstep().args(["log", "info"]).arg(&log)).expect_code(0);
    let build = version(&other).split(' ').nth(3).unwrap().to_owned();
    assert!(
        info.stdout.contains(&format!("lockstep build = {build}")),
        "{info}"
    );
}

#[test]
fn two_guests_are_no_pair() {
    let Some(_kvm) = kvm::shared() else { return };
    expect_both_refuse(
        &PairSpec::new(Guest::Smoke),
        &PairSpec::new(Guest::Compute),
        "guest image digest",
    );
}

#[test]
fn two_configurations_are_no_pair() {
    let Some(_kvm) = kvm::shared() else { return };
    let cases = [
        ("memory-mib", "32", "guest memory in bytes"),
        ("command-line", "megarounds=11", "guest command line"),
        ("clock", "step", "instruction clock"),
        ("timeout-ms", "3000", "peer timeout in ms"),
        ("window-mib", "8", "window in bytes"),
    ];
    for (setting, value, field) in cases {
        expect_both_refuse(&compute(), &compute().setting(setting, value), field);
    }
}

#[test]
fn two_kinds_of_network_are_no_pair() {
    let Some(_kvm) = kvm::shared() else { return };
    let scratch = Scratch::new();
    let switch = Switch::start_quiet(&scratch);
    let attached = compute().setting("network", &switch.attachment());
    expect_both_refuse(
        &compute(),
        &attached,
        "kind of network: primary `none`, backup `switch`",
    );
    expect_both_refuse(
        &attached,
        &compute(),
        "kind of network: primary `switch`, backup `none`",
    );
}

/// The storage is how a primary knows its own pair: a backup of another is a stranger, and the
/// primary waits on.
#[test]
fn two_shared_directories_are_no_pair() {
    let Some(_kvm) = kvm::alone() else { return };
    let elsewhere = Scratch::new();
    let room = Room::new();
    let mut primary = room.side("primary", &compute());
    primary.wait_for("listening");
    let other = Room {
        scratch: Scratch::new(),
        channel: room.channel.clone(),
        shared: elsewhere.directory("shared"),
    };
    let mut backup = other.side("backup", &compute());
    backup
        .process
        .wait()
        .expect_code(43)
        .expect_named(&["shared storage"]);
    primary.process.wait_for_stderr("differ in shared storage");
    expect_still_waiting(&room, primary);
}

/// A primary that strangers have tried becomes one of a pair all the same.
fn expect_still_waiting(room: &Room, mut primary: Replica) {
    let mut backup = room.side("backup", &compute());
    let _ = primary.process.wait().expect_code(0);
    let _ = backup.process.wait().expect_code(0);
}

fn encoded(message: &Message) -> Vec<u8> {
    let mut bytes = Vec::new();
    codec::encode_message(message, &mut bytes).unwrap();
    bytes
}

fn hello(software_version: &str) -> Vec<u8> {
    encoded(&Message::Hello(Hello {
        software_version: software_version.to_owned(),
        format_version: FORMAT_VERSION,
        environment: Environment::default(),
    }))
}

/// Says `bytes` to a primary, and gives its whole answer.
fn say(room: &Room, bytes: &[u8]) -> Vec<u8> {
    let mut stream = UnixStream::connect(&room.channel).unwrap();
    stream.write_all(bytes).unwrap();
    stream.shutdown(Shutdown::Write).unwrap();
    let mut answer = Vec::new();
    // A side that refuses may close before it has read everything: that is an end as well.
    let _ = stream.read_to_end(&mut answer);
    answer
}

#[test]
fn another_version_is_refused_by_both_numbers() {
    let Some(_kvm) = kvm::alone() else { return };
    let room = Room::new();
    let mut primary = room.side("primary", &compute());
    primary.wait_for("listening");
    let answer = say(&room, &hello("9.8.7"));
    let (record, _) = codec::decode(&answer).unwrap();
    assert!(
        matches!(
            &record,
            Record::Message(Message::Refused(Refused::Differs { .. }))
        ),
        "{record:?}"
    );
    let said = primary.process.wait_for_stderr("9.8.7");
    assert!(said.contains(env!("CARGO_PKG_VERSION")), "{said}");
    expect_still_waiting(&room, primary);
}

#[test]
fn another_log_format_is_refused_by_its_number() {
    let Some(_kvm) = kvm::alone() else { return };
    let room = Room::new();
    let mut primary = room.side("primary", &compute());
    primary.wait_for("listening");
    let mut later = hello("0.1.0");
    later[4..6].copy_from_slice(&7_u16.to_le_bytes());
    say(&room, &later);
    primary.process.wait_for_stderr("version 7");
    expect_still_waiting(&room, primary);
}
