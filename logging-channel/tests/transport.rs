//! Records between two processes' ends, over real sockets of this machine.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail"
)]

mod common;

use std::fs;
use std::io;
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use common::{encoded, entries, entry, event, messages, records};
use lockstep_logging_channel::transport::{
    Address, ChannelError, Connection, Listener, QUEUE_BYTES_MAX, connect,
};
use lockstep_logging_channel::{
    Entry, EventKind, LogError, Message, Record, Sequence, codec, message::Acknowledge,
};
use tokio::io::{AsyncReadExt, AsyncWrite, AsyncWriteExt, empty, sink};
use tokio::time::timeout;

/// Longer than anything here takes; a test that hangs fails by it.
const PATIENCE: Duration = Duration::from_secs(20);

fn unix(directory: &Path) -> Address {
    Address::Unix {
        path: directory.join("pair.sock"),
    }
}

fn any_tcp() -> Address {
    "tcp:127.0.0.1:0".parse().unwrap()
}

async fn pair(address: &Address) -> (Connection, Connection) {
    let listener = Listener::bind(address).await.unwrap();
    let connecting = connect(listener.address(), PATIENCE);
    let (accepted, connected) = tokio::join!(listener.accept(), connecting);
    (accepted.unwrap(), connected.unwrap())
}

/// A connection within this process that carries `capacity_bytes` at a time.
fn narrow_pair(capacity_bytes: usize) -> (Connection, Connection) {
    let ends = tokio::io::duplex(capacity_bytes);
    let end = |(read, write)| Connection::new(read, write, "the other end");
    (end(tokio::io::split(ends.0)), end(tokio::io::split(ends.1)))
}

/// The environment and `count` frames of some length.
fn long_log(count: u64) -> Vec<Entry> {
    let frame = |n: u64| entry(n, n, event(EventKind::Frame(vec![n as u8; 1500])));
    entries()
        .into_iter()
        .take(1)
        .chain((1..=count).map(frame))
        .collect()
}

async fn read_all(connection: &mut Connection) -> Vec<Record> {
    let mut read = Vec::new();
    while let Some(record) = connection.reader.read().await.unwrap() {
        read.push(record);
    }
    read
}

/// Sends a log one way and messages the other way, at the same time.
async fn carries_records_both_ways(address: Address) {
    let (primary, mut backup) = pair(&address).await;
    let (mut from_backup, mut to_backup) = primary.split();
    let log = long_log(500);
    let sending = async {
        for record in records(&log) {
            to_backup.queue_encoded_entries(&record).unwrap();
            to_backup.flush().await.unwrap();
        }
        drop(to_backup);
    };
    let reading = async {
        let mut read = Vec::new();
        while let Some(record) = backup.reader.read().await.unwrap() {
            let received = Sequence(read.len() as u64);
            let acknowledge = Message::Acknowledge(Acknowledge {
                received,
                replayed: Sequence(0),
            });
            backup.writer.queue(&acknowledge).unwrap();
            backup.writer.flush().await.unwrap();
            read.push(record);
        }
        drop(backup);
        read
    };
    let counting = async {
        let mut last = None;
        while let Some(record) = from_backup.read().await.unwrap() {
            last = Some(record);
        }
        last
    };
    let all = async { tokio::join!(sending, reading, counting) };
    let ((), read, last) = timeout(PATIENCE, all).await.unwrap();
    assert_eq!(read, log.into_iter().map(Record::Entry).collect::<Vec<_>>());
    let (received, replayed) = (Sequence(500), Sequence(0));
    assert_eq!(
        last,
        Some(Record::Message(Message::Acknowledge(Acknowledge {
            received,
            replayed
        })))
    );
}

#[tokio::test]
async fn tcp_carries_records_both_ways() {
    carries_records_both_ways(any_tcp()).await;
}

#[tokio::test]
async fn a_unix_socket_carries_records_both_ways() {
    let directory = tempfile::tempdir().unwrap();
    carries_records_both_ways(unix(directory.path())).await;
}

