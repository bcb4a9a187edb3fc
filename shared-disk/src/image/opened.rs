//! An image that is open.

use super::error::ImageError;
use super::kinds::{Access, Base, Format, Opened, Options, RawFile};
use super::lock::Lock;
use super::qcow2::Qcow2;
use super::qcow2::check::Checked;
use super::raw::Raw;
use super::{create, probe};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

#[derive(Debug)]
pub(super) enum Content {
    Raw(Raw),
    Qcow2(Qcow2),
}

/// A disk image that is open, and locked.
#[derive(Debug)]
pub struct Image {
    path: PathBuf,
    pub(super) content: Content,
    size_bytes: u64,
    block_bytes: u32,
    read_only: bool,
    /// The base of an overlay, whose lock is held as long.
    base: Option<Arc<Image>>,
    /// A sync has failed: the system has forgotten what it did not write, and the next sync would
    /// report success.
    pub(super) unsynced: Mutex<bool>,
    /// The last to be dropped. A file without a name has none.
    _lock: Option<Lock>,
}

impl Image {
    /// Opens the image `path` and locks it.
    ///
    /// # Errors
    /// [`ImageError`]
    pub fn open(path: &Path, options: &Options) -> Result<Self, ImageError> {
        let (opened, lock) = probe::open(path, options)?;
        let format = match options.format {
            Some(format) => format,
            None => probe::format(&opened.file, path, opened.bytes)?,
        };
        if format == Format::Qcow2 && !probe::is_qcow2(&opened.file, path, opened.bytes)? {
            let (path, wanted) = (path.to_owned(), format);
            return Err(ImageError::NotIn { path, wanted });
        }
        Self::new(opened, Some(lock), format, options, None)
    }

    fn new(
        opened: Opened,
        lock: Option<Lock>,
        format: Format,
        options: &Options,
        base: Option<Arc<Self>>,
    ) -> Result<Self, ImageError> {
        let (path, read_only) = (opened.path.clone(), opened.read_only);
        let (content, size_bytes) = match format {
            Format::Raw => {
                // Before O_DIRECT is decided by it.
                probe::check_size(&path, opened.bytes, options.block_bytes)?;
                let raw = Raw::new(opened.file, opened.bytes, opened.direct, read_only);
                (Content::Raw(raw), opened.bytes)
            }
            Format::Qcow2 => {
                let qcow2 = Qcow2::open(opened, base.as_deref().map(Self::as_base))?;
                let size_bytes = qcow2.size_bytes();
                (Content::Qcow2(qcow2), size_bytes)
            }
        };
        probe::check_size(&path, size_bytes, options.block_bytes)?;
        Ok(Self {
            path,
            content,
            size_bytes,
            block_bytes: options.block_bytes,
            read_only,
            base,
            unsynced: Mutex::new(false),
            _lock: lock,
        })
    }

    /// Opens the overlay `path` of `base`, which is open to be read only.
    ///
    /// # Errors
    /// [`ImageError`]
    pub fn overlay(path: &Path, base: Arc<Self>, options: &Options) -> Result<Self, ImageError> {
        let (opened, lock) = probe::open(path, options)?;
        Self::over(opened, Some(lock), base, options)
    }

    fn over(
        opened: Opened,
        lock: Option<Lock>,
        base: Arc<Self>,
        options: &Options,
    ) -> Result<Self, ImageError> {
        let (path, wanted) = (opened.path.clone(), base.size_bytes);
        let image = Self::new(opened, lock, Format::Qcow2, options, Some(base))?;
        if image.size_bytes == wanted {
            return Ok(image);
        }
        Err(ImageError::Size {
            path,
            size_bytes: image.size_bytes,
            why: format!("its base has {wanted}"),
        })
    }

    /// Makes the overlay `path` of `base`, which is open to be read only, and opens it.
    ///
    /// # Errors
    /// [`ImageError`]: also where `path` exists.
    pub fn create_overlay(path: &Path, base: Arc<Self>, options: &Options) -> Result<Self, ImageError> {
        create::overlay(path, base.as_base())?;
        Self::overlay(path, base, options)
    }

    /// Makes an overlay of `base` in a file of `folder` that has no name: it is gone with the
    /// process.
    ///
    /// # Errors
    /// [`ImageError`]
    pub fn throwaway_overlay(folder: &Path, base: Arc<Self>, options: &Options) -> Result<Self, ImageError> {
        let opened = create::throwaway(folder, base.as_base(), options)?;
        Self::over(opened, None, base, options)
    }

    /// Path by which it was opened.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Its format: that of an overlay is qcow2.
    #[must_use]
    pub fn format(&self) -> Format {
        match self.content {
            Content::Raw(_) => Format::Raw,
            Content::Qcow2(_) => Format::Qcow2,
        }
    }

    /// Size of the disk: a multiple of the block, and not 0.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Size of the guest's blocks.
    #[must_use]
    pub fn block_bytes(&self) -> u32 {
        self.block_bytes
    }

    /// True if it is not written.
    #[must_use]
    pub fn read_only(&self) -> bool {
        self.read_only
    }

    /// The base of an overlay.
    #[must_use]
    pub fn base(&self) -> Option<&Arc<Self>> {
        self.base.as_ref()
    }

    /// Way in which its bytes reach the file.
    #[must_use]
    pub fn access(&self) -> Access {
        match &self.content {
            Content::Raw(raw) => raw.access(),
            Content::Qcow2(_) => Access::Buffered {
                why: "it is a qcow2 image",
            },
        }
    }

