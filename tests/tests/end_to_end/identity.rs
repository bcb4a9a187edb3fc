//! One store, and sides that start in any order, with bad records, in another's place, or by
//! another build: one machine, one clear error each, and the machine that runs is not touched.

use crate::refusal::another_build;
use lockstep_logging_channel::message::{Message, Piece, Welcome};
use lockstep_logging_channel::{Record, codec};
use lockstep_tests::harness::process::run;
use lockstep_tests::harness::{Guest, Replica, Scratch, free_port, kvm, lockstep, lockstep_path, wait_until};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Long, so that a busy machine causes no failover of its own.
const PAIR: [&str; 4] = ["--timeout-ms", "4000", "--lag-ms-max", "60000"];
const MEMORY_MIB: u64 = 32;

/// A shared directory, and sides that use it.
struct Store {
    scratch: Scratch,
}

impl Store {
    fn new() -> Self {
        let scratch = Scratch::new();
        scratch.directory("shared");
        Self { scratch }
    }

    fn shared(&self) -> PathBuf {
        self.scratch.join("shared")
    }

    /// A side of a machine that waits for clients for ever.
    fn side(&self, role: &str, flags: &[&str]) -> Command {
        let mut command = lockstep();
        command.arg(role).arg(Guest::KeyValue.image());
        command.arg("--shared-directory").arg(self.shared());
        command.arg(format!("--memory-mib={MEMORY_MIB}"));
        command.args(PAIR).args(flags);
        command
    }

    fn start(&self, name: &str, mut command: Command) -> Replica {
        let report = self.scratch.join(&format!("{name}.jsonl"));
        command.arg("--report").arg(&report);
        Replica::start(name, &mut command, report)
    }

    /// Starts a side that begins the machine.
    fn begin(&self, name: &str, role: &str, flags: &[&str]) -> Replica {
        let mut side = self.start(name, self.side(role, flags));
        side.wait_for("listening");
        side
    }

    /// A file of the machine.
    fn file(&self, machine: &str, file: &str) -> PathBuf {
        self.shared().join(machine).join(file)
    }

    /// Writes a file of the machine, which may not exist yet.
    fn write(&self, machine: &str, file: &str, text: &str) {
        std::fs::create_dir_all(self.shared().join(machine)).unwrap();
        let name = format!("lockstep-machine 1\nname {machine}\n");
        std::fs::write(self.file(machine, "machine"), name).unwrap();
        std::fs::write(self.file(machine, file), text).unwrap();
    }

    fn status(&self, machine: &str) -> Value {
        let mut command = lockstep();
        command.args(["status", machine, "--json", "--shared-directory"]);
        let ended = run(command.arg(self.shared())).expect_code(0);
        serde_json::from_str(&ended.stdout).unwrap()
    }

    /// Both a side that starts and `lockstep status` refuse the store, and change nothing in it.
    fn expect_refused_by_both(&self, machine: &str, named: &[&str]) {
        let before = self.contents(machine);
        let mut status = lockstep();
        status
            .args(["status", machine, "--shared-directory"])
            .arg(self.shared());
        let mut replica = self.side("replica", &["--name", machine]);
        for command in [&mut status, &mut replica] {
            run(command).expect_code(3).expect_named(named);
        }
        assert_eq!(self.contents(machine), before);
    }

    fn contents(&self, machine: &str) -> Vec<(String, String)> {
        let entries = std::fs::read_dir(self.shared().join(machine)).unwrap();
        let mut files: Vec<_> = entries
            .map(|entry| entry.unwrap())
            .filter(|entry| entry.file_type().unwrap().is_file())
            .map(|entry| {
                let text = std::fs::read_to_string(entry.path()).unwrap();
                (entry.file_name().into_string().unwrap(), text)
            })
            .collect();
        files.sort();
        files
    }
}

/// A claim of generation 1 by a process of another host, which can be joined at `address`.
fn claim_of_another_host(address: &str, written: u64) -> String {
    let id = "01".repeat(16);
    format!(
        "lockstep-claim 2\ngeneration 1\nmachine {id}\nid {id}\nlabel replica\nhost there\nboot {id}\n\
         process 4711\nprocess-start 1\npid-namespace 1\ntime-namespace 1\naddress {address}\nwritten {written}\n"
    )
}

fn expect_refused(mut command: Command, code: i32, named: &[&str]) {
    run(&mut command).expect_code(code).expect_named(named);
}

fn expect_good_end(mut side: Replica) {
    assert!(side.process.is_running(), "{}", side.account());
    let _ = side.stop().expect_code(0);
}

