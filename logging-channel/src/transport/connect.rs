//! Opening a connection.

use std::io;
use std::path::Path;
use std::time::Duration;

use tokio::net::{TcpStream, UnixStream};
use tokio::time;

use super::listener::check_path;
use super::{Address, ChannelError, Connection};

/// Pause between tries. The two sides of a pair are started in any order, within a person's patience.
const RETRY_PAUSE: Duration = Duration::from_millis(20);

/// Connects to `address`, and tries again while nobody listens there or no way leads there, for
/// `patience` in all.
///
/// # Errors
/// [`ChannelError::NobodyAnswers`] after `patience`; at once [`ChannelError::MissingDirectory`],
/// [`ChannelError::PathTooLong`], and [`ChannelError::Connect`] for what waiting does not mend.
pub async fn connect(address: &Address, patience: Duration) -> Result<Connection, ChannelError> {
    if let Address::Unix { path } = address {
        check_path(path)?;
    }
    let mut last = None;
    match time::timeout(patience, keep_trying(address, &mut last)).await {
        Ok(Ok(connection)) => Ok(connection),
        Ok(Err(source)) => Err(ChannelError::Connect {
            address: address.clone(),
            source,
        }),
        Err(_) => Err(ChannelError::NobodyAnswers {
            address: address.clone(),
            waited_ms: patience.as_millis(),
            source: last,
        }),
    }
}

async fn keep_trying(address: &Address, last: &mut Option<io::Error>) -> io::Result<Connection> {
    loop {
        match try_once(address).await {
            Err(error) if may_pass(&error) => *last = Some(error),
            result => return result,
        }
        time::sleep(RETRY_PAUSE).await;
    }
}

async fn try_once(address: &Address) -> io::Result<Connection> {
    match address {
        Address::Tcp { host, port } => tcp(host, *port).await,
        Address::Unix { path } => unix(path, address).await,
    }
}

async fn tcp(host: &str, port: u16) -> io::Result<Connection> {
    let stream = TcpStream::connect((host, port)).await?;
    // On one machine the system may choose, as our own port, the very port nobody listens on; the
    // connection then leads to ourselves.
    let peer = stream.peer_addr()?;
    if stream.local_addr()? == peer {
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    Connection::over_tcp(stream, peer)
}

async fn unix(path: &Path, address: &Address) -> io::Result<Connection> {
    let stream = UnixStream::connect(path).await?;
    Ok(Connection::over_unix(stream, &address.to_string()))
}

/// True where waiting may help: the other side has not been started yet, has just ended, has more
/// connections waiting than it takes, or the way to it is interrupted.
fn may_pass(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionRefused
            | io::ErrorKind::NotFound
            | io::ErrorKind::ConnectionReset
            | io::ErrorKind::ConnectionAborted
            | io::ErrorKind::NotConnected
            | io::ErrorKind::WouldBlock
            | io::ErrorKind::TimedOut
            | io::ErrorKind::HostUnreachable
            | io::ErrorKind::NetworkUnreachable
            | io::ErrorKind::NetworkDown
    )
}
