//! Where a disk's bytes are, and how one request is carried out there.

use lockstep_core::machine::disk::{Operation, Request};
use lockstep_logging_channel::ReadData;
use lockstep_shared_disk::image::Image;
use std::io;

/// Where a disk's bytes are. Calls block.
#[allow(clippy::missing_errors_doc, reason = "the system's, of each call")]
pub trait Storage: Send + Sync {
    /// Reads bytes.
    fn read_at(&self, offset_bytes: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Writes bytes. They may be lost with the host until the next flush.
    fn write_at(&self, offset_bytes: u64, bytes: &[u8]) -> io::Result<()>;

    /// Makes what was written durable.
    fn flush(&self) -> io::Result<()>;

    /// Gives room back. The bytes read as zeros afterwards.
    fn discard(&self, offset_bytes: u64, length_bytes: u64) -> io::Result<()>;

    /// Writes zeros.
    fn write_zeroes(&self, offset_bytes: u64, length_bytes: u64, may_unmap: bool) -> io::Result<()>;
}

impl Storage for Image {
    fn read_at(&self, offset_bytes: u64, buffer: &mut [u8]) -> io::Result<()> {
        Self::read_at(self, offset_bytes, buffer)
    }

    fn write_at(&self, offset_bytes: u64, bytes: &[u8]) -> io::Result<()> {
        Self::write_at(self, offset_bytes, bytes)
    }

    fn flush(&self) -> io::Result<()> {
        Self::flush(self)
    }

    fn discard(&self, offset_bytes: u64, length_bytes: u64) -> io::Result<()> {
        Self::discard(self, offset_bytes, length_bytes)
    }

    fn write_zeroes(&self, offset_bytes: u64, length_bytes: u64, may_unmap: bool) -> io::Result<()> {
        Self::write_zeroes(self, offset_bytes, length_bytes, may_unmap)
    }
}

/// Carries `request` out. Gives the bytes that it has read.
///
/// # Errors
/// The system's.
pub fn carry_out(storage: &dyn Storage, request: &Request) -> io::Result<ReadData> {
    let done = match &request.operation {
        Operation::Read {
            offset_bytes,
            length_bytes,
        } => {
            let mut bytes = vec![0; *length_bytes as usize];
            storage.read_at(*offset_bytes, &mut bytes)?;
            return Ok(ReadData::Bytes(bytes));
        }
        Operation::Write { offset_bytes, bytes } => storage.write_at(*offset_bytes, bytes),
        Operation::Flush => storage.flush(),
        Operation::Discard {
            offset_bytes,
            length_bytes,
        } => storage.discard(*offset_bytes, *length_bytes),
        Operation::WriteZeroes {
            offset_bytes,
            length_bytes,
            may_unmap,
        } => storage.write_zeroes(*offset_bytes, *length_bytes, *may_unmap),
    };
    done.map(|()| ReadData::Nothing)
}

/// A request in words, for the operator.
#[must_use]
pub fn described(operation: &Operation) -> String {
    match operation {
        Operation::Read {
            offset_bytes,
            length_bytes,
        } => format!("read {length_bytes} bytes at {offset_bytes}"),
        Operation::Write { offset_bytes, bytes } => format!("write {} bytes at {offset_bytes}", bytes.len()),
        Operation::Flush => "be flushed".to_owned(),
        Operation::Discard {
            offset_bytes,
            length_bytes,
        } => format!("discard {length_bytes} bytes at {offset_bytes}"),
        Operation::WriteZeroes {
            offset_bytes,
            length_bytes,
            ..
        } => format!("write {length_bytes} bytes of zeros at {offset_bytes}"),
    }
}
