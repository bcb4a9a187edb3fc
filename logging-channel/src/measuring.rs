//! The round trip of a new channel, measured after the handshake and before anybody relies on it.
//!
//! ```text
//! backup                               primary
//!   | <---------- Probe 1 --------------- |
//!   | ----------- Probe 1 --------------> |  ... again, while none was short enough
//!   | <---------- Measured -------------- |  the shortest
//! ```
//!
//! The primary's clock measures, and both sides learn the same number: what one decides by it, the other does too.

use std::time::Duration;

use tokio::time::Instant;

use crate::Kind;
use crate::handshake::{HandshakeError, receive, send, unexpected, within};
use crate::message::{Measured, Message, Probe};
use crate::transport::Connection;

/// The shortest of so many counts: one may meet a busy host.
const PROBES_MAX: u32 = 5;

/// Measures the round trip to a backup that was welcomed, and tells the backup. A round trip within `enough` ends it.
///
/// # Errors
/// Any [`HandshakeError`] but those of a difference.
pub async fn measure(
    connection: &mut Connection,
    enough: Duration,
    limit: Duration,
) -> Result<Duration, HandshakeError> {
    let peer = connection.peer().to_owned();
    within(limit, peer, probe(connection, enough, limit / 3)).await
}

/// Answers a primary that measures, and gives what it has measured.
///
/// # Errors
/// Any [`HandshakeError`] but those of a difference.
pub async fn answer(connection: &mut Connection, limit: Duration) -> Result<Duration, HandshakeError> {
    let peer = connection.peer().to_owned();
    within(limit, peer, send_back(connection)).await
}

/// Asks no more once `patience` is over.
async fn probe(
    connection: &mut Connection,
    enough: Duration,
    patience: Duration,
) -> Result<Duration, HandshakeError> {
    let (start, mut shortest) = (Instant::now(), Duration::MAX);
    for number in 1..=PROBES_MAX {
        let sent = Instant::now();
        let probe = Message::Probe(Probe { number });
        send(connection, &probe).await?;
        match receive(connection, Kind::Probe).await? {
            back if back == probe => shortest = shortest.min(sent.elapsed()),
            other => return Err(unexpected(connection, Kind::Probe, other)),
        }
        if shortest <= enough || start.elapsed() >= patience {
            break;
        }
    }
    let round_trip_ns = u64::try_from(shortest.as_nanos()).unwrap_or(u64::MAX);
    send(connection, &Message::Measured(Measured { round_trip_ns })).await?;
    Ok(Duration::from_nanos(round_trip_ns))
}

async fn send_back(connection: &mut Connection) -> Result<Duration, HandshakeError> {
    // A primary that goes on asking is not waited for beyond what it may ask.
    for _ in 0..=PROBES_MAX {
        match receive(connection, Kind::Measured).await? {
            Message::Measured(Measured { round_trip_ns }) => return Ok(Duration::from_nanos(round_trip_ns)),
            probe @ Message::Probe(_) => send(connection, &probe).await?,
            other => return Err(unexpected(connection, Kind::Measured, other)),
        }
    }
    let probe = Message::Probe(Probe { number: PROBES_MAX });
    Err(unexpected(connection, Kind::Measured, probe))
}
