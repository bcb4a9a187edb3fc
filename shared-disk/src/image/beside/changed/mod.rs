//! The file `IMAGE.changed`: which blocks of an image have been written since its peer was lost, so
//! that a peer that comes back is sent these, and not the whole image.
//!
//! A block is marked before it is written. The file has a page with a text (kind and version, size
//! of the disk, generation, checksum) and then the bits; it is replaced as a whole when it begins,
//! and after that bits are only added. Where there is no such file, everything may have changed.

mod batch;
mod bits;
#[cfg(test)]
mod tests;

use super::super::error::{ImageError, failed};
use super::super::kinds::{COPY_BLOCK_BYTES, SIZE_BYTES_MAX};
use super::text::{Sealed, seal, unseal};
use super::{path_beside, sync_folder};
use batch::{Batch, Page};
use bits::{Bits, PAGE_BYTES};
use lockstep_generation::Generation;
use lockstep_regular_file as regular_file;
use nix::fcntl::{FallocateFlags, fallocate};
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The end of its name.
const SUFFIX: &str = ".changed";
/// The end of the name under which it begins.
const TEMPORARY_SUFFIX: &str = ".changed-new";

/// Its kind, and the version of its format.
const KIND: &str = "lockstep-changed";
const VERSION: u32 = 1;

/// Bytes of such a file at most: the text, and a bit for each block of the largest disk, 32 MiB.
const BYTES_MAX: u64 = PAGE_BYTES as u64 + SIZE_BYTES_MAX / COPY_BLOCK_BYTES / 8;

/// Blocks of an image that have been written since its peer was lost.
#[derive(Debug)]
pub struct ChangedBlocks {
    file: File,
    path: PathBuf,
    size_bytes: u64,
    generation: Generation,
    batch: Mutex<Batch>,
    /// Pages are durable, or could not be written.
    written: Condvar,
}

impl ChangedBlocks {
    /// Path of the file beside `image`.
    #[must_use]
    pub fn path(image: &Path) -> PathBuf {
        path_beside(image, SUFFIX)
    }

    /// Begins with no block, in place of what there is. What the lost peer may not have durably
    /// (everything since the last flush that it is known to have made) is marked by the caller
    /// before anything else is written.
    ///
    /// # Errors
    /// [`ImageError::File`]
    pub fn begin(image: &Path, size_bytes: u64, generation: Generation) -> Result<Self, ImageError> {
        let (path, temporary) = (Self::path(image), path_beside(image, TEMPORARY_SUFFIX));
        let bits = Bits::new(blocks_of(size_bytes));
        let begun = begin_file(&temporary, size_bytes, generation)
            .and_then(|file| fs::rename(&temporary, &path).map(|()| file))
            .and_then(|file| sync_folder(&path).map(|()| file));
        let file = begun.map_err(|error| {
            // The next one who begins replaces it.
            let _ = fs::remove_file(&temporary);
            failed(&path, "begin what is beside the")(error)
        })?;
        Ok(Self::new(file, path, size_bytes, generation, bits))
    }

