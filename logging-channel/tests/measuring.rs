//! The round trip of a new channel, measured by one side and told to the other.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail"
)]

mod common;

use std::time::Duration;

use common::encoded_message;
use lockstep_logging_channel::handshake::HandshakeError;
use lockstep_logging_channel::measuring::{answer, measure};
use lockstep_logging_channel::message::{Goodbye, Measured, Probe};
use lockstep_logging_channel::transport::Connection;
use lockstep_logging_channel::{Kind, Message, Record};
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::time::sleep;

const LIMIT: Duration = Duration::from_secs(5);

fn ms(milliseconds: u64) -> Duration {
    Duration::from_millis(milliseconds)
}

fn connection(stream: DuplexStream, peer: &str) -> Connection {
    let (read, write) = tokio::io::split(stream);
    Connection::new(read, write, peer)
}

fn pair() -> (Connection, Connection) {
    let (one, other) = tokio::io::duplex(1 << 16);
    (connection(one, "the backup"), connection(other, "the primary"))
}

/// Carries what comes at one end to the other, so much later, both ways.
async fn carry(one: DuplexStream, other: DuplexStream, delay: Duration) {
    let (mut one, mut other) = (one, other);
    let (mut here, mut there) = ([0; 4096], [0; 4096]);
    loop {
        let (count, to_other) = tokio::select! {
            count = one.read(&mut here) => (count.unwrap_or(0), true),
            count = other.read(&mut there) => (count.unwrap_or(0), false),
        };
        sleep(delay).await;
        let written = match to_other {
            _ if count == 0 => return,
            true => other.write_all(here.get(..count).unwrap()).await,
            false => one.write_all(there.get(..count).unwrap()).await,
        };
        if written.is_err() {
            return;
        }
    }
}

/// What both sides take for the round trip where each way takes `delay`.
async fn measured(delay: Duration, enough: Duration) -> (Duration, Duration) {
    let (near, middle_near) = tokio::io::duplex(1 << 16);
    let (middle_far, far) = tokio::io::duplex(1 << 16);
    let carrier = tokio::spawn(carry(middle_near, middle_far, delay));
    let (mut primary, mut backup) = (connection(near, "the backup"), connection(far, "the primary"));
    let found = tokio::join!(measure(&mut primary, enough, LIMIT), answer(&mut backup, LIMIT));
    carrier.abort();
    (found.0.unwrap(), found.1.unwrap())
}

#[tokio::test(start_paused = true)]
async fn both_sides_know_the_round_trip() {
    for delay in [ms(1), ms(60), ms(400), ms(1_000)] {
        let (primary, backup) = measured(delay, ms(10)).await;
        assert_eq!(primary, backup);
        assert!(
            (2 * delay..2 * delay + ms(2)).contains(&primary),
            "{primary:?} of {delay:?}"
        );
    }
}

#[tokio::test(start_paused = true)]
async fn one_short_round_trip_is_enough_and_five_are_the_most() {
    for (enough, probes) in [(ms(1_000), 1), (ms(0), 5)] {
        let (mut primary, mut backup) = pair();
        let asked = async {
            let mut asked = 0;
            loop {
                sleep(ms(10)).await;
                match backup.reader.read().await.unwrap().unwrap() {
                    Record::Message(probe @ Message::Probe(_)) => {
                        asked += 1;
                        backup.writer.queue(&probe).unwrap();
                        backup.writer.flush().await.unwrap();
                    }
                    other => break (asked, other.kind()),
                }
            }
        };
        let (found, asked) = tokio::join!(measure(&mut primary, enough, LIMIT), asked);
        found.unwrap();
        assert_eq!(asked, (probes, Kind::Measured));
    }
}

#[tokio::test(start_paused = true)]
async fn a_peer_that_does_not_answer_is_given_up() {
    let (mut primary, _silent) = pair();
    let error = measure(&mut primary, ms(1), LIMIT).await.unwrap_err();
    assert!(matches!(error, HandshakeError::Silent { .. }), "{error}");
    let (_silent, mut backup) = pair();
    let error = answer(&mut backup, LIMIT).await.unwrap_err();
    assert!(matches!(error, HandshakeError::Silent { .. }), "{error}");
}

#[tokio::test(start_paused = true)]
async fn what_is_no_answer_is_named() {
    let wrong = [
        Message::Probe(Probe { number: 7 }),
        Message::Goodbye(Goodbye {
            reason: "no".to_owned(),
        }),
    ];
    for message in wrong {
        let (mut primary, mut backup) = pair();
        backup
            .writer
            .queue_encoded_entries(&encoded_message(&message))
            .unwrap();
        backup.writer.flush().await.unwrap();
        let error = measure(&mut primary, ms(1), LIMIT).await.unwrap_err();
        assert!(matches!(error, HandshakeError::Unexpected { .. }), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn one_that_asks_for_ever_is_given_up() {
    let (mut primary, mut backup) = pair();
    for number in 1..=100 {
        primary.writer.queue(&Message::Probe(Probe { number })).unwrap();
    }
    primary.writer.flush().await.unwrap();
    let error = answer(&mut backup, LIMIT).await.unwrap_err();
    assert!(matches!(error, HandshakeError::Unexpected { .. }), "{error}");
    let (mut primary, mut backup) = pair();
    primary
        .writer
        .queue(&Message::Measured(Measured { round_trip_ns: 5 }))
        .unwrap();
    primary.writer.flush().await.unwrap();
    assert_eq!(answer(&mut backup, LIMIT).await.unwrap(), Duration::from_nanos(5));
}
