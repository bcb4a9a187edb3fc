//! Snapshots of recordings of machines with disks: a replay begins at each of them with the disks as
//! they were there, and with the requests that were on their way.

use super::disks::image;
use super::snapshots::rewritten;
use lockstep_core::machine::disk::{DiskShape, Request};
use lockstep_core::replica::snapshot::{
    DiskBlock, DisksWriter, Recording, read, read_bytes, read_disks_header, read_header, scan,
};
use lockstep_core::replica::transfer::Received;
use lockstep_tests::harness::process::run;
use lockstep_tests::harness::{
    Client, Ended, Guest, Process, Reply, Scratch, Switch, kvm, lockstep, wait_until,
};
use nix::sys::signal::Signal;
use std::fs;
use std::io::Cursor;
use std::path::{Path, PathBuf};
use std::process::Command;

/// The shortest interval there is.
const EVERY: &str = "--snapshot-every=100ms";
const IMAGE_BYTES: u64 = 4 << 20;
/// More than there ever are of.
const REQUESTS_MAX: u64 = 4_000_000;

/// A recording of a guest with one disk.
struct Recorded {
    scratch: Scratch,
    guest: Guest,
    command_line: String,
    base: PathBuf,
    before: Vec<u8>,
    log: PathBuf,
    stdout: String,
}

impl Recorded {
    fn command(&self, verb: &str) -> Command {
        command(verb, self.guest, &self.command_line, &self.base, &self.log)
    }

    fn replayed_from(&self, from: &str) -> Ended {
        run(self.command("replay").args(["--from", from]))
    }

    fn folder(&self) -> PathBuf {
        self.log.with_file_name("log.snapshots")
    }

    fn paths(&self, prefix: &str) -> Vec<PathBuf> {
        files(&self.log, prefix)
    }

    /// Numbers of the first entries of all snapshots.
    fn entries(&self) -> Vec<u64> {
        let paths = self.paths("snapshot-");
        let headers = paths.iter().map(|path| fs::read(path).unwrap());
        let headers = headers.map(|bytes| read_header(&mut bytes.as_slice()).unwrap());
        headers.map(|header| header.place.entry).collect()
    }

    fn disks_of(&self, entry: u64) -> PathBuf {
        self.folder().join(format!("disks-{entry:010}"))
    }

    /// Replays from each snapshot, and verifies in pieces.
    fn check(&self) {
        let entries = self.entries();
        for entry in &entries {
            let ended = self.replayed_from(&entry.to_string()).expect_code(0);
            let file = format!("snapshot-{entry:010}");
            ended.expect_named(&["begins at a snapshot", &file, "the replay equals the log"]);
            assert!(self.stdout.ends_with(&ended.stdout), "{ended}");
        }
        let ended = run(&mut self.command("verify")).expect_code(0);
        ended.expect_named(&[&format!("pieces={}", entries.len() + 1)]);
        assert!(
            fs::read(&self.base).unwrap() == self.before,
            "the base is as it was"
        );
    }
}

fn files(log: &Path, prefix: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(log.with_file_name("log.snapshots"))
        .into_iter()
        .flatten();
    let names = entries.map(|entry| entry.unwrap().path());
    let mut found: Vec<_> = names
        .filter(|path| path.file_name().unwrap().to_string_lossy().starts_with(prefix))
        .collect();
    found.sort();
    found
}

fn command(verb: &str, guest: Guest, command_line: &str, base: &Path, log: &Path) -> Command {
    let mut command = lockstep();
    command
        .arg(verb)
        .arg(guest.image())
        .arg("--disk")
        .arg(base)
        .arg("--log")
        .arg(log)
        .args(["--memory-mib=16", "--command-line", command_line]);
    command
}

