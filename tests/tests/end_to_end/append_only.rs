//! The append-only file of the key-value guest: machines are killed as a power cut kills them, and
//! what was acknowledged is there when a machine begins again on the same image.

use super::disks::image;
use lockstep_tests::harness::process::run;
use lockstep_tests::harness::redis::Reply;
use lockstep_tests::harness::{Client, Guest, Process, Scratch, Switch, kvm, lockstep};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::process::Command;

const IMAGE_BYTES: u64 = 4 << 20;
/// Bytes before the halves of the file.
const FRONT_BYTES: usize = 8192;
/// What the command says of a guest whose file cannot be used.
const FILE_STATUS: &str = "status=3";

fn command(disk: Option<&Path>, policy: &str) -> Command {
    let mut command = lockstep();
    command
        .arg("run")
        .arg(Guest::KeyValue.image())
        .args(["--command-line", &format!("appendonly={policy}")]);
    if let Some(disk) = disk {
        command.arg("--disk").arg(disk);
    }
    command
}

/// A machine on `disk` that serves.
fn start(disk: &Path, switch: &Switch, policy: &str) -> (Process, Client) {
    let mut command = command(Some(disk), policy);
    command.arg("--network").arg(switch.attachment());
    let machine = Process::start("run", &mut command);
    (machine, Client::connect(switch.client_address()))
}

/// Sets numbered keys, each once the one before was acknowledged.
pub fn set(client: &mut Client, numbers: Range<u32>) {
    for number in numbers {
        let key = format!("key{number}");
        assert_eq!(client.call(&["SET", &key, &number.to_string()]), Reply::ok());
    }
}

pub fn expect_all(client: &mut Client, count: u32) {
    for number in 0..count {
        let expected = Reply::bulk(&number.to_string());
        assert_eq!(
            client.call(&["GET", &format!("key{number}")]),
            expected,
            "key{number} of {count}"
        );
    }
}

#[test]
fn what_was_acknowledged_is_there_after_a_kill() {
    let Some(_kvm) = kvm::alone() else { return };
    let scratch = Scratch::new();
    let disk = image(&scratch, "disk.img", IMAGE_BYTES);
    let switch = Switch::start(&scratch);
    let mut acknowledged = 0;
    for kill_at in [40, 120, 200] {
        let (mut machine, mut client) = start(&disk, &switch, "always");
        expect_all(&mut client, acknowledged);
        assert_eq!(
            client.call(&["CONFIG", "GET", "appendfsync"]),
            Reply::Array(vec![Reply::bulk("appendfsync"), Reply::bulk("always")])
        );
        set(&mut client, acknowledged..kill_at);
        let _ = machine.kill();
        acknowledged = kill_at;
    }
    let (_machine, mut client) = start(&disk, &switch, "always");
    expect_all(&mut client, acknowledged);
}

#[test]
fn a_deadline_goes_on_while_the_machine_is_off() {
    let Some(_kvm) = kvm::alone() else { return };
    let scratch = Scratch::new();
    let disk = image(&scratch, "disk.img", IMAGE_BYTES);
    let switch = Switch::start(&scratch);
    let (mut machine, mut client) = start(&disk, &switch, "always");
    assert_eq!(client.call(&["SET", "short", "x", "PX", "1"]), Reply::ok());
    assert_eq!(client.call(&["SET", "long", "x", "EX", "1000"]), Reply::ok());
    let _ = machine.kill();

    let (_machine, mut client) = start(&disk, &switch, "always");
    assert_eq!(client.call(&["GET", "short"]), Reply::Bulk(None));
    let Reply::Integer(left_ms) = client.call(&["PTTL", "long"]) else {
        panic!("no time to live");
    };
    assert!((1..1_000_000).contains(&left_ms), "{left_ms}");
}

