//! Two sides that become a pair, or say why not.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail"
)]

mod common;

use std::time::Duration;

use common::{encoded, encoded_message, entries, environment, field, messages};
use lockstep_logging_channel::handshake::{
    HandshakeError, SOFTWARE_VERSION, as_backup, as_primary, hear_backup, put_off, turn_away,
};
use lockstep_logging_channel::message::{Beginning, FollowsBy, Hello, Refused, Welcome};
use lockstep_logging_channel::transport::Connection;
use lockstep_logging_channel::{
    Environment, FORMAT_VERSION, Generation, Kind, LogError, Message, Record, transport::ChannelError,
};

const LIMIT: Duration = Duration::from_secs(5);

fn pair() -> (Connection, Connection) {
    let ends = tokio::io::duplex(1 << 20);
    let end = |(read, write), name| Connection::new(read, write, name);
    (
        end(tokio::io::split(ends.0), "the backup"),
        end(tokio::io::split(ends.1), "the primary"),
    )
}

/// The machine runs, in its seventh generation.
const BEGINNING: Beginning = Beginning {
    generation: Generation(7),
    saved_state: true,
    follows_by: FollowsBy::Checkpoints,
};

/// What a backup says before it knows the name of its pair.
fn backup_environment() -> Environment {
    Environment {
        pair: [0; 16],
        informative: vec![field("host", "second")],
        ..environment()
    }
}

async fn shake(
    primary: &Environment,
    backup: &Environment,
) -> (
    Result<Hello, HandshakeError>,
    Result<(Environment, Beginning), HandshakeError>,
) {
    let (mut to_backup, mut to_primary) = pair();
    tokio::join!(
        as_primary(&mut to_backup, primary, BEGINNING, LIMIT),
        as_backup(&mut to_primary, backup, LIMIT)
    )
}

async fn say(connection: &mut Connection, bytes: &[u8]) {
    connection.writer.queue_encoded_entries(bytes).unwrap();
    connection.writer.flush().await.unwrap();
}

/// What a primary makes of a peer that says `bytes` and closes.
async fn primary_hears(bytes: &[u8]) -> HandshakeError {
    let (mut to_backup, mut to_primary) = pair();
    say(&mut to_primary, bytes).await;
    drop(to_primary);
    as_primary(&mut to_backup, &environment(), BEGINNING, LIMIT)
        .await
        .unwrap_err()
}

/// What a backup makes of a peer that says `bytes` and closes.
async fn backup_hears(bytes: &[u8]) -> HandshakeError {
    let (mut to_backup, mut to_primary) = pair();
    say(&mut to_backup, bytes).await;
    let error = as_backup(&mut to_primary, &backup_environment(), LIMIT)
        .await
        .unwrap_err();
    drop(to_backup);
    error
}

fn differs(error: &HandshakeError) -> (&str, Option<&str>, Option<&str>) {
    match error {
        HandshakeError::Differs {
            field,
            primary,
            backup,
        } => (field, primary.as_deref(), backup.as_deref()),
        other => panic!("{other}"),
    }
}

#[tokio::test]
async fn the_backup_adopts_the_pair() {
    let (hello, adopted) = shake(&environment(), &backup_environment()).await;
    assert_eq!(adopted.unwrap(), (environment(), BEGINNING));
    let hello = hello.unwrap();
    assert_eq!(
        (hello.software_version.as_str(), hello.format_version),
        (SOFTWARE_VERSION, FORMAT_VERSION)
    );
    assert_eq!(hello.environment, backup_environment());
}

#[tokio::test]
async fn the_channel_goes_on_after_the_handshake() {
    let (mut to_backup, mut to_primary) = pair();
    let primary = async {
        as_primary(&mut to_backup, &environment(), BEGINNING, LIMIT)
            .await
            .unwrap();
        say(&mut to_backup, &encoded(&entries()[0])).await;
    };
    let backup = async {
        as_backup(&mut to_primary, &backup_environment(), LIMIT)
            .await
            .unwrap();
        to_primary.reader.read().await.unwrap()
    };
    let ((), first) = tokio::join!(primary, backup);
    assert_eq!(first, Some(Record::Entry(entries()[0].clone())));
}

#[tokio::test]
async fn both_sides_name_the_first_field_that_differs() {
    let mut other = backup_environment();
    other.compared[1].value = "128 MiB".to_owned();
    let (primary, backup) = shake(&environment(), &other).await;
    let (primary, backup) = (primary.unwrap_err(), backup.unwrap_err());
    assert_eq!(differs(&primary), ("memory", Some("64 MiB"), Some("128 MiB")));
    assert_eq!(differs(&backup), ("memory", Some("64 MiB"), Some("128 MiB")));
    let text = "the two sides differ in memory: primary `64 MiB`, backup `128 MiB`";
    assert_eq!(primary.to_string(), text);
    assert!(primary.is_mismatch() && backup.is_mismatch());
}

