//! Both halves over real sockets, and over a TAP interface in a network namespace of its own.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::time::Duration;

use super::*;

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
    // The reader takes what had room, then this; it goes again and again until there is room for it.
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

mod in_a_namespace {
    use super::*;
    use nix::sched::{CloneFlags, unshare};
    use std::process::Command;

    const MAC: MacAddress = [0x02, 0, 0, 0, 0, 0x15];

    /// Runs `test` on a thread of its own in a network namespace of its own, or says why not.
    fn run(test: impl FnOnce() + Send + 'static) {
        if !nix::unistd::geteuid().is_root() {
            skip("a network namespace and a TAP interface need root");
            return;
        }
        let thread = std::thread::spawn(move || {
            if let Err(error) = unshare(CloneFlags::CLONE_NEWNET) {
                skip(&format!("no network namespace here: {error}"));
                return;
            }
            test();
        });
        thread.join().unwrap();
    }

    /// Past the test runner's capturing: `tests/counted` counts these lines.
    fn skip(why: &str) {
        let _ = writeln!(std::io::stderr(), "skipped: {}: {why}", module_path!());
    }

    fn ip(arguments: &str) {
        let status = Command::new("ip")
            .args(arguments.split(' '))
            .status()
            .expect("iproute2 is installed");
        assert!(status.success(), "ip {arguments}");
    }

    /// An interface with an address, attached; none, told, where the host has no TAP.
    fn attached() -> Option<Link> {
        match Attachment::Tap("lockstep0".into()).attach() {
            Err(NetworkError::TunDevice { source }) => {
                skip(&format!("no /dev/net/tun here: {source}"));
                None
            }
            link => Some(link.unwrap()),
        }
    }

    fn up() {
        ip("link set dev lockstep0 arp on up");
        ip("address add 10.9.0.1/24 dev lockstep0");
    }

    #[test]
    fn the_host_answers_and_learns_the_guest() {
        run(|| {
            let Some(link) = attached() else { return };
            up();
            let (mut sender, mut receiver) = link.split_blocking();
            let request = ArpPacket::request_frame((MAC, [10, 9, 0, 15].into()), [10, 9, 0, 1].into());

            sender.send(&request).unwrap();

            let answered = std::iter::from_fn(|| receiver.recv(SOON).unwrap())
                .find_map(|frame| ArpPacket::sender_of(&frame).map(|(address, _)| address));
            assert_eq!(answered, Some([10, 9, 0, 1].into()));
            assert_eq!(sender.dropped_frames(), 0);
        });
    }

    #[test]
    fn frames_come_through_tokio_too() {
        run(|| {
            let Some(link) = attached() else { return };
            up();
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                let (mut sender, mut receiver) = link.split().unwrap();
                sender
                    .send(&ArpPacket::request_frame(
                        (MAC, [10, 9, 0, 15].into()),
                        [10, 9, 0, 1].into(),
                    ))
                    .unwrap();
                let answer = async {
                    loop {
                        if let Some(sender) = ArpPacket::sender_of(&receiver.recv().await.unwrap()) {
                            return sender.0;
                        }
                    }
                };
                let address = tokio::time::timeout(SOON, answer).await.unwrap();
                assert_eq!(address, std::net::Ipv4Addr::new(10, 9, 0, 1));
            });
        });
    }

    #[test]
    fn an_interface_that_is_down_loses_frames_and_one_that_is_taken_is_refused() {
        run(|| {
            let Some(link) = attached() else { return };
            let (mut sender, _receiver) = link.split_blocking();

            sender.send(&gratuitous_arp(MAC, None)).unwrap();
            let second = Attachment::Tap("lockstep0".into()).attach();

            assert_eq!(sender.dropped_frames(), 1);
            let told = second.err().expect("two on one interface").to_string();
            assert!(
                told.contains("lockstep0") && told.contains("ip tuntap add"),
                "{told}"
            );
        });
    }
}