#[tokio::test]
async fn entries_and_messages_keep_their_order() {
    let (mut one, mut other) = pair(&any_tcp()).await;
    let bytes = records(&entries()).concat();
    one.writer.queue(&messages()[5]).unwrap();
    one.writer.queue_encoded_entries(&bytes).unwrap();
    one.writer.queue(&messages()[4]).unwrap();
    one.writer.flush().await.unwrap();
    drop(one);
    let mut expected = vec![Record::Message(messages()[5].clone())];
    expected.extend(entries().into_iter().map(Record::Entry));
    expected.push(Record::Message(messages()[4].clone()));
    assert_eq!(read_all(&mut other).await, expected);
}

#[tokio::test]
async fn what_came_in_one_piece_is_read_without_waiting() {
    let (mut one, mut other) = narrow_pair(1 << 20);
    one.writer
        .queue_encoded_entries(&records(&entries()).concat())
        .unwrap();
    one.writer.flush().await.unwrap();
    assert_eq!(other.reader.buffered().unwrap(), None);
    other.reader.read().await.unwrap();
    let mut more = 0;
    while let Some(record) = other.reader.buffered().unwrap() {
        more += 1;
        let Record::Entry(entry) = record else { panic!() };
        assert_eq!(other.reader.record_bytes(), encoded(&entry));
    }
    assert_eq!(more, entries().len() - 1);
}

/// Every wait of a read and of a flush is given up, over a connection that carries 7 bytes at a time.
#[tokio::test]
async fn giving_up_a_read_or_a_flush_loses_nothing() {
    let (mut one, mut other) = narrow_pair(7);
    let log = long_log(20);
    one.writer.queue_encoded_entries(&records(&log).concat()).unwrap();
    let (mut read, mut given_up) = (Vec::new(), 0);
    while read.len() < log.len() {
        tokio::select! {
            biased;
            result = one.writer.flush() => result.unwrap(),
            () = std::future::ready(()) => given_up += 1,
        }
        tokio::select! {
            biased;
            record = other.reader.read() => read.push(record.unwrap().unwrap()),
            () = std::future::ready(()) => given_up += 1,
        }
        tokio::task::yield_now().await;
    }
    assert_eq!(read, log.into_iter().map(Record::Entry).collect::<Vec<_>>());
    assert!(given_up > 1000);
}

/// Takes what it is given and counts the calls.
struct CountingSink(Arc<AtomicUsize>);

impl AsyncWrite for CountingSink {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.0.fetch_add(1, Ordering::Relaxed);
        Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }
}

#[tokio::test]
async fn everything_queued_is_written_in_one_call() {
    let calls = Arc::new(AtomicUsize::new(0));
    let (_, mut writer) = Connection::new(empty(), CountingSink(Arc::clone(&calls)), "the counter").split();
    records(&long_log(100))
        .iter()
        .for_each(|record| writer.queue_encoded_entries(record).unwrap());
    writer.queue(&messages()[4]).unwrap();
    writer.flush().await.unwrap();
    assert_eq!((calls.load(Ordering::Relaxed), writer.queued_bytes()), (1, 0));
    writer.flush().await.unwrap();
    assert_eq!(calls.load(Ordering::Relaxed), 1);
}

#[tokio::test]
async fn the_queue_is_bounded_and_refuses_whole() {
    let (_, mut writer) = Connection::new(empty(), sink(), "the sink").split();
    writer
        .queue_encoded_entries(&vec![0; QUEUE_BYTES_MAX - 10])
        .unwrap();
    assert!(matches!(
        writer.queue_encoded_entries(&[0; 11]),
        Err(ChannelError::QueueFull { more: 11, .. })
    ));
    assert!(matches!(
        writer.queue(&messages()[4]),
        Err(ChannelError::QueueFull { .. })
    ));
    assert_eq!(writer.queued_bytes(), QUEUE_BYTES_MAX - 10);
    writer.flush().await.unwrap();
    writer.queue(&messages()[4]).unwrap();
}

