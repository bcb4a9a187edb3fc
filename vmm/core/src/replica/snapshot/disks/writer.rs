//! Writing the disks of a snapshot.

use super::{Before, DISKS_HEADER_BYTES, DiskBlock, DisksHeader, HEAD_BYTES, RawHead};
use crate::replica::snapshot::Recording;
use lockstep_logging_channel::Digest;
use std::io::{self, Seek, SeekFrom, Write};
use zerocopy::IntoBytes;

/// Writes one file.
pub struct DisksWriter<W> {
    sink: W,
    heads: blake3::Hasher,
    records: u64,
    body_bytes: u64,
}

impl<W: Write + Seek> DisksWriter<W> {
    /// Begins a file in `sink`, which is empty. Zeros are in the place of its header.
    ///
    /// # Errors
    /// The sink's.
    pub fn new(mut sink: W) -> io::Result<Self> {
        sink.write_all(&[0; DISKS_HEADER_BYTES])?;
        Ok(Self {
            sink,
            heads: blake3::Hasher::new(),
            records: 0,
            body_bytes: 0,
        })
    }

    /// Appends the content of a block. Of several records of a block the last one counts.
    ///
    /// # Errors
    /// The sink's.
    pub fn put(&mut self, block: DiskBlock, bytes: &[u8]) -> io::Result<()> {
        let stored = if bytes.iter().all(|byte| *byte == 0) {
            &[]
        } else {
            bytes
        };
        let head = RawHead {
            disk: block.disk,
            reserved: [0; 3],
            length: (stored.len() as u32).into(),
            block: block.block.into(),
            digest: Digest::of(stored).0,
        };
        self.heads.update(head.as_bytes());
        self.records += 1;
        self.body_bytes += (HEAD_BYTES + stored.len()) as u64;
        self.sink.write_all(head.as_bytes())?;
        self.sink.write_all(stored)
    }

    /// Bytes of the file so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        DISKS_HEADER_BYTES as u64 + self.body_bytes
    }

    /// Writes the header, which makes it the disks of the snapshot of `recording` that begins with
    /// `entry`. Gives the sink and the header back.
    ///
    /// # Errors
    /// The sink's.
    pub fn finish(
        mut self,
        recording: &Recording,
        entry: u64,
        before: Option<Before>,
    ) -> io::Result<(W, DisksHeader)> {
        let header = DisksHeader {
            recording: recording.name,
            machine: recording.machine,
            entry,
            before,
            records: self.records,
            body_bytes: self.body_bytes,
            heads: Digest::from_hash(&self.heads.finalize()),
        };
        self.sink.seek(SeekFrom::Start(0))?;
        self.sink.write_all(&header.encode())?;
        self.sink.flush()?;
        Ok((self.sink, header))
    }
}