#[test]
fn a_torn_end_is_cut_and_damage_before_it_is_refused() {
    let Some(_kvm) = kvm::alone() else { return };
    let scratch = Scratch::new();
    let disk = image(&scratch, "disk.img", IMAGE_BYTES);
    let switch = Switch::start(&scratch);
    let (mut machine, mut client) = start(&disk, &switch, "always");
    for key in ["a", "b", "c"] {
        assert_eq!(client.call(&["SET", key, "value"]), Reply::ok());
    }
    let _ = machine.kill();
    // The first generation is in the second half, and these three records have equal lengths.
    let half = FRONT_BYTES + (usize::try_from(IMAGE_BYTES).unwrap() - FRONT_BYTES) / 2 / 4096 * 4096;
    let whole = std::fs::read(&disk).unwrap();
    let record_bytes = 64 + 32;
    let broken = |record: usize| {
        let mut bytes = whole.clone();
        bytes[half + record * record_bytes + 70] ^= 1;
        bytes
    };

    std::fs::write(&disk, broken(2)).unwrap();
    let (mut machine, mut client) = start(&disk, &switch, "always");
    machine.wait_for_stdout("2 records");
    assert_eq!(client.call(&["EXISTS", "a", "b", "c"]), Reply::Integer(2));
    let _ = machine.kill();

    std::fs::write(&disk, broken(0)).unwrap();
    let ended = run(command(Some(&disk), "always")
        .arg("--network")
        .arg(switch.attachment()));
    let ended = ended.expect_code(1);
    ended.expect_named(&[FILE_STATUS]);
    assert!(ended.stdout.contains("record 1 is broken"), "{ended}");
}

#[test]
fn a_file_that_is_full_takes_no_more_and_serves_on() {
    let Some(_kvm) = kvm::alone() else { return };
    let scratch = Scratch::new();
    let disk = image(&scratch, "disk.img", 160 << 10);
    let switch = Switch::start(&scratch);
    let (mut machine, mut client) = start(&disk, &switch, "always");
    let value = "v".repeat(1000);
    let refused = (0..500).find(|number| {
        let reply = client.call(&["SET", &format!("key{number}"), &value]);
        match reply {
            Reply::Error(text) => {
                assert!(text.starts_with("MISCONF "), "{text}");
                true
            }
            reply => {
                assert_eq!(reply, Reply::ok());
                false
            }
        }
    });
    let stored = refused.expect("a disk of 160 KiB is full some time");
    assert_eq!(client.call(&["GET", "key0"]), Reply::bulk(&value));
    assert_eq!(client.call(&["DEL", "key0"]), Reply::Integer(1));
    assert_eq!(client.call(&["SET", "small", "x"]), Reply::ok());
    let _ = machine.kill();

    let (_machine, mut client) = start(&disk, &switch, "always");
    assert_eq!(client.call(&["DBSIZE"]), Reply::Integer(stored));
    assert_eq!(client.call(&["GET", "small"]), Reply::bulk("x"));
}

#[test]
fn without_a_disk_of_its_own_the_guest_says_so_and_ends() {
    let Some(_kvm) = kvm::shared() else { return };
    let scratch = Scratch::new();
    let switch = Switch::start(&scratch);
    let expect = |disk: Option<PathBuf>, policy: &str, said: &str| {
        let mut command = command(disk.as_deref(), policy);
        let ended = run(command.arg("--network").arg(switch.attachment())).expect_code(1);
        ended.expect_named(&[if policy == "sometimes" {
            "status=2"
        } else {
            FILE_STATUS
        }]);
        assert!(ended.stdout.contains(said), "{ended}");
    };
    expect(None, "always", "there is no disk for the append-only file");
    let foreign = scratch.write("foreign.img", vec![0x55; 1 << 20]);
    expect(Some(foreign), "everysec", "holds something else");
    let tiny = image(&scratch, "tiny.img", 64 << 10);
    expect(Some(tiny), "always", "the file needs");
    expect(None, "sometimes", "option appendonly=sometimes is not understood");
}