    /// Opens what is beside `image`, whose disk has `size_bytes`; `None` where there is nothing:
    /// everything may have changed.
    ///
    /// # Errors
    /// [`ImageError`]: also where it is of a disk of another size. Everything may have changed,
    /// then, too.
    pub fn open(image: &Path, size_bytes: u64) -> Result<Option<Self>, ImageError> {
        let path = Self::path(image);
        let bytes = match regular_file::read(&path, BYTES_MAX) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            other => other.map_err(failed(&path, "read what is beside the"))?,
        };
        let (recorded_bytes, generation) = read_header(&bytes, &path)?;
        let damaged = |why| ImageError::Beside {
            path: path.clone(),
            why,
        };
        if recorded_bytes != size_bytes {
            return Err(damaged("it is of a disk of another size"));
        }
        let rest = bytes.get(PAGE_BYTES..).unwrap_or_default().to_vec();
        let bits = Bits::from_bytes(rest, blocks_of(size_bytes));
        let bits = bits.ok_or_else(|| damaged("it is not as long as its disk needs"))?;
        let file = regular_file::open_to_write(&path).map_err(failed(&path, "open what is beside the"))?;
        Ok(Some(Self::new(file, path, size_bytes, generation, bits)))
    }

    fn new(file: File, path: PathBuf, size_bytes: u64, generation: Generation, bits: Bits) -> Self {
        Self {
            file,
            path,
            size_bytes,
            generation,
            batch: Mutex::new(Batch::new(bits)),
            written: Condvar::new(),
        }
    }

    /// The generation in which it began.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.generation
    }

    /// Marks the blocks of a range of bytes, and returns when that is durable: they may be written
    /// then, and not before. Callers that come together share a sync; for blocks that are marked
    /// already there is nothing to do.
    ///
    /// # Errors
    /// The system's. The blocks may not be written; asking again writes the marks again.
    pub fn mark(&self, offset_bytes: u64, length_bytes: u64) -> io::Result<()> {
        let end = offset_bytes.saturating_add(length_bytes).min(self.size_bytes);
        if offset_bytes >= end {
            return Ok(());
        }
        let blocks = offset_bytes / COPY_BLOCK_BYTES..end.div_ceil(COPY_BLOCK_BYTES);
        let mut batch = self.batch();
        batch.want(blocks.clone());
        while !batch.is_durable(blocks.clone()) {
            let Some(pages) = batch.start() else {
                batch = self.written.wait(batch).unwrap_or_else(PoisonError::into_inner);
                continue;
            };
            drop(batch);
            let written = self.write(&pages);
            batch = self.batch();
            batch.done(written.is_ok());
            self.written.notify_all();
            written?;
        }
        Ok(())
    }

    /// Numbers of the blocks that are marked, ascending.
    #[must_use]
    pub fn blocks(&self) -> Vec<Range<u64>> {
        self.batch().marked()
    }

    /// Removes the file: the peer has everything, and is armed.
    ///
    /// # Errors
    /// [`ImageError::File`]
    pub fn remove(self) -> Result<(), ImageError> {
        let removed = fs::remove_file(&self.path).and_then(|()| sync_folder(&self.path));
        removed.map_err(failed(&self.path, "remove what is beside the"))
    }

    fn batch(&self) -> MutexGuard<'_, Batch> {
        self.batch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, pages: &[Page]) -> io::Result<()> {
        for (page, content) in pages {
            self.file.write_all_at(content, place(*page))?;
        }
        self.file.sync_data()
    }
}

/// Place of a page of bits in the file, behind the text.
fn place(page: usize) -> u64 {
    (page as u64).saturating_add(1).saturating_mul(PAGE_BYTES as u64)
}

fn blocks_of(size_bytes: u64) -> u64 {
    size_bytes.div_ceil(COPY_BLOCK_BYTES)
}

/// Makes the whole file, with the room for all bits: marking must not fail for want of it.
fn begin_file(path: &Path, size_bytes: u64, generation: Generation) -> io::Result<File> {
    let mut options = File::options();
    let file = options
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)?;
    let text = format!("{KIND} {VERSION}\nsize {size_bytes}\ngeneration {generation}\n");
    let mut page = seal(text).into_bytes();
    page.resize(PAGE_BYTES, 0);
    file.write_all_at(&page, 0)?;
    let length = PAGE_BYTES + Bits::length_bytes(blocks_of(size_bytes));
    file.set_len(length as u64)?;
    match fallocate(&file, FallocateFlags::empty(), 0, length as i64) {
        Ok(()) | Err(nix::Error::EOPNOTSUPP) => {}
        Err(error) => return Err(error.into()),
    }
    file.sync_all()?;
    Ok(file)
}

/// Size of the disk, and generation.
fn read_header(bytes: &[u8], path: &Path) -> Result<(u64, Generation), ImageError> {
    let page = bytes.get(..PAGE_BYTES).unwrap_or(bytes);
    let end = page.iter().position(|byte| *byte == 0).unwrap_or(page.len());
    let text = page.get(..end).unwrap_or_default();
    let body = match unseal(text, KIND, VERSION) {
        Sealed::Body(body) => body,
        Sealed::Version(found) => {
            return Err(ImageError::Version {
                path: path.to_owned(),
                found,
                known: VERSION,
            });
        }
        Sealed::Damaged(why) => {
            return Err(ImageError::Beside {
                path: path.to_owned(),
                why,
            });
        }
    };
    let mut lines = body.lines();
    let mut value = |key: &str| -> Option<&str> { lines.next()?.strip_prefix(key)?.strip_prefix(' ') };
    let mut read = || {
        let size = value("size")?.parse().ok()?;
        Some((size, Generation(value("generation")?.parse().ok()?)))
    };
    read().ok_or(ImageError::Beside {
        path: path.to_owned(),
        why: "a line is missing or wrong",
    })
}
