//! The network outside a pair ends, comes back, comes late, or is shared with a stranger: the guest
//! and its data survive.

use lockstep_network::{Attachment, BlockingReceiver, FrameSender, Refusal};
use lockstep_tests::harness::{
    Client, Guest, Load, PATIENCE, Pair, PairSpec, Process, Reply, Scratch, Switch, bridge, kvm, lockstep,
    wait_until,
};
use nix::sys::signal::Signal;
use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Ethernet address of the guest, as lockstep gives it by default.
const GUEST_MAC: [u8; 6] = [0x52, 0x54, 0x00, 0x4c, 0x53, 0x01];
const GUEST_IP: [u8; 4] = [10, 0, 2, 15];
const STATION_MAC: [u8; 6] = [2, 0, 0, 0, 0, 0x77];

/// Appends numbers to a list until the connection breaks; gives how many were acknowledged.
fn append_until_it_breaks(address: SocketAddr) -> i64 {
    let mut client = Client::connect(address);
    let mut acknowledged = 0;
    while let Ok(reply) = client.try_call(&["RPUSH", "list", &(acknowledged + 1).to_string()]) {
        assert_eq!(reply, Reply::Integer(acknowledged + 1));
        acknowledged += 1;
    }
    acknowledged
}

/// Nothing of the list is lost: at most the write that was under way when the connection broke is
/// there too.
fn expect_list(client: &mut Client, acknowledged: i64) {
    let Reply::Integer(length) = client.call(&["LLEN", "list"]) else {
        panic!("no length")
    };
    assert!(
        length == acknowledged || length == acknowledged + 1,
        "{acknowledged} writes were acknowledged, {length} are there"
    );
}

fn wait_for_stderr(process: &Process, text: &str) {
    wait_until(
        || process.stderr().contains(text).then_some(()),
        || format!("`{text}`: {}", process.stderr()),
    );
}

fn count(text: &str, part: &str) -> usize {
    text.matches(part).count()
}

#[test]
fn a_switch_that_is_killed_and_started_again_costs_connections_and_no_data() {
    let Some(_kvm) = kvm::alone() else { return };
    let mut pair = PairSpec::new(Guest::KeyValue).with_quiet_switch().start();
    let address = pair.switch().client_address();
    let writer = thread::spawn(move || append_until_it_breaks(address));
    let mut watcher = pair.client();
    wait_until(
        || (watcher.call(&["LLEN", "list"]) != Reply::Integer(0)).then_some(()),
        || "a first write".to_owned(),
    );

    let _ = pair.switch.take().map(|mut switch| switch.process.kill());
    let acknowledged = writer.join().unwrap();
    for side in [&pair.primary, &pair.backup] {
        wait_for_stderr(&side.process, "the guest goes on, its frames are dropped");
    }
    pair.switch = Some(Switch::start(&pair.scratch));
    for side in [&pair.primary, &pair.backup] {
        wait_for_stderr(&side.process, "attached again to switch:");
        let stderr = side.process.stderr();
        assert_eq!(count(&stderr, "its frames are dropped"), 1, "{stderr}");
        assert_eq!(count(&stderr, "attached again"), 1, "{stderr}");
    }
    expect_list(&mut pair.client(), acknowledged);
    for side in [&pair.primary, &pair.backup] {
        side.wait_for_statistics(|statistics| statistics["network_reattachments"] == 1);
    }
    wait_until(
        || pair.switch().announced(1),
        || "generation 1 at the new switch".to_owned(),
    );

    fail_over(&mut pair);
    expect_list(&mut pair.client(), acknowledged);
    let _ = pair.backup.stop().expect_code(0);
    let summary = pair.backup.summary();
    assert_eq!(summary["network_reattachments"], 1);
    assert!(summary["frames_dropped"].as_u64() >= summary["frames_dropped_detached"].as_u64());
}

/// A failover under load, as if nothing had been.
fn fail_over(pair: &mut Pair) {
    let mut client = pair.client();
    assert_eq!(client.call(&["SET", "before", "1"]), Reply::ok());
    let _ = pair.primary.process.kill();
    pair.backup.wait_for("live");
    assert_eq!(client.call(&["GET", "before"]), Reply::bulk("1"));
}