#[tokio::test]
async fn a_queue_that_never_runs_empty_forgets_what_was_taken() {
    let (near, mut far) = tokio::io::duplex(64 * 1024);
    let (_, mut writer) = Connection::new(empty(), near, "a slow reader").split();
    let half_a_chunk = vec![0; 32 * 1024];
    let mut chunk = vec![0; 64 * 1024];
    writer.queue_encoded_entries(&chunk).unwrap();
    // Twice the queue's limit goes through it, and half a chunk at least is always left.
    for _ in 0..2 * QUEUE_BYTES_MAX / half_a_chunk.len() {
        writer.queue_encoded_entries(&half_a_chunk).unwrap();
        assert!(timeout(Duration::ZERO, writer.flush()).await.is_err());
        far.read_exact(&mut chunk[..half_a_chunk.len()]).await.unwrap();
    }
    assert!(writer.queued_bytes() >= half_a_chunk.len());
}

async fn reading(bytes: &[u8]) -> ChannelError {
    let (mut one, mut other) = narrow_pair(1 << 20);
    one.writer.queue_encoded_entries(bytes).unwrap();
    one.writer.flush().await.unwrap();
    drop(one);
    loop {
        match other.reader.read().await {
            Ok(record) => assert!(record.is_some(), "read to the end"),
            Err(error) => return error,
        }
    }
}

#[tokio::test]
async fn damage_disorder_and_cuts_are_named() {
    let records = records(&entries());
    let mut flipped = records[1].clone();
    flipped[20] ^= 1;
    assert!(matches!(
        reading(&flipped).await,
        ChannelError::Received {
            source: LogError::Checksum { .. },
            ..
        }
    ));
    let skipping = [&records[3][..], &records[5]].concat();
    let (expected, found) = (Sequence(4), Sequence(5));
    let error = reading(&skipping).await;
    assert!(
        matches!(error, ChannelError::Received { source: LogError::OutOfOrder { expected: e, found: f }, .. }
        if (e, f) == (expected, found))
    );
    let cut = reading(&records[1][..20]).await;
    assert!(matches!(cut, ChannelError::ClosedInRecord { bytes: 20, .. }));
    let foreign = reading(b"HTTP/1.1 400").await;
    assert!(matches!(
        foreign,
        ChannelError::Received {
            source: LogError::NotALog { .. },
            ..
        }
    ));
}

#[tokio::test]
async fn a_peer_that_closes_is_noticed() {
    let (one, mut other) = pair(&any_tcp()).await;
    drop(one);
    assert_eq!(other.reader.read().await.unwrap(), None);
}

#[tokio::test]
async fn a_closed_writer_says_all_and_then_the_end_and_the_other_way_stays_open() {
    let directory = tempfile::tempdir().unwrap();
    for address in [any_tcp(), unix(directory.path())] {
        let (mut one, mut other) = pair(&address).await;
        let message = Message::Acknowledge(Acknowledge::default());
        one.writer.queue(&message).unwrap();
        one.writer.close().await.unwrap();
        assert_eq!(read_all(&mut other).await, [Record::Message(message.clone())]);

        other.writer.queue(&message).unwrap();
        other.writer.flush().await.unwrap();
        assert_eq!(one.reader.read().await.unwrap(), Some(Record::Message(message)));
    }
}

#[tokio::test]
async fn nobody_there_is_said_after_the_patience() {
    let directory = tempfile::tempdir().unwrap();
    let patience = Duration::from_millis(50);
    let error = connect(&unix(directory.path()), patience).await.unwrap_err();
    assert!(matches!(
        error,
        ChannelError::NobodyAnswers {
            waited_ms: 50,
            source: Some(_),
            ..
        }
    ));
}

#[tokio::test]
async fn a_listener_that_comes_late_is_found() {
    let directory = tempfile::tempdir().unwrap();
    let address = unix(directory.path());
    let listening = async {
        // The connecting side runs first and finds nobody.
        tokio::task::yield_now().await;
        let listener = Listener::bind(&address).await.unwrap();
        listener.accept().await.unwrap()
    };
    let (connected, _accepted) = tokio::join!(connect(&address, PATIENCE), listening);
    connected.unwrap();
}

