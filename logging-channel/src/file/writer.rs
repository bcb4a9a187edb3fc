//! Appending to a log file.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use crate::{Entry, LogError, Order, codec};

/// Bytes gathered before they are given to the system: a write costs about as much as encoding this
/// many.
const BUFFER_BYTES: usize = 64 * 1024;

/// What to do where the log file exists already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Existing {
    /// Leave it alone and fail.
    Refuse,
    /// Empty it.
    Overwrite,
}

/// Appends entries to a log file. What is buffered is written by [`LogWriter::flush`], at the
/// latest when the writer is dropped.
///
/// When the system refuses a write (the disk is full), the error names the file, and what could not
/// be written is kept: a later [`LogWriter::flush`] tries it again, from the byte where it stopped.
#[derive(Debug)]
pub struct LogWriter {
    path: PathBuf,
    file: File,
    buffer: Vec<u8>,
    order: Order,
    /// Bytes given to the system.
    written: u64,
    /// The file did not exist before.
    is_new: bool,
    /// The system has refused what is in the buffer, and the caller was told.
    is_refused: bool,
}

impl LogWriter {
    /// Creates the log file.
    ///
    /// # Errors
    /// [`LogError::Exists`], [`LogError::File`].
    pub fn create(path: &Path, existing: Existing) -> Result<Self, LogError> {
        let opened = match existing {
            Existing::Refuse => {
                let created = OpenOptions::new().write(true).create_new(true).open(path);
                created.and_then(|file| lockstep_regular_file::lock(&file).map(|()| file))
            }
            // A FIFO would wait for its reader, and neither it nor a device can be synced.
            Existing::Overwrite => lockstep_regular_file::create_or_empty(path),
        };
        let file = opened.map_err(|source| match source.kind() {
            io::ErrorKind::AlreadyExists => LogError::Exists {
                path: path.to_owned(),
            },
            _ => LogError::File {
                operation: "create",
                path: path.to_owned(),
                source,
            },
        })?;
        let buffer = Vec::with_capacity(BUFFER_BYTES + codec::RECORD_BYTES_MAX);
        Ok(Self {
            path: path.to_owned(),
            file,
            buffer,
            order: Order::of_log(),
            written: 0,
            is_new: existing == Existing::Refuse,
            is_refused: false,
        })
    }

    /// Appends one entry, which must be the next one.
    ///
    /// # Errors
    /// Those of [`Order::take`] and [`codec::encode_entry`]: the entry is not in the log.
    /// [`LogError::File`]: the log could not be written; the entry is not in it.
    pub fn append(&mut self, entry: &Entry) -> Result<(), LogError> {
        if self.buffer.len() >= BUFFER_BYTES {
            self.flush()?;
        }
        let mut order = self.order.clone();
        order.take(entry)?;
        codec::encode_entry(entry, &mut self.buffer)?;
        self.order = order;
        Ok(())
    }

    /// Gives everything appended so far to the system.
    ///
    /// # Errors
    /// [`LogError::File`].
    pub fn flush(&mut self) -> Result<(), LogError> {
        let (written, result) = write_some(&mut self.file, &self.buffer);
        self.buffer.drain(..written);
        self.written += written as u64;
        self.is_refused = result.is_err();
        result.map_err(|source| self.error("write", source))
    }

    /// Gives up a log that could not be begun. Its file is removed where it did not exist before:
    /// another try would find it.
    pub fn discard(mut self) {
        self.buffer.clear();
        if self.is_new {
            // Whoever discards a log has an error to report already.
            let _ = std::fs::remove_file(&self.path);
        }
    }

    /// Flushes, and waits until the disk has it.
    ///
    /// # Errors
    /// [`LogError::File`].
    pub fn sync(&mut self) -> Result<(), LogError> {
        self.flush()?;
        self.file.sync_data().map_err(|source| self.error("sync", source))
    }

    /// Bytes of entries that are appended and not yet given to the system.
    #[must_use]
    pub fn buffered_bytes(&self) -> usize {
        self.buffer.len()
    }

    /// Bytes of all entries that are appended: where the next one begins.
    #[must_use]
    pub fn offset(&self) -> u64 {
        self.written + self.buffer.len() as u64
    }

    /// The log file.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    fn error(&self, operation: &'static str, source: io::Error) -> LogError {
        LogError::File {
            operation,
            path: self.path.clone(),
            source,
        }
    }
}

impl Drop for LogWriter {
    fn drop(&mut self) {
        // What the caller was told is not told again.
        let is_told = self.is_refused;
        if let Err(error) = self.flush()
            && !is_told
        {
            let lost_bytes = self.buffer.len();
            tracing::error!(lost_bytes, cause = %source_text(&error), "{error}");
        }
    }
}

fn source_text(error: &LogError) -> String {
    std::error::Error::source(error).map_or_else(String::new, ToString::to_string)
}

/// Writes as much as the system takes, and says how much that was.
fn write_some(file: &mut impl Write, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    loop {
        match bytes.get(written..) {
            None | Some([]) => return (written, Ok(())),
            Some(rest) => match file.write(rest) {
                Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
                Ok(count) => written += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return (written, Err(error)),
            },
        }
    }
}
