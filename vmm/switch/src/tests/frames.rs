//! Frames between ports, good ones and bad ones.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;

use super::running::{RunningSwitch, SOON};
use super::station::FakeMachine;
use crate::host::HOST_MAC;
use lockstep_network::{ArpPacket, BlockingReceiver, FRAME_BYTES_MAX, FrameSender, MacAddress};

const ALICE: MacAddress = [2, 0, 0, 0, 0, 0xA];
const BOB: MacAddress = [2, 0, 0, 0, 0, 0xB];
const ALL: MacAddress = [0xFF; 6];

fn frame(from: MacAddress, to: MacAddress, mark: u8) -> Vec<u8> {
    [&to[..], &from, &[0x88, 0xB6], &[mark; 46]].concat()
}

fn attached(switch: &RunningSwitch) -> (FrameSender, BlockingReceiver) {
    switch.attach().split_blocking()
}

fn next(receiver: &mut BlockingReceiver) -> Vec<u8> {
    receiver.recv(SOON).unwrap().expect("a frame comes")
}

/// What the port gets until a frame with `mark` comes: its marks, that one left out.
fn marks_until(receiver: &mut BlockingReceiver, mark: u8) -> Vec<u8> {
    let marks = std::iter::from_fn(|| next(receiver).get(14).copied());
    marks.take_while(|seen| *seen != mark).collect()
}

/// Two machines that have heard of each other, so that nothing is flooded any more.
fn acquainted(switch: &RunningSwitch) -> [(FrameSender, BlockingReceiver); 2] {
    let (mut alice, mut bob) = (attached(switch), attached(switch));
    // The switch attaches in order, but reads each in its own time: asked until bob is there.
    while bob.1.recv(std::time::Duration::from_millis(5)).unwrap().is_none() {
        alice.0.send(&frame(ALICE, ALL, 0)).unwrap();
    }
    bob.0.send(&frame(BOB, ALICE, 1)).unwrap();
    while next(&mut alice.1).get(14) != Some(&1) {}
    // Bob has all that alice asked with before this.
    alice.0.send(&frame(ALICE, BOB, 2)).unwrap();
    marks_until(&mut bob.1, 2);
    [alice, bob]
}

#[test]
fn frames_for_a_known_machine_go_to_it_alone() {
    let switch = RunningSwitch::start();
    let [mut alice, mut bob] = acquainted(&switch);
    let mut carol = attached(&switch);
    carol.0.send(&frame([2, 0, 0, 0, 0, 0xC], BOB, 10)).unwrap();
    marks_until(&mut bob.1, 10);

    alice.0.send(&frame(ALICE, BOB, 11)).unwrap();
    alice.0.send(&frame(ALICE, ALL, 12)).unwrap();

    assert_eq!(marks_until(&mut bob.1, 12), [11]);
    assert_eq!(marks_until(&mut carol.1, 12), Vec::<u8>::new());
}

#[test]
fn the_host_answers_for_its_address() {
    let switch = RunningSwitch::start();
    let (mut sender, mut receiver) = attached(&switch);
    let question = ArpPacket::request_frame((ALICE, [10, 0, 2, 77].into()), [10, 0, 2, 2].into());
    sender.send(&question).unwrap();
    let (address, _) = ArpPacket::sender_of(&next(&mut receiver)).unwrap();
    assert_eq!(address, std::net::Ipv4Addr::new(10, 0, 2, 2));
}

#[test]
fn the_longest_frame_passes() {
    let switch = RunningSwitch::start();
    let [mut alice, mut bob] = acquainted(&switch);
    let mut longest = frame(ALICE, BOB, 9);
    longest.resize(FRAME_BYTES_MAX, 9);
    alice.0.send(&longest).unwrap();
    assert_eq!(next(&mut bob.1), longest);
}

#[test]
fn who_sends_no_frames_is_detached_and_nobody_else_notices() {
    let switch = RunningSwitch::start();
    let [mut alice, mut bob] = acquainted(&switch);
    for garbage in [
        &b"GET / HTTP/1.1\r\n\r\n"[..],
        &(FRAME_BYTES_MAX as u32 + 1).to_be_bytes(),
    ] {
        let mut stranger = UnixStream::connect(switch.socket()).unwrap();
        stranger.set_read_timeout(Some(SOON)).unwrap();
        stranger.write_all(garbage).unwrap();
        assert_eq!(stranger.read(&mut [0; 1]).unwrap(), 0, "the switch closes it");
    }
    let mut cut = UnixStream::connect(switch.socket()).unwrap();
    cut.write_all(&[0, 0, 0, 60, 1, 2, 3]).unwrap();
    drop(cut);

    alice.0.send(&frame(ALICE, BOB, 7)).unwrap();
    assert_eq!(next(&mut bob.1), frame(ALICE, BOB, 7));
}

#[test]
fn a_port_that_does_not_read_holds_up_nobody() {
    let switch = RunningSwitch::start();
    let [mut alice, mut bob] = acquainted(&switch);
    let _never_reads = UnixStream::connect(switch.socket()).unwrap();
    let mut broadcast = frame(ALICE, ALL, 3);
    broadcast.resize(60_000, 3);

    // 30 MB, far more than every buffer on the way to the port that does not read.
    for _ in 0..500 {
        alice.0.send(&broadcast).unwrap();
        assert_eq!(next(&mut bob.1).len(), broadcast.len());
    }

    let _machine = FakeMachine::listening(switch.attach(), 1);
    let mut client = switch.client();
    client.write_all(b"and clients?").unwrap();
    let mut answer = [0; 12];
    client.read_exact(&mut answer).unwrap();
    assert_eq!(&answer, b"and clients?");
}

#[test]
fn what_enters_is_captured() {
    let capture = tempfile::NamedTempFile::new().unwrap();
    let path = capture.path().to_owned();
    let switch = RunningSwitch::start_with(|arguments| arguments.pcap = Some(path), false);
    let [mut alice, mut bob] = acquainted(&switch);
    alice.0.send(&frame(ALICE, BOB, 0x77)).unwrap();
    next(&mut bob.1);

    let captured = std::fs::read(capture.path()).unwrap();
    let wanted = frame(ALICE, BOB, 0x77);
    assert!(captured.windows(wanted.len()).any(|window| window == wanted));
}

#[test]
fn the_host_answers_a_probe_that_has_no_address_and_learns_nothing_from_it() {
    let switch = RunningSwitch::start();
    let host = std::net::Ipv4Addr::new(10, 0, 2, 2);
    let (mut sender, mut receiver) = attached(&switch);
    for destination in [ALL, HOST_MAC] {
        sender
            .send(&ArpPacket::probe_frame(ALICE, host, destination))
            .unwrap();
        let answer = next(&mut receiver);
        assert_eq!(answer, ArpPacket::reply_frame((HOST_MAC, host), ALICE));
    }
}
