//! Writing a snapshot.

use super::{HEADER_BYTES, Header, LENGTH_BYTES, Place, Recording};
use lockstep_logging_channel::Digest;
use std::io::{self, Seek, SeekFrom, Write};

/// Writes one snapshot.
pub struct Writer<W> {
    sink: W,
    body: blake3::Hasher,
    body_bytes: u64,
}

impl<W: Write + Seek> Writer<W> {
    /// Begins a snapshot in `sink`, which is empty. Zeros are in the place of its header.
    ///
    /// # Errors
    /// The sink's.
    pub fn new(mut sink: W) -> io::Result<Self> {
        sink.write_all(&[0; HEADER_BYTES])?;
        Ok(Self {
            sink,
            body: blake3::Hasher::new(),
            body_bytes: 0,
        })
    }

    /// Appends a record of the transfer.
    ///
    /// # Errors
    /// The sink's.
    pub fn put(&mut self, record: &[u8]) -> io::Result<()> {
        let length = (record.len() as u32).to_le_bytes();
        self.body.update(&length).update(record);
        self.body_bytes += (LENGTH_BYTES + record.len()) as u64;
        self.sink.write_all(&length)?;
        self.sink.write_all(record)
    }

    /// Bytes of the snapshot so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        HEADER_BYTES as u64 + self.body_bytes
    }

    /// Writes the header, which makes it a snapshot of `recording`. Gives the sink back.
    ///
    /// # Errors
    /// The sink's.
    pub fn finish(mut self, recording: &Recording, place: Place) -> io::Result<W> {
        let Recording {
            name,
            machine,
            memory_bytes,
        } = *recording;
        let header = Header {
            recording: name,
            machine,
            memory_bytes,
            place,
            body_bytes: self.body_bytes,
            body: Digest::from_hash(&self.body.finalize()),
        };
        self.sink.seek(SeekFrom::Start(0))?;
        self.sink.write_all(&header.encode())?;
        self.sink.flush()?;
        Ok(self.sink)
    }
}
