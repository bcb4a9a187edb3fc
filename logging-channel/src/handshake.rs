//! Handshake by which two processes become a pair: they are the same software, and their replays
//! depend on the same things, or they report in which field they differ and disconnect.
//!
//! ```text
//! backup                               primary
//!   | ----------- Hello ----------------> |  compares; differs: Refused, and parts
//!   |  compares; differs: Refused, parts  |
//!   | <---------- Welcome --------------- |
//!   | <---------- Beginning ------------- |  right behind it
//! ```
//!
//! Both sides compare with the same rules, so that neither depends on the other's care.
//!
//! A primary takes the two halves apart ([`hear_backup`], [`welcome_backup`]): it listens to many
//! peers beside each other, and welcomes one. What a peer says is cut short and made printable
//! before it is shown.

use std::io;
use std::time::Duration;

use tokio::time;

use crate::codec::{FORMAT_VERSION, Record};
use crate::message::{Beginning, Hello, Message, Refused, Welcome};
use crate::transport::{ChannelError, Connection};
use crate::{Environment, EnvironmentDifference, Kind, LogError};

/// Version of this software, as the handshake compares it.
pub const SOFTWARE_VERSION: &str = env!("CARGO_PKG_VERSION");

/// Why two processes do not become a pair.
#[derive(Debug, thiserror::Error)]
pub enum HandshakeError {
    /// The two sides are not the same.
    #[error(
        "the two sides differ in {}: primary {}, backup {}",
        printable(field),
        shown(primary),
        shown(backup)
    )]
    Differs {
        /// Name of the first differing field.
        field: String,
        /// Its value at the primary, if it is there.
        primary: Option<String>,
        /// Its value at the backup, if it is there.
        backup: Option<String>,
    },
    /// The peer speaks another format of the log.
    #[error(
        "{peer} speaks log format version {found}, this side version {here}: use the same version on both sides"
    )]
    FormatVersion {
        /// Who.
        peer: String,
        /// Its version.
        found: u16,
        /// The version of this side.
        here: u16,
    },
    /// The peer refuses, for a reason of its own.
    #[error("{peer} refuses: {}", printable(reason))]
    Refused {
        /// Who.
        peer: String,
        /// Its words.
        reason: String,
    },
    /// The peer refuses for now: it may be asked again.
    #[error("{peer} refuses for now: {}", printable(reason))]
    Busy {
        /// The peer.
        peer: String,
        /// Its words.
        reason: String,
    },
    /// What answers is no side of a pair.
    #[error("{peer} does not speak this protocol (it sent {found:02x?}): is this the right address?")]
    Foreign {
        /// Who.
        peer: String,
        /// The first bytes it sent.
        found: [u8; 4],
    },
    /// The peer speaks out of turn.
    #[error("{peer} sent {found} where {expected} was expected: are both sides started in the same role?")]
    Unexpected {
        /// Who.
        peer: String,
        /// What it should have sent.
        expected: Kind,
        /// What it sent.
        found: Kind,
    },
    /// The peer closed before the handshake was done.
    #[error("{peer} closed the connection before the handshake was done")]
    Closed {
        /// Who.
        peer: String,
    },
    /// The peer does not speak.
    #[error("{peer} did not finish the handshake within {waited_ms} ms")]
    Silent {
        /// Who.
        peer: String,
        /// How long it was given.
        waited_ms: u128,
    },
    /// The channel failed.
    #[error(transparent)]
    Channel(ChannelError),
}

impl HandshakeError {
    /// Whether the two sides do not fit together, so that trying again is of no use.
    #[must_use]
    pub fn is_mismatch(&self) -> bool {
        matches!(
            self,
            Self::Differs { .. } | Self::FormatVersion { .. } | Self::Refused { .. } | Self::Foreign { .. }
        )
    }

    /// True where the peer refuses for now: another try may succeed.
    #[must_use]
    pub fn is_for_now(&self) -> bool {
        matches!(self, Self::Busy { .. })
    }

    /// True where the peer was lost before it gave an answer: another try may get one.
    #[must_use]
    pub fn is_loss(&self) -> bool {
        matches!(
            self,
            Self::Closed { .. } | Self::Silent { .. } | Self::Channel(ChannelError::Broken { .. })
        )
    }
}

/// The most characters of a peer's text that are shown: two digests of 64, and words around them.
const SHOWN_CHARS_MAX: usize = 200;

/// A text from outside on one line, without control characters, and cut short.
fn printable(text: &str) -> String {
    let mut characters = text.chars();
    let mut shown = String::new();
    for character in characters.by_ref().take(SHOWN_CHARS_MAX) {
        match character {
            '\'' | '"' | '\\' => shown.push(character),
            other => shown.extend(other.escape_debug()),
        }
    }
    if characters.next().is_some() {
        shown.push('…');
    }
    shown
}