#[test]
fn two_primaries_without_a_name_are_one_machine() {
    let Some(_kvm) = kvm::alone() else { return };
    let store = Store::new();
    let first = store.begin("first", "primary", &[]);
    for role in ["primary", "primary"] {
        let named = [
            "name: default is held in generation 1 by primary (host ",
            "`lockstep replica --name default` joins it",
            "another machine needs a name of its own",
        ];
        expect_refused(store.side(role, &[]), 3, &named);
    }
    let mut another = store.begin("another", "primary", &["--name", "another"]);
    let _ = another.stop().expect_code(0);
    expect_good_end(first);
}

#[test]
fn a_primary_after_the_end_or_after_proof_of_death_begins_the_next_generation_and_says_what_is_lost() {
    let Some(_kvm) = kvm::alone() else { return };
    let store = Store::new();
    let mut first = store.begin("first", "primary", &[]);
    let _ = first.stop().expect_code(0);
    let mut second = store.begin("second", "primary", &[]);
    assert_eq!(second.wait_for("begun")["generation"], 2);
    let _ = second.process.kill();
    let mut third = store.begin("third", "primary", &[]);
    assert_eq!(third.wait_for("begun")["generation"], 3);
    third
        .process
        .wait_for_stderr("what ran in generation 2 is gone, with its memory");
    expect_good_end(third);
}

#[test]
fn a_backup_without_an_address_joins_the_holder_that_the_store_names_or_waits_for_one() {
    let Some(_kvm) = kvm::alone() else { return };
    let store = Store::new();
    let mut backup = store.start("backup", store.side("backup", &[]));
    backup.process.wait_for_stderr("nobody holds default yet");
    let mut primary = store.start("primary", store.side("primary", &[]));
    primary.wait_for("protected");
    backup.wait_for("protected");
    assert_eq!(backup.event("begun"), None);
    let _ = backup.process.kill();
    primary.wait_for("solo");
    primary
        .process
        .wait_for_stderr("WARN the machine runs on, and is not protected: going on without a backup");
    let mut second = store.start("second", store.side("backup", &[]));
    second.wait_for("armed");
    let said = second.process.wait_for_stderr("all of it is here");
    let joining: Vec<_> = said.lines().filter(|line| line.contains(" joining ")).collect();
    let [line] = joining.as_slice() else {
        panic!("{joining:?}")
    };
    let place = "joining the machine default, which runs at unix:";
    assert!(line.contains(place) && line.ends_with("generation=2"), "{line}");
    let _ = primary.process.kill();
    second.wait_for("live");
    expect_good_end(second);
}

#[test]
fn a_port_that_is_taken_from_a_survivor_is_told_in_the_status_and_tried_again() {
    let Some(_kvm) = kvm::alone() else { return };
    let store = Store::new();
    let mut first = store.begin("first", "replica", &["--name", "web"]);
    let port = free_port();
    let channel = format!("--channel=tcp:{port}");
    let mut second = store.start("second", store.side("replica", &["--name", "web", &channel]));
    second.wait_for("armed");
    let other = TcpListener::bind(port).unwrap();
    let _ = first.process.kill();
    second.wait_for("live");
    let why = wait_until(
        || Some(store.status("web")["why_not"].to_string()).filter(|why| why.contains(&port.to_string())),
        || format!("the port in the status: {}", store.status("web")),
    );
    assert!(
        why.contains("no backup can join") && why.contains("in use"),
        "{why}"
    );
    drop(other);
    second.wait_for("listening");
    let mut third = store.start("third", store.side("replica", &["--name", "web"]));
    third.wait_for("armed");
    let _ = third.process.kill();
    expect_good_end(second);
}

#[test]
fn a_side_that_finds_another_machine_at_its_holders_address_says_which_and_looks_again() {
    let Some(_kvm) = kvm::alone() else { return };
    let store = Store::new();
    let port = free_port();
    let channel = format!("--channel=tcp:{port}");
    let mail = store.begin("mail", "replica", &["--name", "mail", &channel]);
    let claim = claim_of_another_host(&format!("tcp:{port}"), 0);
    store.write("web", "generation-0000000001", &claim);
    let mut web = store.start("web", store.side("replica", &["--name", "web"]));
    web.process
        .wait_for_stderr("cannot be joined (the machine `mail` answers at its address)");
    web.process.wait_for_stderr("--afresh begins a new machine");
    let _ = web.stop().expect_code(0);
    expect_good_end(mail);
}

#[test]
fn a_second_newcomer_waits_for_its_turn_and_is_told_so() {
    let Some(_kvm) = kvm::alone() else { return };
    let store = Store::new();
    let mut holder = store.begin("holder", "replica", &[]);
    let mut first = store.start("first", store.side("replica", &[]));
    holder.wait_for("newcomer");
    first.process.signal(Signal::SIGSTOP);
    let mut second = store.start("second", store.side("replica", &[]));
    second
        .process
        .wait_for_stderr("which another newcomer is joining: this side waits for its turn");
    let _ = first.process.kill();
    second.wait_for("armed");
    let _ = second.process.kill();
    expect_good_end(holder);
}