#[tokio::test]
async fn a_field_that_one_side_lacks_is_named() {
    let mut more = backup_environment();
    more.compared.push(field("network", "none"));
    let (primary, backup) = shake(&environment(), &more).await;
    assert_eq!(differs(&primary.unwrap_err()), ("network", None, Some("none")));
    assert_eq!(differs(&backup.unwrap_err()), ("network", None, Some("none")));
}

#[tokio::test]
async fn another_software_version_is_named() {
    let (software_version, environment) = ("99.0".to_owned(), backup_environment());
    let hello = Message::Hello(Hello {
        software_version,
        format_version: FORMAT_VERSION,
        environment,
    });
    let error = primary_hears(&encoded_message(&hello)).await;
    assert_eq!(
        differs(&error),
        ("software version", Some(SOFTWARE_VERSION), Some("99.0"))
    );
}

#[tokio::test]
async fn another_format_version_is_named_on_both_sides() {
    let mut hello = encoded_message(&messages()[0]);
    hello[4] = 9;
    let error = primary_hears(&hello).await;
    assert!(matches!(
        error,
        HandshakeError::FormatVersion {
            found: 9,
            here: FORMAT_VERSION,
            ..
        }
    ));
    assert!(error.is_mismatch());
    let error = backup_hears(&hello).await;
    assert!(matches!(
        error,
        HandshakeError::FormatVersion {
            found: 9,
            here: FORMAT_VERSION,
            ..
        }
    ));
}

/// A peer of another version reads ours in the header of the refusal.
#[tokio::test]
async fn another_format_version_is_answered() {
    let (mut to_backup, mut to_primary) = pair();
    let mut hello = encoded_message(&messages()[0]);
    hello[4] = 9;
    say(&mut to_primary, &hello).await;
    as_primary(&mut to_backup, &environment(), BEGINNING, LIMIT)
        .await
        .unwrap_err();
    let answer = to_primary.reader.read().await.unwrap();
    assert!(matches!(
        answer,
        Some(Record::Message(Message::Refused(Refused::Other(_))))
    ));
}

#[tokio::test]
async fn the_backup_compares_for_itself() {
    let mut other = environment();
    other.compared[0].value = "ffff".to_owned();
    let welcome = Message::Welcome(Welcome { environment: other });
    let error = backup_hears(&encoded_message(&welcome)).await;
    assert_eq!(
        differs(&error),
        ("guest image digest", Some("ffff"), Some("00ff"))
    );
}

#[tokio::test]
async fn a_welcome_without_a_beginning_is_none() {
    let welcome = encoded_message(&Message::Welcome(Welcome {
        environment: environment(),
    }));
    let loaded = encoded_message(&Message::Loaded);
    let error = backup_hears(&[welcome, loaded].concat()).await;
    assert!(matches!(
        error,
        HandshakeError::Unexpected {
            expected: Kind::Beginning,
            found: Kind::Loaded,
            ..
        }
    ));
}

#[tokio::test]
async fn a_refusal_in_words_is_passed_on() {
    let refused = Message::Refused(Refused::Other("not now".to_owned()));
    let error = backup_hears(&encoded_message(&refused)).await;
    assert_eq!(error.to_string(), "the primary refuses: not now");
}

/// The error of a backup that fits, at a primary that refuses it like this.
async fn refused_by(refuse: impl AsyncFnOnce(&mut Connection)) -> HandshakeError {
    let (mut to_backup, mut to_primary) = pair();
    let primary = async {
        hear_backup(&mut to_backup, &environment(), LIMIT).await.unwrap();
        refuse(&mut to_backup).await;
    };
    let here = backup_environment();
    let ((), refused) = tokio::join!(primary, as_backup(&mut to_primary, &here, LIMIT));
    refused.unwrap_err()
}

#[tokio::test]
async fn a_backup_that_fits_can_be_turned_away_with_a_reason() {
    let refused = refused_by(async |to_backup| turn_away(to_backup, "it has its backup", LIMIT).await).await;
    assert_eq!(refused.to_string(), "the primary refuses: it has its backup");
    assert!(refused.is_mismatch() && !refused.is_loss());
}

#[tokio::test]
async fn a_backup_that_is_put_off_may_ask_again() {
    let refused = refused_by(async |to_backup| put_off(to_backup, "another one joins it", LIMIT).await).await;
    assert_eq!(
        refused.to_string(),
        "the primary refuses for now: another one joins it"
    );
    assert!(refused.is_for_now() && !refused.is_mismatch());
}