#[test]
fn a_switch_may_start_later_than_its_machines() {
    let Some(_kvm) = kvm::shared() else { return };
    let scratch = Scratch::new();
    let socket = scratch.join("switch");
    let network = format!("--network=switch:{}", socket.display());
    let mut command = lockstep();
    command.arg("run").arg(Guest::KeyValue.image()).arg(network);
    let mut machine = Process::start("run", &mut command);
    wait_for_stderr(&machine, "waiting 10 s for it");

    let switch = Switch::start_quiet(&scratch);

    let mut client = Client::connect(switch.client_address());
    assert_eq!(client.call(&["SET", "key", "value"]), Reply::ok());
    machine.signal(Signal::SIGTERM);
    let _ = machine.wait().expect_code(0);
}

#[test]
fn a_machine_that_waits_for_its_switch_can_be_stopped() {
    let Some(_kvm) = kvm::shared() else { return };
    let scratch = Scratch::new();
    let network = format!("--network=switch:{}", scratch.join("switch").display());
    let mut command = lockstep();
    command.arg("run").arg(Guest::KeyValue.image()).arg(network);
    let mut machine = Process::start("run", &mut command);
    wait_for_stderr(&machine, "waiting 10 s for it");
    machine.signal(Signal::SIGTERM);
    let _ = machine.wait().expect_code(0);
}

#[test]
fn the_address_of_a_pair_is_refused_to_a_stranger_and_the_pair_keeps_it() {
    let Some(_kvm) = kvm::alone() else { return };
    let pair = PairSpec::new(Guest::KeyValue).with_quiet_switch().start();
    let mut client = pair.client();
    assert_eq!(client.call(&["SET", "owner", "pair"]), Reply::ok());

    let switch: Attachment = pair.switch().attachment().parse().unwrap();
    let (mut sender, mut receiver) = switch.attach().unwrap().split_blocking();
    let mut stolen = question(99);
    stolen[6..12].copy_from_slice(&GUEST_MAC);
    sender.send(&stolen).unwrap();
    let refusal = wait_until(
        || {
            let frame = receiver.recv(PATIENCE).unwrap()?;
            Refusal::from_frame(&frame)
        },
        || "a refusal".to_owned(),
    );
    assert_eq!(refusal.mac, GUEST_MAC);
    wait_for_stderr(&pair.switch().process, "another pair has the address");

    assert_eq!(client.call(&["GET", "owner"]), Reply::bulk("pair"));
    assert_eq!(pair.client().call(&["GET", "owner"]), Reply::bulk("pair"));
}

#[test]
fn a_machine_whose_guest_has_the_ip_address_of_another_is_told_what_to_change() {
    let Some(_kvm) = kvm::alone() else { return };
    let scratch = Scratch::new();
    let switch = Switch::start_quiet(&scratch);
    let shared = scratch.directory("shared");
    let side = |name: &str, mac: &str| {
        let mut command = lockstep();
        command.arg("replica").arg(Guest::KeyValue.image());
        command.args(["--name", name, "--mac", mac, "--memory-mib=32"]);
        command.arg("--shared-directory").arg(&shared);
        Process::start(name, command.arg("--network").arg(switch.attachment()))
    };
    let _first = side("first", "52:54:00:4c:53:01");
    assert_eq!(
        Client::connect(switch.client_address()).call(&["SET", "first", "1"]),
        Reply::ok()
    );
    // No client has anything to do with the second.
    let second = side("second", "52:54:00:4c:53:02");
    let advice = "another pair has the address 10.0.2.15: frames that claim it are refused; give each guest an \
                  address of its own (guests of this project: --command-line ip=ADDRESS)";
    wait_for_stderr(&second, advice);
    wait_for_stderr(&switch.process, advice);
}

/// Resident memory of a process, in KiB.
fn resident_kib(process: &Process) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", process.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS")).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}

#[test]
fn a_switch_gives_back_what_its_connections_took() {
    const CONNECTIONS: usize = 400;
    // 400 connections have 51 MiB of buffers. What else a closed one leaves behind was 6 KiB each.
    const KEPT_KIB_MAX: u64 = 16 << 10;
    let Some(_kvm) = kvm::shared() else { return };
    let scratch = Scratch::new();
    let switch = Switch::start_quiet(&scratch);
    let mut command = lockstep();
    command
        .arg("run")
        .arg(Guest::KeyValue.image())
        .arg("--network")
        .arg(switch.attachment());
    let _machine = Process::start("run", &mut command);
    let _ = Client::connect(switch.client_address());
    let before_kib = resident_kib(&switch.process);

    let value = "x".repeat(30_000);
    let mut clients: Vec<Client> = (0..CONNECTIONS)
        .map(|_| Client::connect(switch.client_address()))
        .collect();
    for client in &mut clients {
        assert_eq!(client.call(&["ECHO", &value]), Reply::bulk(&value));
    }
    drop(clients);

    wait_until(
        || (resident_kib(&switch.process) < before_kib + KEPT_KIB_MAX).then_some(()),
        || {
            let now_kib = resident_kib(&switch.process);
            let descriptors =
                std::fs::read_dir(format!("/proc/{}/fd", switch.process.id())).map(Iterator::count);
            format!("the buffers back: {now_kib} KiB, {before_kib} before, {descriptors:?} descriptors")
        },
    );
}

