//! What can go wrong between two processes.

use std::io;
use std::path::PathBuf;

use super::Address;
use crate::LogError;

/// A channel that cannot be opened, or cannot be used any longer.
#[derive(Debug, thiserror::Error)]
pub enum ChannelError {
    /// The address cannot be listened on.
    #[error("the logging channel cannot listen on {address}")]
    Listen {
        /// Where.
        address: Address,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Another process listens there.
    #[error(
        "the logging channel's address {address} is in use: another process listens there; stop it or choose another"
    )]
    InUse {
        /// Where.
        address: Address,
    },
    /// The file at a socket's path is something else.
    #[error("the logging channel cannot use {}: it exists and is not a socket; choose another path", path.display())]
    NotASocket {
        /// The file.
        path: PathBuf,
    },
    /// The directory of a socket's path is missing.
    #[error(
        "the directory {} of the logging channel's socket {} does not exist: create it first",
        directory.display(),
        path.display()
    )]
    MissingDirectory {
        /// The directory.
        directory: PathBuf,
        /// The socket.
        path: PathBuf,
    },
    /// Longer than the system's socket addresses.
    #[error("the logging channel's socket path {} has {length} bytes, the most is {max}: choose a shorter one", path.display())]
    PathTooLong {
        /// The path.
        path: PathBuf,
        /// Its bytes.
        length: usize,
        /// The most that is allowed.
        max: usize,
    },
    /// A peer could not be let in.
    #[error("the logging channel cannot accept a connection on {address}")]
    Accept {
        /// Where.
        address: Address,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// The address cannot be connected to, and trying again would not help.
    #[error("the logging channel cannot connect to {address}")]
    Connect {
        /// Where to.
        address: Address,
        /// Why not.
        #[source]
        source: io::Error,
    },
    /// Nobody answered there in time.
    #[error(
        "nobody answers at {address} after {waited_ms} ms: is the other side running, is this its address, \
         and has it no peer yet? A primary that has its backup no longer listens"
    )]
    NobodyAnswers {
        /// Where.
        address: Address,
        /// How long it was tried.
        waited_ms: u128,
        /// What the last try came to, if it came to something.
        #[source]
        source: Option<io::Error>,
    },
    /// The connection broke.
    #[error("the connection to {peer} broke")]
    Broken {
        /// Whom it led to.
        peer: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The peer closed in the middle of a record.
    #[error("{peer} closed the connection {bytes} bytes into a record")]
    ClosedInRecord {
        /// Who.
        peer: String,
        /// Bytes of the record that came.
        bytes: usize,
    },
    /// The peer sent something that is no record, or not the next one.
    #[error("{peer} sent what cannot be read")]
    Received {
        /// Who.
        peer: String,
        /// What is wrong with it.
        #[source]
        source: LogError,
    },
    /// A message that is too large to be sent.
    #[error("a message to {peer} cannot be encoded")]
    Unsendable {
        /// To whom.
        peer: String,
        /// What is wrong with it.
        #[source]
        source: LogError,
    },
    /// More was queued than may be; nothing of it was taken.
    #[error(
        "{more} bytes more than the {queued} queued for {peer} would pass the limit of {max}: flush first"
    )]
    QueueFull {
        /// For whom.
        peer: String,
        /// Bytes queued.
        queued: usize,
        /// Bytes that were to be added.
        more: usize,
        /// The most that may be queued.
        max: usize,
    },
}

impl ChannelError {
    /// True for a listener that could not accept a connection now and can later: the process or the
    /// host has no descriptor or no memory left, or a network error was passed on.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        // A socket that no longer listens answers EINVAL, for ever.
        matches!(self, Self::Accept { source, .. } if source.kind() != io::ErrorKind::InvalidInput)
    }
}
