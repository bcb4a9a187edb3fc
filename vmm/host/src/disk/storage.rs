//! Where a disk's bytes are, and how one request is carried out there.

use crate::error::RunError;
use lockstep_core::machine::disk::{Operation, Request};
use lockstep_logging_channel::ReadData;
use lockstep_shared_disk::image::{Format, Image, RawFile};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::{fs, io};

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

    /// True where they are the bytes of a file.
    fn is_raw(&self) -> bool;

    /// The file, where the system can move the bytes of `operation` as they are, to or from memory
    /// that is aligned as it says.
    fn whole(&self, operation: &Operation) -> Option<RawFile<'_>>;
}

/// An image whose file keeps its name: what is written to a file that was removed would be lost
/// with the process, and nobody would know.
#[derive(Debug)]
pub struct NamedImage {
    image: Arc<Image>,
    /// Device and number of the file.
    file: (u64, u64),
}

impl NamedImage {
    /// The image, by the name that it has now.
    ///
    /// # Errors
    /// [`RunError::File`].
    pub fn new(image: Arc<Image>) -> Result<Self, RunError> {
        let file = file_of(image.path()).map_err(|source| RunError::File {
            action: "find the disk image",
            path: image.path().to_owned(),
            source,
        })?;
        Ok(Self { image, file })
    }

    /// The image.
    #[must_use]
    pub fn image(&self) -> &Image {
        &self.image
    }
}

fn file_of(path: &Path) -> io::Result<(u64, u64)> {
    let metadata = fs::metadata(path)?;
    Ok((metadata.dev(), metadata.ino()))
}

impl Storage for NamedImage {
    fn read_at(&self, offset_bytes: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.image.read_at(offset_bytes, buffer)
    }

    fn write_at(&self, offset_bytes: u64, bytes: &[u8]) -> io::Result<()> {
        self.image.write_at(offset_bytes, bytes)
    }

    /// Refuses where the file is not to be found by its name any more.
    fn flush(&self) -> io::Result<()> {
        match file_of(self.image.path()) {
            Ok(found) if found == self.file => self.image.flush(),
            Ok(_) => Err(io::Error::other("its file is gone, and another one has its name")),
            Err(why) => Err(io::Error::new(why.kind(), format!("its file is gone: {why}"))),
        }
    }

    fn discard(&self, offset_bytes: u64, length_bytes: u64) -> io::Result<()> {
        self.image.discard(offset_bytes, length_bytes)
    }

    fn write_zeroes(&self, offset_bytes: u64, length_bytes: u64, may_unmap: bool) -> io::Result<()> {
        self.image.write_zeroes(offset_bytes, length_bytes, may_unmap)
    }

    fn is_raw(&self) -> bool {
        self.image.format() == Format::Raw
    }

    fn whole(&self, operation: &Operation) -> Option<RawFile<'_>> {
        self.image.whole(operation)
    }
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

    fn is_raw(&self) -> bool {
        self.format() == Format::Raw
    }

    fn whole(&self, operation: &Operation) -> Option<RawFile<'_>> {
        self.whole_blocks(operation.range()?, operation.changes())
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

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_shared_disk::image::{Format, Options, create};

    #[test]
    fn a_file_that_was_moved_away_is_not_flushed_until_it_is_back() {
        let folder = tempfile::TempDir::new().unwrap();
        let (path, elsewhere) = (folder.path().join("a.img"), folder.path().join("b.img"));
        create(&path, 1 << 20, Format::Raw, false).unwrap();
        let image = Arc::new(Image::open(&path, &Options::default()).unwrap());
        let named = NamedImage::new(image).unwrap();
        named.write_at(0, &[7; 512]).unwrap();
        named.flush().unwrap();
        fs::rename(&path, &elsewhere).unwrap();
        assert!(named.flush().unwrap_err().to_string().contains("is gone"));
        fs::write(&path, "another").unwrap();
        assert!(named.flush().unwrap_err().to_string().contains("another one"));
        fs::rename(&elsewhere, &path).unwrap();
        named.flush().unwrap();
    }
}
