//! The disk as the file needs it.

use core::fmt;

/// A disk, whose functions wait until they are done.
pub trait Storage {
    /// Bytes of the disk.
    fn size_bytes(&self) -> u64;

    /// Bytes of a block: what is read or written begins and ends where one does. A power of two,
    /// from 512 to 4,096.
    fn block_bytes(&self) -> usize;

    /// True if it can be written.
    fn is_writable(&self) -> bool;

    /// Reads.
    ///
    /// # Errors
    /// The disk's.
    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), StorageError>;

    /// Writes. Until the next flush it may be lost.
    ///
    /// # Errors
    /// The disk's.
    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), StorageError>;

    /// Makes durable what was written.
    ///
    /// # Errors
    /// The disk's.
    fn flush(&mut self) -> Result<(), StorageError>;

    /// A number that nobody can guess.
    fn random(&mut self) -> u64;
}

/// Failure of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StorageError {
    /// Read at this byte.
    Read(u64),
    /// Write at this byte.
    Write(u64),
    /// Flush.
    Flush,
}

impl fmt::Display for StorageError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read(offset) => write!(formatter, "the disk does not read at byte {offset}"),
            Self::Write(offset) => write!(formatter, "the disk does not write at byte {offset}"),
            Self::Flush => formatter.write_str("the disk does not flush"),
        }
    }
}