fn shown(value: &Option<String>) -> String {
    value.as_ref().map_or_else(
        || "has none".to_owned(),
        |value| format!("`{}`", printable(value)),
    )
}

/// Waits for a backup's opening and, if it fits, welcomes it. `environment` carries the pair's
/// name, and `beginning` is where the backup begins.
///
/// Returns what the backup said of itself.
///
/// # Errors
/// Any [`HandshakeError`]. Where the two sides differ, the backup has been told in which field.
pub async fn as_primary(
    connection: &mut Connection,
    environment: &Environment,
    beginning: Beginning,
    limit: Duration,
) -> Result<Hello, HandshakeError> {
    let hello = hear_backup(connection, environment, limit).await?;
    welcome_backup(connection, environment, beginning, limit).await?;
    Ok(hello)
}

/// The first half of [`as_primary`]: waits for a backup's opening, and compares. A backup that fits
/// now waits for [`welcome_backup`], or for [`turn_away`].
///
/// # Errors
/// As [`as_primary`].
pub async fn hear_backup(
    connection: &mut Connection,
    environment: &Environment,
    limit: Duration,
) -> Result<Hello, HandshakeError> {
    let peer = connection.peer().to_owned();
    within(limit, peer, hear(connection, environment)).await
}

/// The second half of [`as_primary`]: the backup of this connection, which fits, becomes this
/// primary's.
///
/// # Errors
/// As [`as_primary`].
pub async fn welcome_backup(
    connection: &mut Connection,
    environment: &Environment,
    beginning: Beginning,
    limit: Duration,
) -> Result<(), HandshakeError> {
    let peer = connection.peer().to_owned();
    let welcome = Message::Welcome(Welcome {
        environment: environment.clone(),
    });
    let beginning = Message::Beginning(beginning);
    within(limit, peer, send_all(connection, &[welcome, beginning])).await
}

/// Refuses a peer for `reason`, which it shows to its user.
pub async fn turn_away(connection: &mut Connection, reason: &str, limit: Duration) {
    refuse_within(connection, Refused::Other(reason.to_owned()), limit).await;
}

/// The same, and the peer may ask again.
pub async fn put_off(connection: &mut Connection, reason: &str, limit: Duration) {
    refuse_within(connection, Refused::Later(reason.to_owned()), limit).await;
}

async fn refuse_within(connection: &mut Connection, refused: Refused, limit: Duration) {
    let refusal = refuse(connection, refused);
    // A peer that does not take it in time is closed all the same.
    let _ = time::timeout(limit, refusal).await;
}

/// Opens to a primary and waits for its welcome.
///
/// Returns the primary's environment, which the backup adopts: it carries the pair's name. And
/// where it begins.
///
/// # Errors
/// Any [`HandshakeError`], the field in which the two sides differ among them.
pub async fn as_backup(
    connection: &mut Connection,
    environment: &Environment,
    limit: Duration,
) -> Result<(Environment, Beginning), HandshakeError> {
    let peer = connection.peer().to_owned();
    within(limit, peer, open_to_primary(connection, environment)).await
}

pub(crate) async fn within<T>(
    limit: Duration,
    peer: String,
    handshake: impl Future<Output = Result<T, HandshakeError>>,
) -> Result<T, HandshakeError> {
    let waited_ms = limit.as_millis();
    time::timeout(limit, handshake)
        .await
        .unwrap_or(Err(HandshakeError::Silent { peer, waited_ms }))
}

async fn hear(connection: &mut Connection, environment: &Environment) -> Result<Hello, HandshakeError> {
    let hello = match receive(connection, Kind::Hello).await {
        Ok(Message::Hello(hello)) => hello,
        Ok(other) => return Err(unexpected(connection, Kind::Hello, other)),
        Err(error @ HandshakeError::FormatVersion { .. }) => {
            // The peer cannot read the words, but it reads our version in the header.
            refuse(connection, Refused::Other(error.to_string())).await;
            return Err(error);
        }
        Err(error) => return Err(error),
    };
    match first_difference(environment, &hello) {
        Some(difference) => {
            // Decoded, it may take many times its record, and the peer may take its time with the
            // refusal.
            drop(hello);
            Err(part(connection, difference).await)
        }
        None => Ok(hello),
    }
}

