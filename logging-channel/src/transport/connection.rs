//! Two ends of a stream that carry records.

use std::io;
use std::net::SocketAddr;

use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, UnixStream};

use super::{RecordReader, RecordWriter};

/// A stream to one peer. Dropping the writer tells the peer that nothing more will come.
#[derive(Debug)]
pub struct Connection {
    /// What the peer sends.
    pub reader: RecordReader,
    /// What goes to the peer.
    pub writer: RecordWriter,
}

impl Connection {
    /// A connection over any two halves of a stream; errors call the other end `peer`.
    pub fn new(
        read: impl AsyncRead + Send + Unpin + 'static,
        write: impl AsyncWrite + Send + Unpin + 'static,
        peer: &str,
    ) -> Self {
        Self {
            reader: RecordReader::new(Box::new(read), peer.to_owned()),
            writer: RecordWriter::new(Box::new(write), peer.to_owned()),
        }
    }

    /// A connection over TCP to `peer`. Nothing is held back to fill a packet: what is flushed is sent.
    /// The stream is not asked for its peer: one that has been reset no longer knows it.
    pub(super) fn over_tcp(stream: TcpStream, peer: SocketAddr) -> io::Result<Self> {
        stream.set_nodelay(true)?;
        let peer = format!("tcp:{peer}");
        let (read, write) = stream.into_split();
        Ok(Self::new(read, write, &peer))
    }

    /// A connection over the Unix socket called `peer`.
    pub(super) fn over_unix(stream: UnixStream, peer: &str) -> Self {
        let (read, write) = stream.into_split();
        Self::new(read, write, peer)
    }

    /// What errors call the peer.
    #[must_use]
    pub fn peer(&self) -> &str {
        self.reader.peer()
    }

    /// The two halves, each for a task of its own.
    #[must_use]
    pub fn split(self) -> (RecordReader, RecordWriter) {
        (self.reader, self.writer)
    }
}