/// A base that a disk guest has used, with its bytes.
fn used_base(scratch: &Scratch) -> (PathBuf, Vec<u8>) {
    let base = image(scratch, "base.img", IMAGE_BYTES);
    let mut first = lockstep();
    first
        .arg("run")
        .arg(Guest::Disk.image())
        .arg("--disk")
        .arg(&base)
        .args(["--command-line", "seed=7 requests=400 area_kib=2048"]);
    let _ = run(&mut first).expect_code(0);
    let before = fs::read(&base).unwrap();
    assert!(before.iter().any(|byte| *byte != 0));
    (base, before)
}

/// A recording of the disk guest with two snapshots at least, one of them with requests that were on
/// their way. How many requests that takes is the host's affair.
fn recorded() -> Recorded {
    let scratch = Scratch::new();
    let (base, before) = used_base(&scratch);
    let mut recorded = Recorded {
        log: scratch.join("log"),
        scratch,
        guest: Guest::Disk,
        command_line: String::new(),
        base,
        before,
        stdout: String::new(),
    };
    let mut requests = 8_000;
    loop {
        recorded.command_line = format!("seed=7 requests={requests} area_kib=2048");
        let mut record = recorded.command("record");
        let ended = run(record.args([EVERY, "--overwrite"])).expect_code(0);
        let snapshots = recorded.paths("snapshot-");
        if snapshots.len() > 1 && snapshots.iter().any(|path| !outstanding(path).is_empty()) {
            recorded.stdout = ended.stdout;
            return recorded;
        }
        requests *= 2;
        assert!(requests < REQUESTS_MAX, "no snapshot of a busy disk: {ended}");
    }
}

/// State of a disk in a saved machine, as docs/saved-state.md has it.
type Disk = (Registers, (DiskShape, Queue, u64, Vec<Outstanding>, [u8; 16]));
type Registers = (u32, u32, u32, u32, u64, u32);
type Queue = (u16, u16, u16, bool, u64, u64, u64);
type Outstanding = (Request, Option<(u16, Vec<(u64, u32)>)>);

fn received(bytes: &[u8]) -> (Recording, Received) {
    let header = read_header(&mut &*bytes).unwrap();
    let recording = Recording {
        name: header.recording,
        machine: header.machine,
        memory_bytes: header.memory_bytes,
    };
    let (_, received) = read(&mut &*bytes, &recording).unwrap();
    (recording, received)
}

/// Requests that were on their way in a snapshot.
fn outstanding(path: &Path) -> Vec<Outstanding> {
    let (_, received) = received(&fs::read(path).unwrap());
    let mut devices = received.machine.devices.iter();
    let saved = devices.find(|device| device.name == "disk 0").unwrap();
    let (_, (.., outstanding, _)): Disk = postcard::from_bytes(&saved.state).unwrap();
    outstanding
}

/// The snapshot with no request on its way, and every digest right.
fn without_outstanding(bytes: &[u8]) -> Vec<u8> {
    let (recording, mut received) = received(bytes);
    for saved in &mut received.machine.devices {
        if saved.name == "disk 0" {
            let mut disk: Disk = postcard::from_bytes(&saved.state).unwrap();
            disk.1.3.clear();
            saved.state = postcard::to_stdvec(&disk).unwrap();
        }
    }
    let header = read_header(&mut &*bytes).unwrap();
    rewritten(received, &recording, header.place)
}

#[test]
fn a_guest_with_a_disk_is_replayed_from_each() {
    let Some(_kvm) = kvm::shared() else { return };
    let recorded = recorded();
    assert_eq!(
        recorded.paths("snapshot-").len(),
        recorded.paths("disks-").len(),
        "each has its disks"
    );
    recorded.check();
}

/// What is outstanding in a snapshot is asked of the disk again. Without it the entry of its
/// completion is refused: the machine takes none, or nothing was read for it.
#[test]
fn a_snapshot_without_the_requests_that_were_on_their_way_is_not_replayed() {
    let Some(_kvm) = kvm::shared() else { return };
    let recorded = recorded();
    let mut busy = recorded.paths("snapshot-").into_iter();
    let busy = busy.rfind(|path| !outstanding(path).is_empty()).unwrap();
    let bytes = fs::read(&busy).unwrap();
    let entry = read_header(&mut bytes.as_slice()).unwrap().place.entry;
    fs::write(&busy, without_outstanding(&bytes)).unwrap();
    for ended in [
        recorded.replayed_from(&entry.to_string()),
        run(&mut recorded.command("verify")),
    ] {
        assert!(matches!(ended.code(), Some(1 | 40)), "{ended}");
    }
}