#[test]
fn newcomers_of_another_build_name_or_image_are_refused_and_each_is_told_at_the_holder() {
    let Some(_kvm) = kvm::alone() else { return };
    let store = Store::new();
    let address = format!("unix:{}", store.scratch.text("channel"));
    let channel = format!("--channel={address}");
    let mut holder = store.begin("holder", "replica", &["--name", "web", &channel]);
    let other = another_build(&store.scratch);
    assert_ne!(other, lockstep_path());
    let mut build = Command::new(other);
    build.args(store.side("replica", &["--name", "web"]).get_args());
    expect_refused(build, 43, &["lockstep build"]);
    holder
        .process
        .wait_for_stderr("a newcomer was refused: the two sides differ in lockstep build");
    let memory = store.side("replica", &["--name", "web", "--window-mib=8"]);
    expect_refused(memory, 43, &["window in bytes"]);
    holder
        .process
        .wait_for_stderr("a newcomer was refused: the two sides differ in window in bytes");
    let name = store.side("backup", &["--name", "mail", &channel]);
    expect_refused(name, 43, &["machine name: primary `web`, backup `mail`"]);
    holder.process.wait_for_stderr("machine name");
    assert!(!store.shared().join("mail").exists());
    expect_good_end(holder);
}

#[test]
fn a_backup_that_is_stopped_before_it_finds_a_holder_leaves_nothing() {
    let Some(_kvm) = kvm::shared() else { return };
    let store = Store::new();
    let mut backup = store.start("backup", store.side("backup", &["--name", "mail"]));
    backup.process.wait_for_stderr("nobody holds mail yet");
    let _ = backup.stop().expect_code(0);
    assert!(!store.shared().join("mail").exists());
}

#[test]
fn a_name_that_something_else_has_in_the_shared_directory_is_said_to_be_taken() {
    let Some(_kvm) = kvm::shared() else { return };
    let store = Store::new();
    let _socket = std::os::unix::net::UnixListener::bind(store.shared().join("switch")).unwrap();
    let mut status = lockstep();
    status
        .args(["status", "switch", "--shared-directory"])
        .arg(store.shared());
    expect_refused(status, 3, &["name: ", "switch is a socket", "the name is taken"]);
    for role in ["replica", "primary", "backup"] {
        let side = store.side(role, &["--name", "switch"]);
        expect_refused(side, 3, &["name: ", "switch is a socket", "the name is taken"]);
    }
}

#[test]
fn a_machine_that_has_ended_leaves_no_claim_that_nobody_will_make() {
    let Some(_kvm) = kvm::alone() else { return };
    let store = Store::new();
    let mut first = store.begin("first", "replica", &["--name", "web"]);
    let mut second = store.start("second", store.side("replica", &["--name", "web"]));
    second.wait_for("armed");
    let prepared =
        |files: &[(String, String)]| files.iter().filter(|(name, _)| name.contains("prepared")).count();
    wait_until(
        || (prepared(&store.contents("web")) == 2).then_some(()),
        || "a claim that each side has prepared".to_owned(),
    );
    second.process.signal(Signal::SIGTERM);
    let _ = second.process.wait().expect_code(0);
    first.wait_for("solo");
    expect_good_end(first);
    assert_eq!(prepared(&store.contents("web")), 0, "{:?}", store.contents("web"));
    let found = store.status("web");
    assert_eq!(
        (&found["condition"], &found["sides"][0]["gone"]),
        (&"ended".into(), &true.into())
    );
}

#[test]
fn records_of_a_later_format_are_refused_as_a_later_locksteps_and_kept() {
    let Some(_kvm) = kvm::shared() else { return };
    let store = Store::new();
    let later = claim_of_another_host("tcp:there:9", 0).replace("claim 2", "claim 3");
    store.write("web", "generation-0000000001", &later);
    let named = [
        "generation-0000000001",
        "was written by a later Lockstep",
        "version 3",
        "reads 2",
    ];
    store.expect_refused_by_both("web", &named);
}

#[test]
fn a_damaged_sign_of_life_is_refused_by_whoever_reads_it() {
    let Some(_kvm) = kvm::alone() else { return };
    let store = Store::new();
    let mut holder = store.begin("holder", "replica", &["--name", "web"]);
    wait_until(
        || store.file("web", "seen-0000000001").exists().then_some(()),
        || "a sign of life".to_owned(),
    );
    let _ = holder.process.kill();
    std::fs::write(
        store.file("web", "seen-0000000001"),
        "lockstep-seen 1\nnonsense\n",
    )
    .unwrap();
    store.expect_refused_by_both("web", &["seen-0000000001", "is damaged or not ours"]);
}