/// Asks the guest for its Ethernet address, in a frame for it alone.
fn question(from: u8) -> Vec<u8> {
    let sender = [10, 0, 2, from];
    let mut frame = [&GUEST_MAC[..], &STATION_MAC, &[8, 6, 0, 1, 8, 0, 6, 4, 0, 1]].concat();
    frame.extend([&STATION_MAC[..], &sender, &[0; 6], &GUEST_IP].concat());
    frame.resize(60, 0);
    frame
}

/// Who is answered by this frame of the guest.
fn answered(frame: &[u8]) -> Option<u8> {
    let is_answer = frame.get(12..14) == Some(&[8, 6])
        && frame.get(20..22) == Some(&[0, 2])
        && frame.get(28..32) == Some(&GUEST_IP);
    frame.get(41).copied().filter(|_| is_answer)
}

/// A station in the bridge.
struct Station {
    sender: FrameSender,
    receiver: BlockingReceiver,
}

impl Station {
    fn attach() -> Self {
        let link = Attachment::Tap(bridge::STATION.to_owned()).attach().unwrap();
        let (sender, receiver) = link.split_blocking();
        Self { sender, receiver }
    }

    fn ask(&mut self, from: u8) {
        self.sender.send(&question(from)).unwrap();
    }

    /// Waits until everyone in `waiting` is answered.
    fn await_answers(&mut self, mut waiting: Vec<u8>) {
        while !waiting.is_empty() {
            let frame = self.receiver.recv(PATIENCE).unwrap();
            let frame = frame.unwrap_or_else(|| panic!("never answered: {waiting:?}"));
            waiting.retain(|asker| answered(&frame) != Some(*asker));
        }
    }
}

fn wait_until_stopped(process: &Process) {
    let status = format!("/proc/{}/status", process.id());
    wait_until(
        || {
            let text = std::fs::read_to_string(&status).unwrap();
            text.contains("State:\tT").then_some(())
        },
        || "a stopped process".to_owned(),
    );
}

#[test]
fn a_frame_that_died_with_the_primary_reaches_the_guest_without_being_sent_again() {
    bridge::within(|| {
        let Some(_kvm) = kvm::alone() else { return };
        let spec = PairSpec::new(Guest::KeyValue).with_interfaces(bridge::REPLICAS);
        let mut pair = spec.start();
        let mut station = Station::attach();
        wait_until(
            || {
                station.ask(100);
                let frame = station
                    .receiver
                    .recv(std::time::Duration::from_millis(20))
                    .unwrap()?;
                (answered(&frame) == Some(100)).then_some(())
            },
            || "a guest that answers".to_owned(),
        );

        pair.primary.process.signal(Signal::SIGSTOP);
        wait_until_stopped(&pair.primary.process);
        let askers: Vec<u8> = (101..=120).collect();
        askers.iter().for_each(|asker| station.ask(*asker));
        let _ = pair.primary.process.kill();
        pair.backup.wait_for("live");

        station.await_answers(askers);
    });
}

#[test]
fn clients_on_a_bridge_notice_neither_a_killed_primary_nor_interfaces_that_come_back() {
    bridge::within(|| {
        let Some(_kvm) = kvm::alone() else { return };
        let spec = PairSpec::new(Guest::KeyValue).with_interfaces(bridge::REPLICAS);
        let mut pair = spec.start();
        let guest: SocketAddr = lockstep_tests::harness::switch::GUEST_SERVICE.parse().unwrap();
        wait_until(
            || Client::open(guest).ok().map(drop),
            || "a guest that accepts".to_owned(),
        );
        let load = Load::start(guest, 4);
        let [primary, backup] = bridge::REPLICAS;
        bridge::ip(&format!("link set dev {primary} down"));
        wait_for_stderr(&pair.primary.process, "is down");
        bridge::ip(&format!("link set dev {primary} up"));
        wait_for_stderr(&pair.primary.process, "is up again");
        load.wait_for_more(20);
        bridge::ip(&format!("link delete dev {backup}"));
        wait_for_stderr(
            &pair.backup.process,
            "was deleted; the guest goes on, its frames are dropped until the network is back",
        );
        bridge::ip(&format!("tuntap add dev {backup} mode tap"));
        bridge::ip(&format!("link set dev {backup} master br0 up"));
        wait_for_stderr(&pair.backup.process, "attached again to tap:");

        let _ = pair.primary.process.kill();
        pair.backup.wait_for("live");
        load.wait_for_more(20);
        load.stop_and_check();
    });
}

