//! Pairs whose guest keeps an append-only file, and whose two sides are killed under load, with and
//! without what their disks had in a cache: the machine begins again from the newest image, and
//! everything that was acknowledged is there.

use super::web::expect_armed;
use lockstep_tests::campaign::clients::{Clients, read_all};
use lockstep_tests::campaign::disks::judge::{Kept, complaints};
use lockstep_tests::campaign::history::Record;
use lockstep_tests::harness::process::run;
use lockstep_tests::harness::{
    Client, Guest, Replica, Reply, Scratch, Switch, VolatileDisk, kvm, lockstep, wait_until,
};
use nix::sys::signal::Signal;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;

const IMAGE_BYTES: usize = 4 << 20;
const CLIENTS: usize = 4;
/// Answers to each client before a kill.
const ANSWERS: u64 = 30;

/// Two hosts, each with an image, and the networks of the machines that begin one after the other.
struct Hosts {
    scratch: Scratch,
    volatile: Option<VolatileDisk>,
}

impl Hosts {
    fn new() -> Self {
        let scratch = Scratch::new();
        scratch.directory("shared");
        for host in ["left", "right"] {
            // Without holes: what a cache holds is not to be found by looking for them.
            scratch.write(&format!("{host}.img"), vec![0; IMAGE_BYTES]);
        }
        Self {
            scratch,
            volatile: None,
        }
    }

    /// Hosts whose disks have a cache that is lost with a side.
    fn with_volatile_disks() -> Option<Self> {
        let hosts = Self::new();
        let volatile = Some(VolatileDisk::build(&hosts.scratch)?);
        Some(Self { volatile, ..hosts })
    }

    fn image(&self, host: &str) -> PathBuf {
        self.scratch.join(&format!("{host}.img"))
    }

    fn command(&self, host: &str, report: &str, switch: &Switch) -> Command {
        let mut command = lockstep();
        command
            .arg("replica")
            .arg(Guest::KeyValue.image())
            .args(["--name=store", "--timeout-ms=4000", "--lag-ms-max=60000"])
            .args(["--command-line=appendonly=always", "--disk"])
            .arg(self.image(host))
            .arg("--shared-directory")
            .arg(self.scratch.join("shared"))
            .arg("--network")
            .arg(switch.attachment())
            .arg("--report")
            .arg(self.scratch.join(&format!("{report}.jsonl")));
        if let Some(volatile) = &self.volatile {
            let seed = report.bytes().fold(7, |seed, byte| seed * 31 + u64::from(byte));
            volatile.use_for(&mut command, &self.image(host), seed);
        }
        command
    }

    fn start(&self, host: &str, report: &str, switch: &Switch) -> Replica {
        let path = self.scratch.join(&format!("{report}.jsonl"));
        Replica::start(report, &mut self.command(host, report, switch), path)
    }

    /// The machine, begun on the left host and protected by the right one; `time` names it.
    fn start_both(&self, time: u32, switch: &Switch) -> [Replica; 2] {
        let mut holder = self.start("left", &format!("left-{time}"), switch);
        holder.wait_for("begun");
        let mut newcomer = self.start("right", &format!("right-{time}"), switch);
        expect_armed(&mut holder, &mut newcomer);
        [holder, newcomer]
    }
}

fn switch(scratch: &Scratch, time: u32) -> Switch {
    Switch::start_named(scratch, &format!("switch-{time}"))
}

/// Waits until each client has so many answers more.
fn wait_for_answers(clients: &Clients, count: u64) {
    let enough = clients.fewest_answers() + count;
    wait_until(
        || (clients.fewest_answers() >= enough).then_some(()),
        || format!("{enough} answers to each client"),
    );
}

/// Clients of a machine that is about to be killed, and what they have asked of it and of those
/// before it.
fn load(switch: &Switch, seed: u64) -> Clients {
    let clients = Clients::start(switch.client_address(), CLIENTS, seed);
    wait_for_answers(&clients, ANSWERS);
    clients
}

/// Kills both sides at once: neither has time to hear of the other's end, and to claim.
fn kill_at_once(sides: &mut [Replica; 2]) {
    for signal in [Signal::SIGSTOP, Signal::SIGKILL] {
        sides.iter().for_each(|side| side.process.signal(signal));
    }
    for side in sides {
        let _ = side.process.wait();
    }
}

/// Everything that the clients did, whose machine is gone.
fn history(clients: Clients) -> Vec<Record> {
    let accounts = clients.stop(true);
    accounts.into_iter().flat_map(|account| account.history).collect()
}

fn read(switch: &Switch) -> BTreeMap<String, u64> {
    read_all(switch.client_address(), CLIENTS).unwrap().0
}

fn expect_everything(history: &[Record], switch: &Switch) {
    let complaints = complaints(history, &read(switch), Kept::All);
    assert_eq!(complaints, Vec::<String>::new());
}

