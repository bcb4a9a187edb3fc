//! Halves that survive the end of their link.

use std::path::{Path, PathBuf};

use lockstep_logging_channel::Generation;

use super::*;

const PAIR: PairName = [7; 16];
const MAC: MacAddress = [0x02, 0, 0, 0, 0, 0x15];

/// A test that waits in vain for a frame fails, and does not hang.
fn read_soon(stream: &mut UnixStream) -> Vec<u8> {
    stream.set_read_timeout(Some(SOON)).unwrap();
    read_frame(stream)
}

/// Where a switch may listen.
struct Place {
    _directory: tempfile::TempDir,
    socket: PathBuf,
}

impl Place {
    fn new() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let socket = directory.path().join("switch");
        Self {
            _directory: directory,
            socket,
        }
    }

    fn attachment(&self) -> Attachment {
        Attachment::Switch(self.socket.clone())
    }

    /// A switch that listens, in place of one that is gone.
    fn listen(&self) -> UnixListener {
        let _ = std::fs::remove_file(&self.socket);
        listen(&self.socket)
    }
}

fn listen(socket: &Path) -> UnixListener {
    UnixListener::bind(socket).unwrap()
}

async fn attached(place: &Place, listener: &UnixListener) -> (NetworkSender, NetworkReceiver, UnixStream) {
    let (sender, receiver) = open(&place.attachment()).await.unwrap();
    (sender, receiver, listener.accept().unwrap().0)
}

/// Awaits the receiver until `switch`, which blocks, has done its part.
async fn beside<T: Send + 'static>(
    receiver: &mut NetworkReceiver,
    switch: impl FnOnce() -> T + Send + 'static,
) -> T {
    let done = tokio::task::spawn_blocking(switch);
    tokio::select! {
        done = done => done.unwrap(),
        frame = receiver.recv() => panic!("nobody sends {frame:?}"),
        () = tokio::time::sleep(SOON) => panic!("not done in time"),
    }
}

#[tokio::test]
async fn a_switch_that_comes_back_is_attached_to_and_told_the_generation() {
    let place = Place::new();
    let listener = place.listen();
    let (mut sender, mut receiver, mut first) = attached(&place, &listener).await;
    sender.may_speak_until(u64::MAX);
    sender.announce(PAIR, Generation(2), MAC);
    let told = |frame: Vec<u8>| Announcement::from_frame(&frame).map(|told| told.generation);
    assert_eq!(told(read_soon(&mut first)), Some(Generation(2)));
    assert_eq!(read_soon(&mut first), gratuitous_arp(MAC, None));

    drop((first, listener));
    sender.send_batch([&[1; 60][..], &[2; 60]].into_iter());
    assert_eq!(sender.counts().dropped_frames(), 2);
    assert_eq!(sender.counts().detached_frames(), 2);
    let listener = place.listen();
    let (mut second, frames) = beside(&mut receiver, move || {
        let mut second = listener.accept().unwrap().0;
        let frames: [_; 3] = std::array::from_fn(|_| read_soon(&mut second));
        (second, frames)
    })
    .await;

    let [standby, generation, moved] = frames;
    assert_eq!(told(standby), Some(Generation(0)));
    assert_eq!(told(generation), Some(Generation(2)));
    assert_eq!(moved, gratuitous_arp(MAC, None));
    second.write_all(&[0, 0, 0, 2, 4, 2]).unwrap();
    assert_eq!(receiver.recv().await, [4, 2]);
    let counts = sender.counts();
    assert_eq!((counts.dropped_frames(), counts.detached_frames()), (2, 2));
    assert_eq!(counts.reattachments(), 1);
}

#[tokio::test]
async fn who_may_not_speak_any_more_announces_nothing() {
    let place = Place::new();
    let listener = place.listen();
    let (mut sender, mut receiver, first) = attached(&place, &listener).await;
    sender.may_speak_until(u64::MAX);
    sender.announce(PAIR, Generation(1), MAC);
    sender.may_speak_until(1);

    drop((first, listener));
    let listener = place.listen();
    let mut second = beside(&mut receiver, move || {
        let mut second = listener.accept().unwrap().0;
        assert_eq!(
            Announcement::from_frame(&read_soon(&mut second)),
            Some(Announcement::standby(PAIR))
        );
        second
    })
    .await;
    // All the time that a schedule takes: nothing else is sent.
    let silent = tokio::time::timeout(Duration::from_millis(1500), receiver.recv()).await;
    assert!(silent.is_err());
    second.set_nonblocking(true).unwrap();
    let nothing = second.read(&mut [0; 60]).unwrap_err();
    assert_eq!(nothing.kind(), std::io::ErrorKind::WouldBlock);

    // Once it may speak again, it does.
    sender.may_speak_until(u64::MAX);
    second.set_nonblocking(false).unwrap();
    let told = beside(&mut receiver, move || read_soon(&mut second)).await;
    assert_eq!(
        Announcement::from_frame(&told).map(|told| told.generation),
        Some(Generation(1))
    );
}