/// The file with another block that the guest never wrote, and every digest right.
fn forged(bytes: &[u8]) -> Vec<u8> {
    let mut source = Cursor::new(bytes);
    let header = read_disks_header(&mut source).unwrap();
    let found = scan(&mut source, &header, &[IMAGE_BYTES]).unwrap();
    let recording = Recording {
        name: header.recording,
        machine: header.machine,
        memory_bytes: 0,
    };
    let mut writer = DisksWriter::new(Cursor::new(Vec::new())).unwrap();
    // Behind the area of the load: the guest never reads it.
    let never = DiskBlock { disk: 0, block: 63 };
    writer.put(never, &[1; 65_536]).unwrap();
    let mut buffer = Vec::new();
    for (block, found) in found {
        read_bytes(&mut source, &found, &mut buffer).unwrap();
        buffer.resize(65_536, 0);
        writer.put(block, &buffer).unwrap();
    }
    let (sink, _) = writer.finish(&recording, header.entry, header.before).unwrap();
    sink.into_inner()
}

#[test]
fn disks_that_differ_from_the_run_are_a_divergence_at_their_boundary() {
    let Some(_kvm) = kvm::shared() else { return };
    let recorded = recorded();
    let entry = *recorded.entries().last().unwrap();
    let path = recorded.disks_of(entry);
    fs::write(&path, forged(&fs::read(&path).unwrap())).unwrap();
    run(&mut recorded.command("verify"))
        .expect_code(40)
        .expect_named(&[
            &format!("at entry {entry}: content of disk 0"),
            "from its snapshot",
        ]);
}

#[test]
fn disks_that_are_missing_damaged_or_foreign_are_named_and_harm_no_earlier_replay() {
    let Some(_kvm) = kvm::shared() else { return };
    let recorded = recorded();
    let entries = recorded.entries();
    let [first, second, ..] = entries[..] else {
        panic!("{entries:?}");
    };
    let path = recorded.disks_of(second);
    let name = path.display().to_string();
    let whole = fs::read(&path).unwrap();
    let expect_refused = |code: i32, named: &str| {
        for ended in [
            recorded.replayed_from(&second.to_string()),
            run(&mut recorded.command("verify")),
        ] {
            ended.expect_code(code).expect_named(&[&name, named, "hint"]);
        }
        let _ = recorded.replayed_from(&first.to_string()).expect_code(0);
    };
    let changed = |place: usize, value: u8| {
        let mut bytes = whole.clone();
        bytes[place] ^= value;
        bytes
    };
    let cases: [(Vec<u8>, i32, &str); 6] = [
        (changed(whole.len() - 1, 1), 42, "damaged"),
        (changed(50, 1), 42, "damaged"),
        (whole[..whole.len() - 1].to_vec(), 42, "cut short"),
        (whole[..100].to_vec(), 42, "cut short"),
        (changed(4, 6), 43, "format version 7"),
        (vec![1; 4096], 42, "begins with other bytes"),
    ];
    for (bytes, code, named) in cases {
        fs::write(&path, bytes).unwrap();
        expect_refused(code, named);
    }
    fs::copy(recorded.disks_of(first), &path).unwrap();
    expect_refused(42, "its name");
    fs::remove_file(&path).unwrap();
    expect_refused(3, "is missing");
    fs::write(&path, &whole).unwrap();
    // The one before it, in a shape that is sound by itself.
    let before = recorded.disks_of(first);
    fs::write(&before, forged(&fs::read(&before).unwrap())).unwrap();
    recorded
        .replayed_from(&second.to_string())
        .expect_code(42)
        .expect_named(&[&before.display().to_string(), "is not the file after which"]);

    // Of another recording of the same guest and base.
    let other = recorded.scratch.directory("other").join("log");
    let mut record = command(
        "record",
        recorded.guest,
        &recorded.command_line,
        &recorded.base,
        &other,
    );
    let _ = run(record.arg(EVERY)).expect_code(0);
    let stranger = files(&other, "disks-").pop().unwrap();
    fs::copy(&stranger, &path).unwrap();
    expect_refused_as_other(&recorded, second, &name);
    // The log needs none of them.
    let _ = run(&mut recorded.command("replay")).expect_code(0);
}

