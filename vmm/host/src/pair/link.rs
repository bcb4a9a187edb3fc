//! The connection to the peer, as the replica loop uses it, and what its end proves
//! (`docs/failover.md`).

use lockstep_logging_channel::Record;
use lockstep_logging_channel::transport::{ChannelError, Connection, RecordReader, RecordWriter};
use std::future::pending;
use std::io::ErrorKind;
use std::time::Duration;

/// Time that a write that found no reader waits for the end of the stream. If the peer has closed,
/// that end is in this host's kernel already.
const END_OF_STREAM_LIMIT: Duration = Duration::from_millis(20);

/// The connection to the peer, where there is one. A peer may go while the replica runs, and
/// another come.
///
/// Both halves stay as they are when the connection is lost: dropping the writer would close it.
#[derive(Debug, Default)]
pub struct Link(Option<(RecordReader, RecordWriter)>);

impl Link {
    /// A link over `connection`.
    #[must_use]
    pub fn over(connection: Connection) -> Self {
        Self(Some(connection.split()))
    }

    /// Returns the half that reads from the peer, and the half that writes to it.
    pub fn halves(&mut self) -> (Reading<'_>, Writing<'_>) {
        match &mut self.0 {
            Some((reader, writer)) => (Reading(Some(reader)), Writing(Some(writer))),
            None => (Reading(None), Writing(None)),
        }
    }

    /// The reader, if there is a connection.
    pub fn reader(&mut self) -> Option<&mut RecordReader> {
        self.0.as_mut().map(|(reader, _)| reader)
    }

    /// The writer, if there is a connection.
    pub fn writer(&mut self) -> Option<&mut RecordWriter> {
        self.0.as_mut().map(|(_, writer)| writer)
    }
}

/// Half of the link that reads from the peer.
#[derive(Debug)]
pub struct Reading<'a>(Option<&'a mut RecordReader>);

impl Reading<'_> {
    /// The next record; nothing for ever without a connection. Cancel-safe.
    ///
    /// # Errors
    /// The connection broke.
    pub async fn record(&mut self) -> Result<Option<Record>, ChannelError> {
        match &mut self.0 {
            Some(reader) => reader.read().await,
            None => pending().await,
        }
    }
}

/// Half of the link that writes to the peer.
#[derive(Debug)]
pub struct Writing<'a>(Option<&'a mut RecordWriter>);

impl Writing<'_> {
    /// True if something is queued.
    #[must_use]
    pub fn is_due(&self) -> bool {
        self.0.as_ref().is_some_and(|writer| writer.queued_bytes() > 0)
    }

    /// Writes what is queued; `closing`: and nothing will follow. Cancel-safe.
    ///
    /// # Errors
    /// The connection is of no use after it.
    pub async fn flush(&mut self, closing: bool) -> Result<(), ChannelError> {
        match &mut self.0 {
            Some(writer) => write(writer, closing).await,
            None => Ok(()),
        }
    }
}

/// True where the error proves that the peer's side closed: its kernel has sent a reset, or the end
/// of the stream in the middle of a record.
///
/// Everything else may be a decision of this host about a peer that is well: EPIPE (this side's own
/// shutdown answers the same), ECONNABORTED (an administrator's `ss --kill`), ETIMEDOUT (no
/// acknowledgement for too long), EHOSTUNREACH, ENETUNREACH, ENETDOWN.
#[must_use]
pub fn was_reset(error: &ChannelError) -> bool {
    match error {
        ChannelError::Broken { source, .. } => source.kind() == ErrorKind::ConnectionReset,
        ChannelError::ClosedInRecord { .. } => true,
        _ => false,
    }
}

/// Writes what is queued; `closing`: and nothing will follow.
///
/// EPIPE proves nothing by itself. Where the peer has closed, the reading side says so, and a loop
/// that polls it beside this learns it there first: so this error waits for a moment.
///
/// # Errors
/// The connection is of no use after it.
async fn write(writer: &mut RecordWriter, closing: bool) -> Result<(), ChannelError> {
    if closing {
        return writer.close().await;
    }
    let written = writer.flush().await;
    if let Err(ChannelError::Broken { source, .. }) = &written
        && source.kind() == ErrorKind::BrokenPipe
    {
        tokio::time::sleep(END_OF_STREAM_LIMIT).await;
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_logging_channel::Message;
    use lockstep_logging_channel::message::Heartbeat;
    use lockstep_logging_channel::transport::Connection;
    use std::io;
    use std::net::Shutdown;
    use std::os::unix::net::UnixStream;

    fn broken(errno: i32) -> ChannelError {
        ChannelError::Broken {
            peer: "the peer".to_owned(),
            source: io::Error::from_raw_os_error(errno),
        }
    }

    #[test]
    fn only_what_the_peer_s_kernel_sends_proves_that_the_peer_closed() {
        let cut = ChannelError::ClosedInRecord {
            peer: "the peer".to_owned(),
            bytes: 7,
        };
        assert!(was_reset(&cut));
        assert!(was_reset(&broken(libc::ECONNRESET)));
        for errno in [
            libc::EPIPE,
            libc::ECONNABORTED,
            libc::ETIMEDOUT,
            libc::EHOSTUNREACH,
            libc::ENETUNREACH,
            libc::ENETDOWN,
            libc::ENETRESET,
            libc::ENOBUFS,
            libc::EIO,
        ] {
            assert!(!was_reset(&broken(errno)), "{}", broken(errno));
        }
    }

    /// This side with a heartbeat queued, and the other end of its stream.
    fn ends() -> (Connection, UnixStream) {
        let (here, there) = UnixStream::pair().unwrap();
        here.set_nonblocking(true).unwrap();
        let (read, write) = tokio::net::UnixStream::from_std(here).unwrap().into_split();
        let mut connection = Connection::new(read, write, "the peer");
        connection
            .writer
            .queue(&Message::Heartbeat(Heartbeat::default()))
            .unwrap();
        (connection, there)
    }

    /// Result that a loop that writes first and reads beside it gets: the error of the write, or
    /// the outcome of the read.
    async fn learned(
        connection: &mut Connection,
    ) -> Result<Option<lockstep_logging_channel::Record>, ChannelError> {
        tokio::select! {
            biased;
            written = write(&mut connection.writer, false) => Err(written.unwrap_err()),
            read = connection.reader.read() => read,
        }
    }

    #[tokio::test]
    async fn a_write_to_a_peer_that_has_closed_lets_its_end_be_read_first() {
        for _ in 0..100 {
            let (mut connection, there) = ends();
            drop(there);
            assert!(matches!(learned(&mut connection).await, Ok(None)));
        }
    }

    #[tokio::test]
    async fn a_write_that_is_refused_while_the_peer_still_speaks_is_broken_here() {
        let (mut connection, there) = ends();
        there.shutdown(Shutdown::Read).unwrap();
        let error = learned(&mut connection).await.unwrap_err();
        assert!(
            matches!(&error, ChannelError::Broken { source, .. } if source.kind() == ErrorKind::BrokenPipe)
        );
        assert!(!was_reset(&error));
    }
}
