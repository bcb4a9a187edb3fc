//! Both halves over real sockets, and over a TAP interface in a network namespace of its own.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use super::*;

mod lasting;
mod namespace;

const SOON: Duration = Duration::from_secs(20);

/// A link, and the other end of it.
fn pair() -> (Link, UnixStream) {
    let directory = tempfile::tempdir().unwrap();
    let socket = directory.path().join("switch");
    let listener = UnixListener::bind(&socket).unwrap();
    let link = Attachment::Switch(socket).attach().unwrap();
    (link, listener.accept().unwrap().0)
}

fn read_frame(stream: &mut UnixStream) -> Vec<u8> {
    let mut length = [0; 4];
    stream.read_exact(&mut length).unwrap();
    let mut frame = vec![0; u32::from_be_bytes(length) as usize];
    stream.read_exact(&mut frame).unwrap();
    frame
}

#[tokio::test]
async fn frames_go_both_ways() {
    let (link, mut other) = pair();
    let (mut sender, mut receiver) = link.split().unwrap();

    sender
        .send_batch([&[1_u8; 60][..], &[2; 1514]].into_iter())
        .unwrap();
    other.write_all(&[0, 0, 0, 3, 7, 8, 9, 0, 0, 0, 1, 5]).unwrap();

    assert_eq!(read_frame(&mut other), [1; 60]);
    assert_eq!(read_frame(&mut other), [2; 1514]);
    assert_eq!(receiver.recv().await.unwrap(), [7, 8, 9]);
    assert_eq!(receiver.recv().await.unwrap(), [5]);
    assert_eq!(sender.dropped_frames(), 0);
}

#[tokio::test]
async fn a_cancelled_receive_loses_nothing() {
    let (link, mut other) = pair();
    let (_sender, mut receiver) = link.split().unwrap();

    other.write_all(&[0, 0, 0, 4, 1, 2]).unwrap();
    let cancelled = tokio::time::timeout(Duration::from_millis(20), receiver.recv()).await;
    other.write_all(&[3, 4]).unwrap();

    assert!(cancelled.is_err());
    assert_eq!(receiver.recv().await.unwrap(), [1, 2, 3, 4]);
}

#[test]
fn a_peer_that_does_not_read_costs_frames_and_never_time_or_framing() {
    let (link, mut other) = pair();
    let (mut sender, _receiver) = link.split_blocking();
    let frame = |number: u32| [&number.to_be_bytes()[..], &[0; 30_000]].concat();
    let sent = 1000;

    for number in 0..sent {
        sender.send(&frame(number)).unwrap();
    }
    assert!(
        sender.dropped_frames() > 0,
        "30 MB fit into a socket nobody reads"
    );
    let reader = std::thread::spawn(move || {
        let mut last = 0;
        let mut count = 0;
        while last < sent {
            last = u32::from_be_bytes(*read_frame(&mut other).first_chunk().unwrap());
            count += 1;
        }
        count
    });
    // The reader takes what had room, then this; it goes again and again until there is room for
    // it.
    while !reader.is_finished() {
        let _ = sender.send(&frame(sent));
    }

    let received = reader.join().unwrap();
    assert!(
        received > 1 && received <= sent,
        "{received} of {sent} frames arrived whole"
    );
}

#[tokio::test]
async fn an_oversize_frame_is_dropped_on_this_side() {
    let (link, _other) = pair();
    let (mut sender, _receiver) = link.split().unwrap();
    sender.send(&vec![0; FRAME_BYTES_MAX + 1]).unwrap();
    assert_eq!(sender.dropped_frames(), 1);
}

#[tokio::test]
async fn the_end_of_the_switch_is_told_to_both_halves() {
    let (link, mut other) = pair();
    let (mut sender, mut receiver) = link.split().unwrap();

    other.write_all(&[0, 0, 0, 1, 9]).unwrap();
    drop(other);

    assert_eq!(receiver.recv().await.unwrap(), [9]);
    assert!(matches!(receiver.recv().await, Err(NetworkError::Closed { .. })));
    assert!(matches!(receiver.recv().await, Err(NetworkError::Closed { .. })));
    assert!(matches!(sender.send(&[0; 60]), Err(NetworkError::Closed { .. })));
}

#[tokio::test]
async fn what_is_no_stream_of_frames_is_an_error() {
    let (link, mut other) = pair();
    let (_sender, mut receiver) = link.split().unwrap();
    other.write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    assert!(matches!(receiver.recv().await, Err(NetworkError::Framing { .. })));
}

#[test]
fn without_a_runtime_frames_come_or_the_time_runs_out() {
    let (link, mut other) = pair();
    let (_sender, mut receiver) = link.split_blocking();

    assert_eq!(receiver.recv(Duration::from_millis(1)).unwrap(), None);
    other.write_all(&[0, 0, 0, 2, 4, 2]).unwrap();
    assert_eq!(receiver.recv(SOON).unwrap(), Some(vec![4, 2]));
    drop(other);
    assert!(matches!(receiver.recv(SOON), Err(NetworkError::Closed { .. })));
}

#[tokio::test]
async fn no_network_takes_everything_and_gives_nothing() {
    let (mut sender, mut receiver) = Attachment::None.attach().unwrap().split().unwrap();
    sender.send(&[0; 60]).unwrap();
    let given = tokio::time::timeout(Duration::from_millis(1), receiver.recv()).await;
    assert_eq!((sender.dropped_frames(), given.is_err()), (1, true));
}

#[tokio::test]
async fn announcements_go_to_the_switch() {
    let (link, mut other) = pair();
    let (mut sender, _receiver) = link.split().unwrap();
    let announcement = Announcement {
        pair: [3; 16],
        generation: lockstep_logging_channel::Generation(7),
    };
    sender.announce(announcement).unwrap();
    assert_eq!(
        Announcement::from_frame(&read_frame(&mut other)),
        Some(announcement)
    );
}
