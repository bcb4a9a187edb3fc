//! Records into a stream.

use std::{fmt, io};

use tokio::io::{AsyncWrite, AsyncWriteExt};

use super::ChannelError;
use crate::codec::{self, RECORD_BYTES_MAX};
use crate::message::Message;

/// The most of the log that may have been sent and not replayed: at 100 Mbit/s of log, more than a second of a backup that stands still.
pub const WINDOW_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// The most that may be queued and not flushed: a whole window of entries, the record that overran it, and
/// another record's length of messages.
pub const QUEUE_BYTES_MAX: usize = WINDOW_BYTES_MAX as usize + 2 * RECORD_BYTES_MAX;

/// Capacity that is kept when the queue has run empty. Above it a burst's memory is given back.
const KEPT_BYTES: usize = 1024 * 1024;

/// Gathers records for a peer, and writes all of them at once.
pub struct RecordWriter {
    stream: Box<dyn AsyncWrite + Send + Unpin>,
    peer: String,
    queue: Vec<u8>,
    /// Bytes of `queue` the stream has taken.
    written: usize,
}

impl RecordWriter {
    pub(super) fn new(stream: Box<dyn AsyncWrite + Send + Unpin>, peer: String) -> Self {
        Self {
            stream,
            peer,
            queue: Vec::new(),
            written: 0,
        }
    }

    /// Queues a message.
    ///
    /// # Errors
    /// [`ChannelError::Unsendable`], [`ChannelError::QueueFull`]; the message is then not queued.
    pub fn queue(&mut self, message: &Message) -> Result<(), ChannelError> {
        self.forget_written();
        let before = self.queue.len();
        let encoded = codec::encode_message(message, &mut self.queue);
        encoded.map_err(|source| ChannelError::Unsendable {
            peer: self.peer.clone(),
            source,
        })?;
        if self.queued_bytes() > QUEUE_BYTES_MAX {
            let more = self.queue.len() - before;
            self.queue.truncate(before);
            return Err(self.full(more));
        }
        Ok(())
    }

    /// Queues whole records that are encoded already, in the order in which they lie.
    ///
    /// # Errors
    /// [`ChannelError::QueueFull`]; nothing is then queued.
    pub fn queue_encoded_entries(&mut self, records: &[u8]) -> Result<(), ChannelError> {
        self.forget_written();
        if self.queued_bytes() + records.len() > QUEUE_BYTES_MAX {
            return Err(self.full(records.len()));
        }
        self.queue.extend_from_slice(records);
        Ok(())
    }

    /// Bytes queued and not yet taken by the stream.
    #[must_use]
    pub fn queued_bytes(&self) -> usize {
        self.queue.len() - self.written
    }

    /// Writes everything queued, in one call of the system where it takes so much.
    ///
    /// May be dropped at any time and called again: it goes on after the last byte that was taken.
    ///
    /// # Errors
    /// [`ChannelError::Broken`]. The connection is of no use after it.
    pub async fn flush(&mut self) -> Result<(), ChannelError> {
        let result = self.write_queue().await;
        result.map_err(|source| ChannelError::Broken {
            peer: self.peer.clone(),
            source,
        })?;
        self.written = 0;
        self.queue.clear();
        self.queue.shrink_to(KEPT_BYTES);
        Ok(())
    }

    /// Writes everything queued, and says that nothing will follow: the peer reads the end. As [`RecordWriter::flush`], it may be dropped and
    /// called again.
    ///
    /// # Errors
    /// [`ChannelError::Broken`].
    pub async fn close(&mut self) -> Result<(), ChannelError> {
        self.flush().await?;
        self.stream
            .shutdown()
            .await
            .map_err(|source| ChannelError::Broken {
                peer: self.peer.clone(),
                source,
            })
    }

    /// Gives up what the stream has taken, once that is more than what is left. A stream that is slower than its writer never lets the
    /// queue run empty, and what it took long ago must not count; moving the smaller part costs less than writing the larger did.
    fn forget_written(&mut self) {
        if self.written >= KEPT_BYTES.max(self.queued_bytes()) {
            self.queue.drain(..self.written);
            self.written = 0;
        }
    }

    async fn write_queue(&mut self) -> io::Result<()> {
        while let Some(rest @ [_, ..]) = self.queue.get(self.written..) {
            match self.stream.write(rest).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                count => self.written += count,
            }
        }
        self.stream.flush().await
    }

    fn full(&self, more: usize) -> ChannelError {
        let (queued, max) = (self.queued_bytes(), QUEUE_BYTES_MAX);
        ChannelError::QueueFull {
            peer: self.peer.clone(),
            queued,
            more,
            max,
        }
    }
}

impl fmt::Debug for RecordWriter {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let queued = self.queued_bytes();
        formatter
            .debug_struct("RecordWriter")
            .field("peer", &self.peer)
            .field("queued", &queued)
            .finish()
    }
}