#[test]
fn a_store_that_says_two_things_is_refused_and_the_machine_runs_on() {
    let Some(_kvm) = kvm::alone() else { return };
    let store = Store::new();
    let holder = store.begin("holder", "replica", &["--name", "web"]);
    let ended = format!(
        "lockstep-ended 1\ngeneration 1\nmachine {}\nhow it was stopped\nwritten 0\n",
        "02".repeat(16)
    );
    std::fs::write(store.file("web", "ended-0000000001"), ended).unwrap();
    let named = ["the store says two things about generation 1", "has ended in it"];
    expect_refused(store.side("replica", &["--name", "web"]), 3, &named);
    std::fs::remove_file(store.file("web", "ended-0000000001")).unwrap();
    expect_good_end(holder);
}

/// Wall times of two hosts are for people. Who holds a machine, and whether it is gone, is decided
/// by processes, and by what moves while it is watched.
#[test]
fn clocks_that_differ_by_days_change_nothing() {
    let Some(_kvm) = kvm::alone() else { return };
    const DAYS: Duration = Duration::from_secs(9 * 86_400);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    for written in [now - DAYS, now + DAYS] {
        let store = Store::new();
        let address = format!("unix:{}", store.scratch.text("nobody"));
        let claim = claim_of_another_host(&address, written.as_secs());
        store.write("web", "generation-0000000001", &claim);
        let mut joins = store.start("joins", store.side("replica", &["--name", "web"]));
        joins.process.wait_for_stderr("which does not answer");
        assert_eq!(joins.event("begun"), None);
        let _ = joins.stop().expect_code(0);
        let mut afresh = store.start("afresh", store.side("replica", &["--name", "web", "--afresh"]));
        assert_eq!(afresh.wait_for("begun")["generation"], 2);
        let why = store.status("web")["why_not"].to_string();
        assert!(why.contains("no backup has joined"), "{why}");
        expect_good_end(afresh);
    }
}

/// Passes on what a holder sends, with the version of the transfer changed to a later one.
fn change_version(mut holder: TcpStream, mut newcomer: TcpStream) {
    let (mut back, mut to_holder) = (newcomer.try_clone().unwrap(), holder.try_clone().unwrap());
    std::thread::spawn(move || std::io::copy(&mut back, &mut to_holder));
    let (mut bytes, mut pair) = (Vec::new(), [0; 16]);
    let mut buffer = [0; 64 << 10];
    while let Ok(count @ 1..) = holder.read(&mut buffer) {
        bytes.extend_from_slice(&buffer[..count]);
        while let Ok((record, length)) = codec::decode(&bytes) {
            let mut passed: Vec<u8> = bytes.drain(..length).collect();
            match record {
                Record::Message(Message::Welcome(Welcome { environment })) => pair = environment.pair,
                Record::Message(Message::Piece(Piece { bytes })) if bytes[..8] == [0; 8] => {
                    passed.clear();
                    let piece = Message::Piece(Piece {
                        bytes: first_record(pair),
                    });
                    codec::encode_message(&piece, &mut passed).unwrap();
                }
                _ => {}
            }
            if newcomer.write_all(&passed).is_err() {
                return;
            }
        }
    }
}

/// Record 0 of a transfer of version 2, as docs/joining.md has it.
fn first_record(pair: [u8; 16]) -> Vec<u8> {
    let mut content = b"LSTF\x02\0\0\0".to_vec();
    content.extend(pair);
    content.extend((MEMORY_MIB << 20).to_le_bytes());
    let mut record = 0_u64.to_le_bytes().to_vec();
    record.extend((content.len() as u32).to_le_bytes());
    record.extend(lz4_flex::block::compress(&content));
    record
}

#[test]
fn a_machine_that_is_sent_in_a_later_format_is_refused_and_runs_on() {
    let Some(_kvm) = kvm::alone() else { return };
    let store = Store::new();
    let port: SocketAddr = free_port();
    let holder = store.begin(
        "holder",
        "replica",
        &["--name", "web", &format!("--channel=tcp:{port}")],
    );
    let wire = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = wire.local_addr().unwrap();
    std::thread::spawn(move || {
        let (newcomer, _) = wire.accept().unwrap();
        change_version(TcpStream::connect(port).unwrap(), newcomer);
    });
    let newcomer = store.side("backup", &["--name", "web", &format!("--channel=tcp:{address}")]);
    let named = [
        "the machine that was received is refused",
        "the transfer has version 2",
    ];
    expect_refused(newcomer, 43, &named);
    expect_good_end(holder);
}