/// Text that a stranger sends is part of a line for people: one line, of bounded length, that
/// changes no terminal.
#[tokio::test]
async fn what_a_peer_says_is_shown_short_and_printable() {
    let hello = Message::Hello(Hello {
        software_version: format!("\x1b[2J\n\u{202e}{}", "x".repeat(100_000)),
        format_version: FORMAT_VERSION,
        environment: backup_environment(),
    });
    let shown = primary_hears(&encoded_message(&hello)).await.to_string();
    assert!(shown.len() < 1_000, "{} bytes", shown.len());
    assert!(shown.contains(r"`\u{1b}[2J\n\u{202e}xxx"), "{shown}");

    let words = Message::Refused(Refused::Other(format!("can't\r{}", "y".repeat(100_000))));
    let shown = backup_hears(&encoded_message(&words)).await.to_string();
    assert!(shown.len() < 1_000, "{} bytes", shown.len());
    assert!(shown.contains(r"can't\ryyy"), "{shown}");
}

#[tokio::test]
async fn a_length_that_is_too_large_is_refused_before_it_is_waited_for() {
    let mut hello = encoded_message(&messages()[0]);
    hello[12..16].copy_from_slice(&u32::MAX.to_le_bytes());
    let error = primary_hears(&hello[..56]).await;
    assert!(
        matches!(
            error,
            HandshakeError::Channel(ChannelError::Received {
                source: LogError::Oversized { .. },
                ..
            })
        ),
        "{error}"
    );
}

/// A byte now and then is not an answer: the limit is for the whole opening.
#[tokio::test(start_paused = true)]
async fn a_peer_that_sends_a_byte_at_a_time_is_given_up() {
    let (mut to_backup, mut to_primary) = pair();
    let trickling = async {
        for byte in encoded_message(&messages()[0]) {
            say(&mut to_primary, &[byte]).await;
            tokio::time::sleep(Duration::from_secs(1)).await;
        }
    };
    let here = environment();
    tokio::select! {
        heard = hear_backup(&mut to_backup, &here, LIMIT) => {
            assert!(matches!(heard.unwrap_err(), HandshakeError::Silent { waited_ms: 5000, .. }));
        }
        () = trickling => panic!("it was waited for"),
    }
}

#[tokio::test]
async fn a_foreign_peer_is_named() {
    for bytes in [&b"GET / HTTP/1.1\r\n\r\n"[..], b"\x16\x03\x01", b"x"] {
        assert!(matches!(
            primary_hears(bytes).await,
            HandshakeError::Foreign { .. }
        ));
        assert!(matches!(
            backup_hears(bytes).await,
            HandshakeError::Foreign { .. }
        ));
    }
}

#[tokio::test]
async fn a_damaged_opening_is_named() {
    let mut hello = encoded_message(&messages()[0]);
    hello[70] ^= 4;
    let error = primary_hears(&hello).await;
    let HandshakeError::Channel(ChannelError::Received { source, .. }) = error else {
        panic!("{error}")
    };
    assert!(matches!(source, LogError::Checksum { .. }));
}

#[tokio::test]
async fn a_peer_that_closes_at_any_byte_is_named() {
    let hello = encoded_message(&messages()[0]);
    for length in 0..hello.len() {
        assert!(matches!(
            primary_hears(&hello[..length]).await,
            HandshakeError::Closed { .. }
        ));
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_peer_is_given_up() {
    let (mut to_backup, mut to_primary) = pair();
    let error = as_primary(&mut to_backup, &environment(), BEGINNING, LIMIT)
        .await
        .unwrap_err();
    assert!(matches!(error, HandshakeError::Silent { waited_ms: 5000, .. }));
    let error = as_backup(&mut to_primary, &environment(), LIMIT)
        .await
        .unwrap_err();
    assert!(matches!(error, HandshakeError::Silent { waited_ms: 5000, .. }));
}

#[tokio::test(start_paused = true)]
async fn two_sides_of_one_role_say_so() {
    let (mut one, mut other) = pair();
    let here = environment();
    let (one, other) = tokio::join!(
        as_backup(&mut one, &here, LIMIT),
        as_backup(&mut other, &here, LIMIT)
    );
    for error in [one.unwrap_err(), other.unwrap_err()] {
        let expected = Kind::Welcome;
        assert!(
            matches!(error, HandshakeError::Unexpected { expected: e, found: Kind::Hello, .. } if e == expected)
        );
    }
}

#[tokio::test]
async fn an_entry_before_the_handshake_is_out_of_turn() {
    let error = primary_hears(&encoded(&entries()[0])).await;
    assert!(matches!(
        error,
        HandshakeError::Unexpected {
            expected: Kind::Hello,
            found: Kind::Environment,
            ..
        }
    ));
}
