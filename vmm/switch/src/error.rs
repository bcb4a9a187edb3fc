//! Why a switch cannot run.

use std::io;
use std::net::{Ipv4Addr, SocketAddrV4};
use std::path::PathBuf;

use super::HostAddress;

/// A switch cannot start, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum SwitchError {
    /// The directory of the socket is missing.
    #[error(
        "the directory {directory} for the socket {socket} does not exist: create it, or correct --socket"
    )]
    SocketDirectoryMissing {
        /// The socket.
        socket: PathBuf,
        /// Its directory.
        directory: PathBuf,
    },
    /// Another switch listens there.
    #[error("another switch is running on {socket}: end it, or choose another --socket")]
    SwitchRunning {
        /// The socket.
        socket: PathBuf,
    },
    /// There is something else under that name.
    #[error("{socket} exists and is not a socket: remove it, or choose another --socket")]
    NoSocket {
        /// The path.
        socket: PathBuf,
    },
    /// The socket cannot be made.
    #[error(
        "cannot listen on the socket {socket}: is the directory writable, and the path no longer than 107 bytes?"
    )]
    SocketUnusable {
        /// The socket.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// A forwarded port is taken.
    #[error("port {address} of this host is in use: end what listens there, or forward another port")]
    PortInUse {
        /// Host address and port.
        address: SocketAddrV4,
    },
    /// A forwarded port cannot be listened on.
    #[error("cannot listen on {address}")]
    PortUnusable {
        /// Host address and port.
        address: SocketAddrV4,
        /// What the system said.
        source: io::Error,
    },
    /// A forward goes to where no guest can be.
    #[error(
        "the forward to {guest} leads nowhere: the guests are in the network of {host}, and that address is not theirs"
    )]
    GuestUnreachable {
        /// The guest's address in the forward.
        guest: Ipv4Addr,
        /// The host's address and network.
        host: HostAddress,
    },
    /// The capture file cannot be written.
    #[error("cannot write the capture {path}")]
    Capture {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The runtime cannot be set up.
    #[error("the switch cannot set up its event loop")]
    Runtime {
        /// What the system said.
        source: io::Error,
    },
}