/// Bare acknowledgements of the guest that are repeated four times in a row, each with the port of
/// its client.
fn repeated(frames: &[Vec<u8>]) -> Vec<(u16, Vec<u8>)> {
    let is_bare = |frame: &&Vec<u8>| {
        let is_tcp = frame.get(6..12) == Some(&GUEST_MAC) && frame.get(23) == Some(&6);
        // Total length, header length and flags: an acknowledgement that ends with its header.
        is_tcp
            && u16::from_be_bytes([frame[16], frame[17]]) == 20 + u16::from(frame[46] >> 4) * 4
            && frame[47] == 0x10
    };
    let rows = frames
        .windows(4)
        .filter(|row| row.iter().all(|frame| *frame == row[0]));
    rows.filter_map(|row| row.first().filter(is_bare))
        .map(|frame| (u16::from_be_bytes([frame[36], frame[37]]), frame.clone()))
        .collect()
}

/// The frames of a survivor on a bridge that has learned where the guest was.
fn frames_of_survivor(asks: &str, clients: usize) -> Vec<Vec<u8>> {
    bridge::learn();
    let spec = PairSpec::new(Guest::KeyValue)
        .with_interfaces(bridge::REPLICAS)
        .setting("ask-for-retransmission", asks);
    let mut pair = spec.start();
    let guest: SocketAddr = lockstep_tests::harness::switch::GUEST_SERVICE.parse().unwrap();
    wait_until(
        || Client::open(guest).ok().map(drop),
        || "a guest that accepts".to_owned(),
    );
    let load = Load::start(guest, clients);
    let stop = Arc::new(AtomicBool::new(false));
    let captured = bridge::capture(bridge::REPLICAS[1], Arc::clone(&stop));
    let _ = pair.primary.process.kill();
    pair.backup.wait_for("live");
    load.wait_for_more(20);
    load.stop_and_check();
    stop.store(true, Ordering::Relaxed);
    captured.join().unwrap()
}

#[test]
fn a_survivor_on_a_tap_asks_every_client_to_send_again_unless_it_shall_not() {
    bridge::within(|| {
        const CLIENTS: usize = 3;
        let Some(_kvm) = kvm::alone() else { return };
        let frames = frames_of_survivor("true", CLIENTS);
        let asked = repeated(&frames);
        let clients: BTreeSet<u16> = asked.iter().map(|(port, _)| *port).collect();
        assert_eq!(clients.len(), CLIENTS, "{asked:?}");
        // Once on each connection, and never before the guest's place is announced.
        assert_eq!(asked.len(), CLIENTS, "{asked:?}");
        let is_announcement = |frame: &Vec<u8>| frame[..6] == [0xFF; 6] && frame[6..12] == GUEST_MAC;
        let announced = frames.iter().position(is_announcement).unwrap();
        let first = frames.iter().position(|frame| *frame == asked[0].1).unwrap();
        assert!(announced < first);
    });
    bridge::within(|| {
        let Some(_kvm) = kvm::alone() else { return };
        assert_eq!(repeated(&frames_of_survivor("false", 3)), []);
    });
}

#[test]
fn what_is_not_a_tap_interface_is_refused_by_name() {
    bridge::within(|| {
        for (interface, hint) in [("nowhere0", "does not exist"), ("br0", "is not a TAP interface")] {
            let mut command: Command = lockstep();
            command
                .arg("run")
                .arg(Guest::Smoke.image())
                .arg(format!("--network=tap:{interface}"));
            let Some(_kvm) = kvm::shared() else { return };
            let ended = lockstep_tests::harness::process::run(&mut command).expect_code(3);
            ended.expect_named(&[interface, hint]);
        }
    });
}