#[tokio::test]
async fn nothing_is_said_before_the_generation_is() {
    let place = Place::new();
    let listener = place.listen();
    let (mut sender, _receiver, mut switch) = attached(&place, &listener).await;
    // It must not yet, and waits for its next attempt when it may.
    sender.announce(PAIR, Generation(2), MAC);
    sender.may_speak_until(u64::MAX);
    let frame = [1; 60];
    sender.send_batch(std::iter::once(&frame[..]));
    let told = Announcement::from_frame(&read_soon(&mut switch));
    assert_eq!(told.map(|told| told.generation), Some(Generation(2)));
    assert_eq!(read_soon(&mut switch), gratuitous_arp(MAC, None));
    assert_eq!(read_soon(&mut switch), frame);
}

#[tokio::test]
async fn an_announcement_that_finds_the_queue_full_is_not_lost() {
    let place = Place::new();
    let listener = place.listen();
    let (mut sender, mut receiver, mut other) = attached(&place, &listener).await;
    sender.may_speak_until(u64::MAX);
    while sender.counts().dropped_frames() == 0 {
        sender.send_batch(std::iter::once(&[0; 60_000][..]));
    }
    sender.announce(PAIR, Generation(2), MAC);

    let generation = beside(&mut receiver, move || {
        std::iter::from_fn(|| Some(read_soon(&mut other)))
            .find_map(|frame| Announcement::from_frame(&frame).map(|told| told.generation))
    })
    .await;

    assert_eq!(generation, Some(Generation(2)));
}

#[tokio::test]
async fn the_move_is_repeated_and_the_generation_is_not() {
    let place = Place::new();
    let listener = place.listen();
    let (mut sender, mut receiver, mut other) = attached(&place, &listener).await;
    sender.may_speak_until(u64::MAX);
    sender.announce(PAIR, Generation(1), MAC);

    let frames: [_; 7] = beside(&mut receiver, move || {
        std::array::from_fn(|_| read_soon(&mut other))
    })
    .await;

    let [generation, moves @ ..] = frames;
    assert!(Announcement::from_frame(&generation).is_some());
    assert!(moves.iter().all(|frame| *frame == gratuitous_arp(MAC, None)));
}

#[tokio::test]
async fn a_guest_that_forges_an_announcement_is_not_heard() {
    let place = Place::new();
    let listener = place.listen();
    let (mut sender, _receiver, mut switch) = attached(&place, &listener).await;
    let forged = Announcement {
        pair: PAIR,
        generation: Generation(7),
    };
    let forged = forged.to_frame();
    sender.send_batch([&forged[..], &[1; 60], &forged].into_iter());
    assert_eq!(read_soon(&mut switch), [1; 60]);
    assert_eq!(sender.counts().dropped_frames(), 2);
    sender.send_batch([&[2; 60][..]].into_iter());
    assert_eq!(read_soon(&mut switch), [2; 60], "nothing of it came later");

    drop((switch, listener));
    sender.send_batch([&forged[..], &[3; 60]].into_iter());
    assert_eq!(sender.counts().dropped_frames(), 4);
}

#[tokio::test]
async fn a_start_waits_for_its_switch() {
    let place = Place::new();
    let attachment = place.attachment();
    let opening = tokio::spawn(async move { open(&attachment).await });
    // A first attempt has found nothing by the time this one has.
    assert!(matches!(
        place.attachment().attach(),
        Err(NetworkError::SwitchAbsent { .. })
    ));
    tokio::time::sleep(Duration::from_millis(60)).await;
    assert!(!opening.is_finished());

    let _listener = place.listen();

    let opened = tokio::time::timeout(SOON, opening).await.unwrap().unwrap();
    assert!(opened.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_start_does_not_wait_for_ever() {
    let place = Place::new();
    let told = open(&place.attachment()).await.err();
    assert!(matches!(told, Some(NetworkError::SwitchAbsent { .. })));
}

#[tokio::test]
async fn what_the_switch_says_to_the_replica_is_not_for_the_guest() {
    let place = Place::new();
    let listener = place.listen();
    let (_sender, mut receiver, mut other) = attached(&place, &listener).await;
    let refusal = Refusal {
        mac: MAC,
        ip: [0, 0, 0, 0].into(),
    };
    for frame in [refusal.to_frame(), vec![9; 60]] {
        let mut stream = Vec::new();
        append_frame(&mut stream, &frame);
        other.write_all(&stream).unwrap();
    }
    assert_eq!(receiver.recv().await, [9; 60]);
}
