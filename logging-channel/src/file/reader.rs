//! Reading a log file.

use std::fs::File;
use std::io::{self, BufReader, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use crate::codec::{self, COMPACT_FRAME_BYTES};
use crate::{Entry, LogError, Order, Sequence};

/// Bytes asked of the system at once.
const BUFFER_BYTES: usize = 256 * 1024;

/// The entries of a log file, in order.
///
/// A complete log gives its entries and then `None`. A log without an end entry gives its good entries and
/// then [`LogError::CutOff`] once; a damaged one its good entries and then [`LogError::Damaged`] once. After
/// an error there is nothing more.
#[derive(Debug)]
pub struct LogReader<R = BufReader<File>> {
    path: PathBuf,
    input: R,
    record: Vec<u8>,
    order: Order,
    offset: u64,
    entries: u64,
    finished: bool,
}

impl LogReader {
    /// Opens a log file.
    ///
    /// # Errors
    /// [`LogError::File`].
    pub fn open(path: &Path) -> Result<Self, LogError> {
        let file = lockstep_regular_file::open(path);
        let file = file.map_err(|source| LogError::File {
            operation: "open",
            path: path.to_owned(),
            source,
        })?;
        Ok(Self::new(BufReader::with_capacity(BUFFER_BYTES, file), path))
    }
}

impl<R: Read> LogReader<R> {
    /// Reads a log from anywhere; errors call it `path`.
    pub fn new(input: R, path: &Path) -> Self {
        Self {
            path: path.to_owned(),
            input,
            record: Vec::new(),
            order: Order::of_log(),
            offset: 0,
            entries: 0,
            finished: false,
        }
    }

    /// Bytes of the good entries so far.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Good entries so far, those that were skipped included.
    #[must_use]
    pub fn entries(&self) -> u64 {
        self.entries
    }

    fn read_entry(&mut self) -> Result<Option<Entry>, LogError> {
        self.record.clear();
        let Some(length) = self.read_length()? else {
            return Ok(None);
        };
        self.fill(length)?;
        let (entry, _) = codec::decode_entry(&self.record).map_err(|error| self.place(error))?;
        self.order.take(&entry).map_err(|error| self.place(error))?;
        self.offset += length as u64;
        self.entries += 1;
        Ok(Some(entry))
    }

    /// Reads as much of a record as says how long it is: little of a compact one, which is short.
    /// `None` behind the end entry.
    fn read_length(&mut self) -> Result<Option<usize>, LogError> {
        let mut wanted = COMPACT_FRAME_BYTES;
        loop {
            let had = self.record.len();
            self.fill(wanted)?;
            if self.record.is_empty() && self.order.ended() {
                return Ok(None);
            }
            match codec::record_length(&self.record) {
                Ok(length) => return Ok(Some(length)),
                Err(LogError::Truncated { needed, .. }) if self.record.len() > had => wanted = needed,
                Err(error) => return Err(self.place(error)),
            }
        }
    }

    /// Reads until the record has `length` bytes, or the file ends.
    fn fill(&mut self, length: usize) -> Result<(), LogError> {
        let missing = length.saturating_sub(self.record.len()) as u64;
        match self.input.by_ref().take(missing).read_to_end(&mut self.record) {
            Ok(_) => Ok(()),
            Err(source) => Err(self.file_error(source)),
        }
    }

    fn file_error(&self, source: io::Error) -> LogError {
        LogError::File {
            operation: "read",
            path: self.path.clone(),
            source,
        }
    }

    /// Says where in the file `error` is.
    fn place(&self, error: LogError) -> LogError {
        let (path, offset, entries) = (self.path.clone(), self.offset, self.entries);
        match error {
            LogError::Truncated { available, .. } if !self.order.ended() => LogError::CutOff {
                path,
                offset,
                entries,
                partial_bytes: available as u64,
            },
            error => LogError::Damaged {
                path,
                offset,
                entries,
                source: Box::new(error),
            },
        }
    }
}

impl<R: Read + Seek> LogReader<R> {
    /// Goes on with entry `next`, which begins at byte `offset` and is not before `position` in the
    /// execution. Entries before it are not looked at.
    ///
    /// # Errors
    /// [`LogError::TooShort`], [`LogError::File`].
    pub fn skip_to(&mut self, next: Sequence, offset: u64, position: (u64, u64)) -> Result<(), LogError> {
        let bytes = self
            .input
            .seek(SeekFrom::End(0))
            .map_err(|why| self.file_error(why))?;
        if bytes < offset {
            return Err(LogError::TooShort {
                path: self.path.clone(),
                bytes,
                entry: next,
                offset,
            });
        }
        let there = self.input.seek(SeekFrom::Start(offset));
        there.map_err(|why| self.file_error(why))?;
        self.order = Order::of_log_from(next, position);
        self.offset = offset;
        self.entries = next.0;
        self.finished = false;
        Ok(())
    }
}

impl<R: Read> Iterator for LogReader<R> {
    type Item = Result<Entry, LogError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.finished {
            return None;
        }
        let item = self.read_entry().transpose();
        self.finished = !matches!(item, Some(Ok(_)));
        item
    }
}

impl<R: Read> std::iter::FusedIterator for LogReader<R> {}