fn expect_refused_as_other(recorded: &Recorded, entry: u64, name: &str) {
    recorded
        .replayed_from(&entry.to_string())
        .expect_code(43)
        .expect_named(&[name, "another recording"]);
}

#[test]
fn a_replay_from_a_snapshot_wants_the_base_of_the_recording() {
    let Some(_kvm) = kvm::shared() else { return };
    let recorded = recorded();
    let mut other = recorded.before.clone();
    other[1 << 20] ^= 1;
    let other = recorded.scratch.write("other.img", other);
    let (guest, command_line) = (recorded.guest, &recorded.command_line);
    let mut replay = command("replay", guest, command_line, &other, &recorded.log);
    run(replay.args(["--from", "last"]))
        .expect_code(43)
        .expect_named(&["disks differs"]);
}

#[test]
fn a_server_with_an_append_only_file_is_replayed_from_each() {
    let Some(_kvm) = kvm::shared() else { return };
    let scratch = Scratch::new();
    let base = image(&scratch, "base.img", IMAGE_BYTES);
    let switch = Switch::start(&scratch);
    let command_line = "appendonly=always";
    let log = scratch.join("log");
    let mut record = command("record", Guest::KeyValue, command_line, &base, &log);
    record.arg(EVERY).arg("--network").arg(switch.attachment());
    let mut recording = Process::start("record", &mut record);
    let mut client = Client::connect(switch.client_address());
    let mut round = 0;
    while files(&log, "snapshot-0").len() < 4 {
        round += 1;
        let (key, value) = (format!("key-{}", round % 100), format!("{round}"));
        assert_eq!(client.call(&["SET", &key, &value]), Reply::ok());
        assert_eq!(client.call(&["GET", &key]), Reply::bulk(&value));
    }
    recording.signal(Signal::SIGTERM);
    let _ = recording.wait().expect_code(0);
    let mut recorded = Recorded {
        scratch,
        guest: Guest::KeyValue,
        command_line: command_line.to_owned(),
        before: vec![0; IMAGE_BYTES as usize],
        base,
        log,
        stdout: String::new(),
    };
    recorded.stdout = run(&mut recorded.command("replay")).expect_code(0).stdout;
    recorded.check();
}

#[test]
fn a_recording_that_was_killed_while_it_wrote_a_snapshot_keeps_the_earlier_ones() {
    let Some(_kvm) = kvm::shared() else { return };
    let scratch = Scratch::new();
    let (base, before) = used_base(&scratch);
    let log = scratch.join("log");
    let command_line = "seed=7 requests=0 area_kib=2048";
    let mut record = command("record", Guest::Disk, command_line, &base, &log);
    let mut recording = Process::start("record", record.arg(EVERY));
    let is_writing_another =
        || files(&log, "snapshot-0").len() > 1 && !files(&log, "disks.partial").is_empty();
    wait_until(
        || is_writing_another().then_some(()),
        || "a snapshot behind others that is being written".to_owned(),
    );
    let _ = recording.kill();
    let ended = run(command("replay", Guest::Disk, command_line, &base, &log).args(["--from", "last"]));
    let ended = ended.expect_code(42);
    ended.expect_named(&["begins at a snapshot", "is cut off"]);
    assert!(fs::read(&base).unwrap() == before);
}