async fn open_to_primary(
    connection: &mut Connection,
    environment: &Environment,
) -> Result<(Environment, Beginning), HandshakeError> {
    let hello = Hello {
        software_version: SOFTWARE_VERSION.to_owned(),
        format_version: FORMAT_VERSION,
        environment: environment.clone(),
    };
    let opening = Message::Hello(hello);
    send(connection, &opening).await?;
    let welcome = match receive(connection, Kind::Welcome).await? {
        Message::Welcome(welcome) => welcome,
        other => return Err(unexpected(connection, Kind::Welcome, other)),
    };
    if let Some(difference) = welcome.environment.first_difference(environment) {
        return Err(part(connection, difference).await);
    }
    match receive(connection, Kind::Beginning).await? {
        Message::Beginning(beginning) => Ok((welcome.environment, beginning)),
        other => Err(unexpected(connection, Kind::Beginning, other)),
    }
}

/// The first field in which the backup that said `hello` differs from this primary.
fn first_difference(environment: &Environment, hello: &Hello) -> Option<EnvironmentDifference> {
    let versions = [
        (
            "software version",
            SOFTWARE_VERSION.to_owned(),
            hello.software_version.clone(),
        ),
        (
            "log format version",
            FORMAT_VERSION.to_string(),
            hello.format_version.to_string(),
        ),
    ];
    let differing = versions
        .into_iter()
        .find(|(_, primary, backup)| primary != backup);
    match differing {
        Some((name, primary, backup)) => Some(EnvironmentDifference {
            name: name.to_owned(),
            recorded: Some(primary),
            here: Some(backup),
        }),
        None => environment.first_difference(&hello.environment),
    }
}

/// Tells the peer in which field the two sides differ.
async fn part(connection: &mut Connection, difference: EnvironmentDifference) -> HandshakeError {
    let EnvironmentDifference {
        name: field,
        recorded: primary,
        here: backup,
    } = difference;
    let refused = Refused::Differs {
        field: field.clone(),
        primary: primary.clone(),
        backup: backup.clone(),
    };
    refuse(connection, refused).await;
    HandshakeError::Differs {
        field,
        primary,
        backup,
    }
}

/// Says no. That the peer does not hear it is worth a line and changes nothing: this side parts
/// anyway.
async fn refuse(connection: &mut Connection, refused: Refused) {
    if let Err(error) = send(connection, &Message::Refused(refused)).await {
        tracing::debug!(peer = connection.peer(), %error, "the refusal could not be sent");
    }
}

pub(crate) async fn send(connection: &mut Connection, message: &Message) -> Result<(), HandshakeError> {
    send_all(connection, std::slice::from_ref(message)).await
}

async fn send_all(connection: &mut Connection, messages: &[Message]) -> Result<(), HandshakeError> {
    for message in messages {
        connection
            .writer
            .queue(message)
            .map_err(HandshakeError::Channel)?;
    }
    connection
        .writer
        .flush()
        .await
        .map_err(|error| named(connection, error))
}

pub(crate) async fn receive(connection: &mut Connection, expected: Kind) -> Result<Message, HandshakeError> {
    let peer = connection.peer().to_owned();
    match connection.reader.read().await {
        Ok(Some(Record::Message(message))) => Ok(message),
        Ok(Some(Record::Entry(entry))) => Err(HandshakeError::Unexpected {
            peer,
            expected,
            found: entry.body.kind(),
        }),
        Ok(None) => Err(HandshakeError::Closed { peer }),
        Err(error) => Err(named(connection, error)),
    }
}

/// Gives the failures of a channel that mean something in a handshake the names they have there.
fn named(connection: &Connection, error: ChannelError) -> HandshakeError {
    let peer = connection.peer().to_owned();
    match error {
        ChannelError::Received {
            source: LogError::FormatVersion { found, supported },
            ..
        } => HandshakeError::FormatVersion {
            peer,
            found,
            here: supported,
        },
        ChannelError::Received {
            source: LogError::NotALog { found },
            ..
        } => HandshakeError::Foreign { peer, found },
        ChannelError::ClosedInRecord { .. } => HandshakeError::Closed { peer },
        // A peer that closes with something unread resets.
        ChannelError::Broken { source, .. } if source.kind() == io::ErrorKind::ConnectionReset => {
            HandshakeError::Closed { peer }
        }
        error => HandshakeError::Channel(error),
    }
}

pub(crate) fn unexpected(connection: &Connection, expected: Kind, message: Message) -> HandshakeError {
    let peer = connection.peer().to_owned();
    match message {
        Message::Refused(Refused::Differs {
            field,
            primary,
            backup,
        }) => HandshakeError::Differs {
            field,
            primary,
            backup,
        },
        Message::Refused(Refused::Other(reason)) => HandshakeError::Refused { peer, reason },
        Message::Refused(Refused::Later(reason)) => HandshakeError::Busy { peer, reason },
        other => HandshakeError::Unexpected {
            peer,
            expected,
            found: other.kind(),
        },
    }
}