#[test]
fn after_both_sides_are_killed_at_once_everything_acknowledged_is_there() {
    let Some(_kvm) = kvm::alone() else { return };
    let hosts = Hosts::new();
    let first = switch(&hosts.scratch, 1);
    let mut sides = hosts.start_both(1, &first);
    let clients = load(&first, 1);
    kill_at_once(&mut sides);
    let history = history(clients);

    let second = switch(&hosts.scratch, 2);
    let refused = run(&mut hosts.command("right", "refused", &second)).expect_code(3);
    refused.expect_named(&["right.img", "is not known to be the newest"]);
    let _again = hosts.start_both(2, &second);
    expect_everything(&history, &second);
}

#[test]
fn after_one_side_is_killed_and_then_the_other_the_machine_begins_from_the_survivors_image() {
    let Some(_kvm) = kvm::alone() else { return };
    let hosts = Hosts::new();
    let first = switch(&hosts.scratch, 1);
    let [mut holder, mut newcomer] = hosts.start_both(1, &first);
    let clients = load(&first, 2);
    let _ = holder.process.kill();
    newcomer.wait_for("live");
    wait_for_answers(&clients, ANSWERS);
    let _ = newcomer.process.kill();
    let history = history(clients);

    let second = switch(&hosts.scratch, 2);
    let refused = run(&mut hosts.command("left", "refused", &second)).expect_code(3);
    refused.expect_named(&["left.img", "start that side first"]);
    let mut again = hosts.start("right", "right-again", &second);
    again.wait_for("begun");
    expect_everything(&history, &second);
}

#[test]
fn what_was_flushed_before_an_answer_outlives_the_caches_of_both_disks() {
    let Some(_kvm) = kvm::alone() else { return };
    let Some(hosts) = Hosts::with_volatile_disks() else {
        return;
    };
    let mut switch = switch(&hosts.scratch, 0);
    for time in 1..=3 {
        let mut sides = hosts.start_both(time, &switch);
        let clients = load(&switch, time.into());
        kill_at_once(&mut sides);
        let history = history(clients);
        switch = self::switch(&hosts.scratch, time);
        let mut again = hosts.start("left", &format!("again-{time}"), &switch);
        again.wait_for("begun");
        expect_everything(&history, &switch);
        // The keys of this time are nobody's next time.
        let mut client = Client::connect(switch.client_address());
        assert_eq!(client.call(&["FLUSHALL"]), Reply::ok());
        let _ = again.process.kill();
    }
}

#[test]
fn a_disk_that_lies_about_flushes_loses_what_was_acknowledged() {
    let Some(_kvm) = kvm::alone() else { return };
    let Some(hosts) = Hosts::with_volatile_disks() else {
        return;
    };
    let first = switch(&hosts.scratch, 1);
    let mut sides = hosts.start_both(1, &first);
    let mut client = Client::connect(first.client_address());
    assert_eq!(client.call(&["SET", "before", "x"]), Reply::ok());
    hosts.volatile.as_ref().unwrap().lie();
    for number in 0..100 {
        let key = format!("key{number}");
        assert_eq!(client.call(&["SET", &key, "x"]), Reply::ok());
    }
    kill_at_once(&mut sides);
    hosts.volatile.as_ref().unwrap().mend();

    let second = switch(&hosts.scratch, 2);
    let mut again = hosts.start("left", "left-again", &second);
    again.wait_for("begun");
    let mut client = Client::connect(second.client_address());
    assert_eq!(client.call(&["EXISTS", "before"]), Reply::Integer(1));
    assert_eq!(client.call(&["DBSIZE"]), Reply::Integer(1));
}

#[test]
fn a_torn_end_is_not_taken_for_a_record_and_everything_acknowledged_is_before_it() {
    let Some(_kvm) = kvm::alone() else { return };
    let Some(hosts) = Hosts::with_volatile_disks() else {
        return;
    };
    let volatile = hosts.volatile.as_ref().unwrap();
    let first = switch(&hosts.scratch, 1);
    let mut sides = hosts.start_both(1, &first);
    let mut client = Client::connect(first.client_address());
    for number in 0..20 {
        assert_eq!(client.call(&["INCR", "count"]), Reply::Integer(number + 1));
    }
    volatile.tear();
    client.send(&["SET", "torn", &"t".repeat(6000)]).unwrap();
    // The backup's may hang at what was answered before.
    volatile.wait_until_torn(&hosts.image("left"));
    kill_at_once(&mut sides);
    assert!(!client.has_answer(), "it was not durable");
    volatile.mend();
    let image = std::fs::read(hosts.image("left")).unwrap();
    let is_torn = |bytes: &[u8]| bytes.iter().all(|byte| *byte == b't');
    assert!(image.chunks(512).any(is_torn), "a part of it is on the disk");

    let second = switch(&hosts.scratch, 2);
    let mut again = hosts.start("left", "left-again", &second);
    again.process.wait_for_stdout("20 records in");
    let mut client = Client::connect(second.client_address());
    assert_eq!(client.call(&["GET", "count"]), Reply::bulk("20"));
    assert_eq!(client.call(&["EXISTS", "torn"]), Reply::Integer(0));
}