#[tokio::test]
async fn a_port_in_use_is_named() {
    let listener = Listener::bind(&any_tcp()).await.unwrap();
    let error = Listener::bind(listener.address()).await.unwrap_err();
    assert!(
        error
            .to_string()
            .contains(&format!("{} is in use", listener.address())),
        "{error}"
    );
}

#[tokio::test]
async fn a_socket_in_use_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    let address = unix(directory.path());
    let listener = Listener::bind(&address).await.unwrap();
    assert!(matches!(
        Listener::bind(&address).await,
        Err(ChannelError::InUse { .. })
    ));
    let (accepted, connected) = tokio::join!(listener.accept(), connect(&address, PATIENCE));
    assert!(accepted.is_ok() && connected.is_ok());
}

#[tokio::test]
async fn a_stale_socket_is_replaced_and_removed_in_the_end() {
    let directory = tempfile::tempdir().unwrap();
    let address = unix(directory.path());
    let path = directory.path().join("pair.sock");
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    assert!(path.exists());
    let listener = Listener::bind(&address).await.unwrap();
    drop(listener);
    assert!(!path.exists());
}

#[tokio::test]
async fn a_socket_of_another_is_not_removed() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("pair.sock");
    let first = Listener::bind(&unix(directory.path())).await.unwrap();
    fs::rename(&path, directory.path().join("old.sock")).unwrap();
    let second = Listener::bind(&unix(directory.path())).await.unwrap();
    drop(first);
    assert!(path.exists());
    drop(second);
    assert!(!path.exists());
}

#[tokio::test]
async fn what_is_no_socket_is_left_alone() {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("pair.sock"), "precious").unwrap();
    let error = Listener::bind(&unix(directory.path())).await.unwrap_err();
    assert!(matches!(error, ChannelError::NotASocket { .. }));
    assert_eq!(fs::read(directory.path().join("pair.sock")).unwrap(), b"precious");
}

#[tokio::test]
async fn a_missing_directory_and_a_long_path_are_named_on_both_sides() {
    let missing: Address = "unix:/nonexistent/directory/pair.sock".parse().unwrap();
    let long: Address = format!("unix:/tmp/{}", "x".repeat(200)).parse().unwrap();
    let missing = [
        Listener::bind(&missing).await.unwrap_err(),
        connect(&missing, PATIENCE).await.unwrap_err(),
    ];
    let long = [
        Listener::bind(&long).await.unwrap_err(),
        connect(&long, PATIENCE).await.unwrap_err(),
    ];
    assert!(missing.iter().all(|error| {
        error
            .to_string()
            .contains("the directory /nonexistent/directory of the logging channel's socket")
    }));
    assert!(long.iter().all(|error| matches!(
        error,
        ChannelError::PathTooLong {
            length: 205,
            max: 107,
            ..
        }
    )));
}

#[tokio::test]
async fn a_foreign_client_is_named() {
    let listener = Listener::bind(&any_tcp()).await.unwrap();
    let Address::Tcp { host, port } = listener.address().clone() else {
        panic!()
    };
    let mut client = tokio::net::TcpStream::connect((host, port)).await.unwrap();
    client.write_all(b"GET / HTTP/1.1\r\n\r\n").await.unwrap();
    let mut accepted = listener.accept().await.unwrap();
    let error = accepted.reader.read().await.unwrap_err();
    assert!(
        matches!(error, ChannelError::Received { source: LogError::NotALog { found }, .. } if &found == b"GET ")
    );
}

#[tokio::test]
async fn the_largest_record_passes() {
    let (mut one, mut other) = pair(&any_tcp()).await;
    let largest = entry(1, 1, event(EventKind::Frame(vec![1; codec::BODY_BYTES_MAX - 16])));
    let bytes = [encoded(&largest), encoded(&entries()[2])].concat();
    let sending = async {
        one.writer.queue_encoded_entries(&bytes).unwrap();
        one.writer.flush().await.unwrap();
        drop(one);
    };
    let ((), read) = tokio::join!(sending, read_all(&mut other));
    assert_eq!(
        read,
        [Record::Entry(largest), Record::Entry(entries()[2].clone())]
    );
}
