//! Records out of a stream.

use std::fmt;
use std::ops::Range;

use tokio::io::{AsyncRead, AsyncReadExt};

use super::ChannelError;
use crate::codec::{self, RECORD_BYTES_MAX, Record};
use crate::{LogError, Order};

/// Bytes held at most: what was left of one record, which is less than the longest, and room for as much
/// again, so that a read never waits for room.
const BUFFER_BYTES: usize = 2 * RECORD_BYTES_MAX;

/// Reads records from a peer, and checks that log entries come in their order.
pub struct RecordReader {
    stream: Box<dyn AsyncRead + Send + Unpin>,
    peer: String,
    buffer: Vec<u8>,
    /// Where in `buffer` the last record read lies. What follows it was not read yet.
    last: Range<usize>,
    order: Order,
}

impl RecordReader {
    pub(super) fn new(stream: Box<dyn AsyncRead + Send + Unpin>, peer: String) -> Self {
        let buffer = Vec::with_capacity(BUFFER_BYTES);
        Self {
            stream,
            peer,
            buffer,
            last: 0..0,
            order: Order::of_stream(),
        }
    }

    /// The next record; `None` where the peer closed after a whole one.
    ///
    /// May be dropped at any time (in `select!`) and called again: what was received stays in the reader.
    ///
    /// # Errors
    /// [`ChannelError::Received`], [`ChannelError::ClosedInRecord`], [`ChannelError::Broken`]. The
    /// connection is of no use after any of them.
    pub async fn read(&mut self) -> Result<Option<Record>, ChannelError> {
        loop {
            if let Some(record) = self.buffered()? {
                return Ok(Some(record));
            }
            if self.receive().await? == 0 {
                return self.closed();
            }
        }
    }

    /// The next record if it is here already. Never waits.
    ///
    /// # Errors
    /// [`ChannelError::Received`].
    pub fn buffered(&mut self) -> Result<Option<Record>, ChannelError> {
        match codec::decode(self.unread()) {
            Ok((record, length)) => {
                self.check_order(&record)?;
                self.last = self.last.end..self.last.end + length;
                Ok(Some(record))
            }
            Err(LogError::Truncated { .. }) => Ok(None),
            Err(source) => Err(self.received(source)),
        }
    }

    /// The bytes of the last record read, until the next is read. Empty before the first.
    #[must_use]
    pub fn record_bytes(&self) -> &[u8] {
        self.buffer.get(self.last.clone()).unwrap_or_default()
    }

    /// What errors call the peer.
    #[must_use]
    pub fn peer(&self) -> &str {
        &self.peer
    }

    fn unread(&self) -> &[u8] {
        self.buffer.get(self.last.end..).unwrap_or_default()
    }

    fn check_order(&mut self, record: &Record) -> Result<(), ChannelError> {
        match record {
            Record::Entry(entry) => self.order.take(entry).map_err(|source| self.received(source)),
            Record::Message(_) => Ok(()),
        }
    }

    /// Takes what the stream has; 0 where it is closed. The only wait, and it loses nothing when dropped:
    /// bytes are in the buffer or still in the stream.
    async fn receive(&mut self) -> Result<usize, ChannelError> {
        self.buffer.drain(..self.last.end);
        self.last = 0..0;
        let result = self.stream.read_buf(&mut self.buffer).await;
        result.map_err(|source| ChannelError::Broken {
            peer: self.peer.clone(),
            source,
        })
    }

    fn closed(&self) -> Result<Option<Record>, ChannelError> {
        match self.unread().len() {
            0 => Ok(None),
            bytes => Err(ChannelError::ClosedInRecord {
                peer: self.peer.clone(),
                bytes,
            }),
        }
    }

    fn received(&self, source: LogError) -> ChannelError {
        ChannelError::Received {
            peer: self.peer.clone(),
            source,
        }
    }
}

impl fmt::Debug for RecordReader {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unread = self.unread().len();
        formatter
            .debug_struct("RecordReader")
            .field("peer", &self.peer)
            .field("unread", &unread)
            .finish()
    }
}
