//! What can go wrong with an attachment.

use std::io;
use std::path::PathBuf;

use super::FramingError;

/// An attachment cannot be made or goes on no longer.
#[derive(Debug, thiserror::Error)]
pub enum NetworkError {
    /// The directory of the socket is missing.
    #[error(
        "the directory {directory} of the switch socket {socket} does not exist: create it, or correct --network"
    )]
    SocketDirectoryMissing {
        /// The socket that was asked for.
        socket: PathBuf,
        /// Its directory.
        directory: PathBuf,
    },
    /// Nobody listens on the socket.
    #[error("no switch answers on {socket}: start one with `lockstep switch --socket {socket}`")]
    SwitchAbsent {
        /// The socket.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The socket cannot be reached for another reason.
    #[error("cannot attach to the switch on {socket}")]
    SwitchUnreachable {
        /// The socket.
        socket: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The host has no usable `/dev/net/tun`.
    #[error(
        "cannot open /dev/net/tun: it needs the `tun` module (`modprobe tun`) and permission to read and write the device"
    )]
    TunDevice {
        /// What the system said.
        source: io::Error,
    },
    /// There is no such interface.
    #[error(
        "the interface {interface} does not exist: create it with \
         `ip tuntap add dev {interface} mode tap user $USER`, or correct --network"
    )]
    TapMissing {
        /// Name of the interface.
        interface: String,
        /// The answer of the system.
        source: io::Error,
    },
    /// The interface is of another kind.
    #[error(
        "the interface {interface} is not a TAP interface with a single queue: name one made with \
         `ip tuntap add dev NAME mode tap user $USER`"
    )]
    NotTap {
        /// Name of the interface.
        interface: String,
        /// The answer of the system.
        source: io::Error,
    },
    /// The TAP interface cannot be taken.
    #[error(
        "cannot attach to the TAP interface {interface}: create it for this user with \
         `ip tuntap add dev {interface} mode tap user $USER`, and see that nothing else holds it"
    )]
    TapUnavailable {
        /// Name of the interface.
        interface: String,
        /// What the system said.
        source: io::Error,
    },
    /// The link was attached outside a tokio runtime, or the runtime refused it.
    #[error("cannot wait for frames of {attachment}")]
    Runtime {
        /// The attachment as text.
        attachment: String,
        /// What the system said.
        source: io::Error,
    },
    /// The switch closed the link.
    #[error("the switch closed {attachment}: it has ended, or was restarted")]
    Closed {
        /// The attachment as text.
        attachment: String,
    },
    /// The TAP interface was deleted.
    #[error("the interface of {attachment} was deleted")]
    InterfaceGone {
        /// The attachment as text.
        attachment: String,
    },
    /// The link broke.
    #[error("{attachment} broke")]
    Broken {
        /// The attachment as text.
        attachment: String,
        /// What the system said.
        source: io::Error,
    },
    /// The bytes that arrive are not frames.
    #[error("the bytes from {attachment} are not frames")]
    Framing {
        /// The attachment as text.
        attachment: String,
        /// What is wrong with it.
        source: FramingError,
    },
}
