//! A reception, its strangers and its backups, over Unix sockets.

use super::*;
use lockstep_logging_channel::handshake::as_backup;
use lockstep_logging_channel::message::FollowsBy;
use lockstep_logging_channel::transport::connect;
use lockstep_logging_channel::{EnvironmentField, Generation};
use std::io;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// Longer than anything here takes.
const PATIENCE: Duration = Duration::from_secs(60);
const ANEW: Beginning = Beginning {
    generation: Generation(1),
    saved_state: false,
    follows_by: FollowsBy::Replay,
};

fn environment(storage: &str, memory: &str, pair: [u8; 16]) -> Environment {
    let field = |name: &str, value: &str| EnvironmentField {
        name: name.to_owned(),
        value: value.to_owned(),
    };
    Environment {
        pair,
        compared: vec![field(STORAGE_FIELD, storage), field("memory", memory)],
        informative: Vec::new(),
    }
}

/// A primary's reception, and where it is.
struct Place {
    directory: TempDir,
    address: Address,
}

impl Place {
    async fn new() -> (Self, Reception) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("channel");
        let address = Address::Unix { path };
        let here = environment("ours", "64 MiB", [7; 16]);
        let reception = Reception::open(&address, here).await.unwrap();
        (Self { directory, address }, reception)
    }

    async fn stranger(&self, says: &[u8]) -> UnixStream {
        let mut stranger = UnixStream::connect(self.directory.path().join("channel"))
            .await
            .unwrap();
        stranger.write_all(says).await.unwrap();
        stranger
    }

    /// A backup that connects, opens, and waits for an answer.
    fn backup(
        &self,
        storage: &str,
        memory: &str,
    ) -> tokio::task::JoinHandle<Result<Environment, HandshakeError>> {
        let (address, here) = (self.address.clone(), environment(storage, memory, [0; 16]));
        tokio::spawn(async move {
            let mut connection = connect(&address, PATIENCE).await.unwrap();
            let welcomed = as_backup(&mut connection, &here, PATIENCE).await;
            welcomed.map(|(adopted, _)| adopted)
        })
    }
}

async fn is_closed(stranger: &mut UnixStream) -> bool {
    let mut rest = Vec::new();
    let read = timeout(PATIENCE, stranger.read_to_end(&mut rest)).await.unwrap();
    read.is_ok() || read.is_err_and(|error| error.kind() == io::ErrorKind::ConnectionReset)
}

#[tokio::test]
async fn a_backup_gets_in_past_any_number_of_silent_connections() {
    let (place, mut reception) = Place::new().await;
    let mut silent = Vec::new();
    for _ in 0..HANDSHAKES_MAX + 10 {
        silent.push(place.stranger(b"").await);
        // Taken before the next comes: the queue of the system is not the subject.
        let taken = timeout(Duration::from_millis(1), reception.candidate()).await;
        assert!(taken.is_err());
    }
    let backup = place.backup("ours", "64 MiB");
    let mut candidate = timeout(PATIENCE, reception.candidate()).await.unwrap().unwrap();
    assert!(reception.open.len() <= HANDSHAKES_MAX, "{}", reception.open.len());
    assert!(reception.welcome(&mut candidate, ANEW).await);
    assert_eq!(backup.await.unwrap().unwrap().pair, [7; 16]);
    for oldest in &mut silent[..10] {
        assert!(is_closed(oldest).await);
    }
}

#[tokio::test]
async fn what_strangers_send_does_not_end_the_wait() {
    let (place, mut reception) = Place::new().await;
    let sent: [&[u8]; 6] = [
        b"GET /health HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
        b"LSTP\x09\x00",
        b"LSTP\x01\x00\x00\x01",
        &[0; 4096],
        b"\n",
    ];
    let mut strangers = Vec::new();
    for says in sent {
        strangers.push(place.stranger(says).await);
    }
    let other = place.backup("another's", "64 MiB");
    let refused = tokio::select! {
        refused = other => refused.unwrap().unwrap_err(),
        _ = reception.candidate() => panic!("a stranger was taken for a backup"),
    };
    assert!(refused.to_string().contains(STORAGE_FIELD), "{refused}");
    let _backup = place.backup("ours", "64 MiB");
    timeout(PATIENCE, reception.candidate()).await.unwrap().unwrap();
}

#[tokio::test]
async fn a_side_of_this_pair_that_differs_ends_the_wait() {
    let (place, mut reception) = Place::new().await;
    let backup = place.backup("ours", "32 MiB");
    let ended = timeout(PATIENCE, reception.candidate()).await.unwrap();
    assert!(matches!(ended, Err(ReceptionError::Differs(why)) if why.to_string().contains("memory")));
    assert!(backup.await.unwrap().unwrap_err().to_string().contains("memory"));
}

#[tokio::test]
async fn a_second_backup_is_told_and_a_third_finds_nobody() {
    let (place, mut reception) = Place::new().await;
    let (first, second) = (place.backup("ours", "64 MiB"), place.backup("ours", "64 MiB"));
    let mut candidate = timeout(PATIENCE, reception.candidate()).await.unwrap().unwrap();
    assert!(reception.welcome(&mut candidate, ANEW).await);
    reception.close().await;
    let outcomes = [first.await.unwrap(), second.await.unwrap()];
    let refused: Vec<_> = outcomes
        .iter()
        .filter_map(|outcome| outcome.as_ref().err())
        .collect();
    assert!(
        matches!(refused[..], [HandshakeError::Refused { reason, .. }] if reason == TAKEN),
        "{refused:?}"
    );
    let third = connect(&place.address, Duration::from_millis(1)).await;
    assert!(
        matches!(third, Err(ChannelError::NobodyAnswers { .. })),
        "{third:?}"
    );
}

#[tokio::test]
async fn a_backup_that_left_while_the_primary_prepared_is_not_welcomed() {
    let (place, mut reception) = Place::new().await;
    let backup = place.backup("ours", "64 MiB");
    let mut candidate = timeout(PATIENCE, reception.candidate()).await.unwrap().unwrap();
    backup.abort();
    assert!(backup.await.unwrap_err().is_cancelled());
    // The end of the stream is in the kernel; the runtime learns of it when it looks next.
    tokio::task::yield_now().await;
    assert!(!reception.welcome(&mut candidate, ANEW).await);
    let _next = place.backup("ours", "64 MiB");
    let mut candidate = timeout(PATIENCE, reception.candidate()).await.unwrap().unwrap();
    assert!(reception.welcome(&mut candidate, ANEW).await);
}
