//! Waiting for a peer.

use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use tokio::net::TcpListener;

use super::local_listener::{LocalListenError, LocalListener};
use super::{Address, ChannelError, Connection};

/// Bytes a socket path may have: the 108 of `sun_path` in unix(7), less its terminating zero.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Listens for peers. A Unix socket's file is removed when the listener is dropped.
#[derive(Debug)]
pub struct Listener {
    address: Address,
    socket: Socket,
}

#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(LocalListener),
}

impl Listener {
    /// Listens on `address`. The file of a Unix socket that nobody listens on any longer is replaced.
    ///
    /// # Errors
    /// [`ChannelError::InUse`], [`ChannelError::MissingDirectory`], [`ChannelError::PathTooLong`],
    /// [`ChannelError::NotASocket`], [`ChannelError::Listen`].
    pub async fn bind(address: &Address) -> Result<Self, ChannelError> {
        match address {
            Address::Tcp { host, port } => bind_tcp(host, *port, address).await,
            Address::Unix { path } => bind_unix(path, address).await,
        }
    }

    /// Where it listens: the address it was given, with the port that was chosen for port 0.
    #[must_use]
    pub fn address(&self) -> &Address {
        &self.address
    }

    /// The next peer. May be dropped at any time and called again. A connection that is gone before it
    /// is taken is passed over.
    ///
    /// # Errors
    /// [`ChannelError::Accept`]. Where [`ChannelError::may_pass`] says so, the listener still listens:
    /// call again after a pause.
    pub async fn accept(&self) -> Result<Connection, ChannelError> {
        loop {
            match self.accept_one().await {
                Err(error) if is_gone(&error) => tracing::debug!(%error, "a connection was gone at once"),
                result => {
                    return result.map_err(|source| ChannelError::Accept {
                        address: self.address.clone(),
                        source,
                    });
                }
            }
        }
    }

    async fn accept_one(&self) -> io::Result<Connection> {
        match &self.socket {
            Socket::Tcp(listener) => {
                let (stream, peer) = listener.accept().await?;
                Connection::over_tcp(stream, peer)
            }
            Socket::Unix(listener) => {
                let (stream, _) = listener.socket().accept().await?;
                Ok(Connection::over_unix(
                    stream,
                    &format!("the peer on {}", self.address),
                ))
            }
        }
    }
}

/// True for an error of the one connection that was to be accepted, which says nothing about the
/// listener: accept(2) passes on what is already wrong with a new connection.
fn is_gone(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::NotConnected
    )
}

async fn bind_tcp(host: &str, port: u16, address: &Address) -> Result<Listener, ChannelError> {
    let refused = |source| listen_error(address, source);
    let listener = TcpListener::bind((host, port)).await.map_err(refused)?;
    let port = listener.local_addr().map_err(refused)?.port();
    let address = Address::Tcp {
        host: host.to_owned(),
        port,
    };
    Ok(Listener {
        address,
        socket: Socket::Tcp(listener),
    })
}

async fn bind_unix(path: &Path, address: &Address) -> Result<Listener, ChannelError> {
    check_path(path)?;
    let listener = LocalListener::bind(path).await.map_err(|why| match why {
        LocalListenError::InUse => ChannelError::InUse {
            address: address.clone(),
        },
        LocalListenError::NotASocket => ChannelError::NotASocket {
            path: path.to_owned(),
        },
        LocalListenError::Refused(source) => listen_error(address, source),
    })?;
    Ok(Listener {
        address: address.clone(),
        socket: Socket::Unix(listener),
    })
}

fn listen_error(address: &Address, source: io::Error) -> ChannelError {
    let address = address.clone();
    match source.kind() {
        io::ErrorKind::AddrInUse => ChannelError::InUse { address },
        _ => ChannelError::Listen { address, source },
    }
}

/// Checks what the system would refuse without saying why.
pub(super) fn check_path(path: &Path) -> Result<(), ChannelError> {
    let (length, max) = (path.as_os_str().as_bytes().len(), SOCKET_PATH_BYTES_MAX);
    if length > max {
        return Err(ChannelError::PathTooLong {
            path: path.to_owned(),
            length,
            max,
        });
    }
    let directory = path
        .parent()
        .filter(|directory| !directory.as_os_str().is_empty());
    match directory {
        Some(directory) if !directory.is_dir() => Err(ChannelError::MissingDirectory {
            directory: directory.to_owned(),
            path: path.to_owned(),
        }),
        _ => Ok(()),
    }
}
