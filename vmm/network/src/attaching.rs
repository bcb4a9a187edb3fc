//! Opening what an attachment names.

use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::Path;

use nix::sys::socket::{AddressFamily, SockFlag, SockType, UnixAddr};

use super::{Attachment, Link, NetworkError, tap};

impl Attachment {
    /// Opens the link. Does not wait: the switch must be running, the TAP interface must be there.
    ///
    /// # Errors
    /// Names the path or interface, what is wrong with it, and what to do.
    pub fn attach(&self) -> Result<Link, NetworkError> {
        match self {
            Self::Switch(path) => Link::stream(connect(path)?, self),
            Self::Tap(name) => Ok(Link::tap(tap::open(name)?, self)),
            Self::None => Ok(Link::nothing()),
        }
    }
}

/// Connects without waiting: a switch that was stopped and whose queue of connections is full must
/// not stop a replica.
fn connect_at_once(socket: &Path) -> io::Result<UnixStream> {
    let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
    let stream = UnixStream::from(nix::sys::socket::socket(
        AddressFamily::Unix,
        SockType::Stream,
        flags,
        None,
    )?);
    nix::sys::socket::connect(stream.as_raw_fd(), &UnixAddr::new(socket)?)?;
    Ok(stream)
}

fn connect(socket: &Path) -> Result<UnixStream, NetworkError> {
    connect_at_once(socket).map_err(|source| {
        let socket = socket.to_owned();
        let directory = socket
            .parent()
            .filter(|parent| *parent != Path::new(""))
            .map(Path::to_owned);
        match (source.kind(), directory) {
            (io::ErrorKind::NotFound, Some(directory)) if !directory.is_dir() => {
                NetworkError::SocketDirectoryMissing { socket, directory }
            }
            (io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused, _) => {
                NetworkError::SwitchAbsent { socket, source }
            }
            _ => NetworkError::SwitchUnreachable { socket, source },
        }
    })
}