    /// Result of the check that a qcow2 image had when it was opened.
    #[must_use]
    pub fn checked(&self) -> Option<Checked> {
        match &self.content {
            Content::Raw(_) => None,
            Content::Qcow2(qcow2) => Some(qcow2.checked()),
        }
    }

    /// The file of a raw image, for system calls of the caller's own.
    #[must_use]
    pub fn raw(&self) -> Option<RawFile<'_>> {
        match &self.content {
            Content::Raw(raw) => Some(raw.raw_file()),
            Content::Qcow2(_) => None,
        }
    }

    /// The file of a raw image, where the system can move the bytes of `range` as they are: whole
    /// blocks on the disk, of a file that is written if they are to be written.
    #[must_use]
    pub fn whole_blocks(&self, range: Range<u64>, writes: bool) -> Option<RawFile<'_>> {
        let Content::Raw(raw) = &self.content else {
            return None;
        };
        let length_bytes = range.end.checked_sub(range.start)?;
        self.check_range(range.start, length_bytes).ok()?;
        let is_whole = length_bytes > 0 && raw.is_whole(range.start, length_bytes);
        (is_whole && !(writes && self.read_only)).then(|| raw.raw_file())
    }

    /// This image as the base of an overlay.
    fn as_base(&self) -> Base<'_> {
        Base {
            file: self.file(),
            path: &self.path,
            format: self.format(),
            size_bytes: self.size_bytes,
        }
    }

    pub(super) fn file(&self) -> &File {
        match &self.content {
            Content::Raw(raw) => raw.file(),
            Content::Qcow2(qcow2) => qcow2.file(),
        }
    }

    /// Reads `buffer` from the disk's byte `offset_bytes` on.
    ///
    /// # Errors
    /// The system's, and [`ErrorKind::InvalidInput`] beyond the end.
    pub fn read_at(&self, offset_bytes: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.check_range(offset_bytes, buffer.len() as u64)?;
        match &self.content {
            Content::Raw(raw) => raw.read_at(offset_bytes, buffer),
            Content::Qcow2(qcow2) => qcow2.read_at(offset_bytes, buffer),
        }
    }

    /// Writes `bytes` to the disk's byte `offset_bytes` on. They are durable after
    /// [`flush`](Self::flush).
    ///
    /// # Errors
    /// The system's; [`ErrorKind::InvalidInput`] beyond the end, and
    /// [`ErrorKind::ReadOnlyFilesystem`].
    pub fn write_at(&self, offset_bytes: u64, bytes: &[u8]) -> io::Result<()> {
        self.check_range(offset_bytes, bytes.len() as u64)?;
        self.check_writable()?;
        match &self.content {
            Content::Raw(raw) => raw.write_at(offset_bytes, bytes),
            Content::Qcow2(qcow2) => qcow2.write_at(offset_bytes, bytes),
        }
    }

    /// Makes durable what was written. After a sync that failed all later ones fail, because the
    /// system reports such a loss once; so one is made at a time.
    ///
    /// # Errors
    /// The system's.
    pub fn flush(&self) -> io::Result<()> {
        if self.read_only {
            return Ok(());
        }
        // Nothing panics while it is held.
        let mut unsynced = self.unsynced.lock().unwrap_or_else(PoisonError::into_inner);
        if *unsynced {
            return Err(io::Error::other(
                "an earlier sync of this image failed: what was written before it may be lost",
            ));
        }
        let synced = match &self.content {
            Content::Raw(raw) => raw.sync(),
            Content::Qcow2(qcow2) => {
                // Tables that are not written are kept, and written the next time.
                qcow2.write_tables()?;
                qcow2.sync()
            }
        };
        synced.inspect_err(|_| *unsynced = true)
    }

    /// Gives back the room of a range, which reads as zeroes from now on.
    ///
    /// # Errors
    /// Those of [`write_at`](Self::write_at).
    pub fn discard(&self, offset_bytes: u64, length_bytes: u64) -> io::Result<()> {
        self.write_zeroes(offset_bytes, length_bytes, true)
    }

    /// Writes zeroes to a range, and gives back its room where `may_unmap`.
    ///
    /// # Errors
    /// Those of [`write_at`](Self::write_at).
    pub fn write_zeroes(&self, offset_bytes: u64, length_bytes: u64, may_unmap: bool) -> io::Result<()> {
        self.check_range(offset_bytes, length_bytes)?;
        self.check_writable()?;
        if length_bytes == 0 {
            return Ok(());
        }
        match &self.content {
            Content::Raw(raw) => raw.zero(offset_bytes, length_bytes, may_unmap),
            Content::Qcow2(qcow2) => qcow2.zero(offset_bytes, length_bytes, may_unmap),
        }
    }

    fn check_range(&self, offset_bytes: u64, length_bytes: u64) -> io::Result<()> {
        let end = offset_bytes.checked_add(length_bytes);
        if end.is_some_and(|end| end <= self.size_bytes) {
            return Ok(());
        }
        Err(io::Error::new(
            ErrorKind::InvalidInput,
            format!(
                "{length_bytes} bytes at {offset_bytes} are not on a disk of {}",
                self.size_bytes
            ),
        ))
    }

    fn check_writable(&self) -> io::Result<()> {
        if self.read_only {
            return Err(ErrorKind::ReadOnlyFilesystem.into());
        }
        Ok(())
    }
}
