//! The image of a disk that both sides of a pair share: opened by the side that acts, and only by
//! that.

use super::storage::{NamedImage, Storage};
use crate::error::RunError;
use lockstep_core::machine::disk::Operation;
use lockstep_shared_disk::image::{Image, Options, QCOW2_MAGIC, RawFile};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

/// The image. Until it is opened nothing can be done with it.
#[derive(Debug)]
pub struct SharedImage {
    path: PathBuf,
    options: Options,
    size_bytes: u64,
    image: OnceLock<NamedImage>,
}

impl SharedImage {
    /// The image at `path`, which is looked at, and not opened.
    ///
    /// # Errors
    /// [`RunError`]: it is not a raw image of whole blocks.
    pub fn find(path: &Path, options: Options) -> Result<Self, RunError> {
        let failed = |source| RunError::File {
            action: "read the disk image",
            path: path.to_owned(),
            source,
        };
        let mut file = lockstep_regular_file::open(path).map_err(failed)?;
        let size_bytes = file.metadata().map_err(failed)?.len();
        let refused = |why: &str| RunError::setting("disk", format!("{}: {why}", path.display()));
        if size_bytes == 0 || !size_bytes.is_multiple_of(u64::from(options.block_bytes)) {
            return Err(refused("a disk has whole blocks, and at least one"));
        }
        let mut magic = QCOW2_MAGIC;
        magic.reverse();
        file.read_exact(&mut magic).map_err(failed)?;
        if magic == QCOW2_MAGIC {
            return Err(refused("a shared disk is a raw image, and this is qcow2"));
        }
        Ok(Self {
            path: path.to_owned(),
            options,
            size_bytes,
            image: OnceLock::new(),
        })
    }

    /// Its path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Size of the disk.
    #[must_use]
    pub fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    /// Opens and locks it, if `may` be so: the claim of this side was won. `waits` as in
    /// [`Options`].
    ///
    /// # Errors
    /// [`RunError`]: another process has it, it is another one than was found, or those of `may`.
    pub fn open(&self, waits: bool, may: &dyn Fn(&Image) -> Result<(), RunError>) -> Result<(), RunError> {
        if self.image.get().is_some() {
            return Ok(());
        }
        let options = Options {
            waits,
            ..self.options
        };
        let image = Image::open(&self.path, &options)?;
        if image.size_bytes() != self.size_bytes {
            let why = format!(
                "{} has {} bytes now, and the machine was begun with {}",
                self.path.display(),
                image.size_bytes(),
                self.size_bytes
            );
            return Err(RunError::setting("disk", why));
        }
        may(&image)?;
        // Nobody else opens it here.
        let _ = self.image.set(NamedImage::new(Arc::new(image))?);
        Ok(())
    }

    fn image(&self) -> io::Result<&NamedImage> {
        let image = self.image.get();
        image.ok_or_else(|| io::Error::other("this side does not act, and may not touch it"))
    }
}

impl Storage for SharedImage {
    fn read_at(&self, offset_bytes: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.image()?.read_at(offset_bytes, buffer)
    }

    fn write_at(&self, offset_bytes: u64, bytes: &[u8]) -> io::Result<()> {
        self.image()?.write_at(offset_bytes, bytes)
    }

    fn flush(&self) -> io::Result<()> {
        // What was never opened has nothing to be flushed.
        self.image.get().map_or(Ok(()), NamedImage::flush)
    }

    fn discard(&self, offset_bytes: u64, length_bytes: u64) -> io::Result<()> {
        self.image()?.discard(offset_bytes, length_bytes)
    }

    fn write_zeroes(&self, offset_bytes: u64, length_bytes: u64, may_unmap: bool) -> io::Result<()> {
        self.image()?.write_zeroes(offset_bytes, length_bytes, may_unmap)
    }

    /// Others are refused when it is found.
    fn is_raw(&self) -> bool {
        true
    }

    fn whole(&self, operation: &Operation) -> Option<RawFile<'_>> {
        self.image.get()?.whole(operation)
    }
}
