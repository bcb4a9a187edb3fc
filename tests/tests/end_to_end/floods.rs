//! A primary that is flooded, by its peer or from the network: everything else has its turn.

use lockstep_tests::harness::proxy::{Passing, Toward};
use lockstep_tests::harness::{Guest, Pair, PairSpec, kvm, wait_until};
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Heartbeats that a primary says in a flood; they are an eighth of the timeout apart.
const HEARTBEATS: usize = 4;
/// A broadcast of no known protocol.
const FRAME: [u8; 60] = {
    let mut frame = [0xff; 60];
    (frame[6], frame[12], frame[13]) = (0x02, 0x88, 0xb6);
    frame
};

fn heartbeats_said(pair: &Pair) -> usize {
    let passed = pair.proxy().traffic().passed;
    passed
        .iter()
        .filter(|(_, passing)| matches!(passing, Passing::Heartbeat(Toward::Backup, _)))
        .count()
}

#[test]
fn a_primary_flooded_with_heartbeats_says_its_own_serves_and_stops() {
    let Some(_kvm) = kvm::alone() else { return };
    let mut pair = PairSpec::new(Guest::KeyValue).with_switch().with_proxy().start();
    let mut client = pair.client();
    pair.proxy().flood_primary();
    let before = heartbeats_said(&pair);
    wait_until(
        || {
            let _ = client.call(&["SET", "key", "value"]);
            (heartbeats_said(&pair) >= before + HEARTBEATS).then_some(())
        },
        || "heartbeats of a flooded primary".to_owned(),
    );
    assert!(
        pair.primary.event("noticed").is_none(),
        "{}",
        pair.primary.account()
    );
    assert!(
        pair.backup.event("noticed").is_none(),
        "{}",
        pair.backup.account()
    );
    let _ = pair.primary.stop().expect_code(0);
}

#[test]
fn a_primary_flooded_with_frames_stops_when_it_is_asked() {
    let Some(_kvm) = kvm::alone() else { return };
    let mut pair = PairSpec::new(Guest::KeyValue).with_quiet_switch().start();
    let mut client = pair.client();
    let attachment = pair.switch().attachment();
    let mut station = UnixStream::connect(attachment.strip_prefix("switch:").unwrap()).unwrap();
    // Frames in a stream have their length before them.
    let together = [&(FRAME.len() as u32).to_be_bytes()[..], &FRAME]
        .concat()
        .repeat(64);
    let stopping = Arc::new(AtomicBool::new(false));
    let stop = stopping.clone();
    let flood = thread::spawn(move || {
        while !stop.load(Ordering::Relaxed) {
            station.write_all(&together).unwrap();
        }
    });
    // An answer shows that the guest lives in the flood.
    let _ = client.call(&["SET", "key", "value"]);
    let _ = pair.primary.stop().expect_code(0);
    pair.backup.wait_for("live");
    let _ = pair.backup.stop().expect_code(0);
    stopping.store(true, Ordering::Relaxed);
    flood.join().unwrap();
}
