//! The file `IMAGE.changed`: which blocks of an image may have been written since states in which
//! it was equal to the image of the other side. Where both sides have such a file for the same
//! state, their images differ in blocks that one of them has marked, and nowhere else.
//!
//! A block is marked before it is written. The file has a page with a text (kind and version, size
//! of the disk, the image's file, the states, checksum) and then the bits; it is
//! replaced as a whole when it begins, and after that bits are only added. Where there is no such
//! file, everything may have changed.

mod batch;
mod bits;
mod sealed;
#[cfg(test)]
mod tests;

use super::super::error::{ImageError, failed};
use super::super::kinds::{COPY_BLOCK_BYTES, SIZE_BYTES_MAX};
use super::text::{Sealed, seal, unseal};
use super::{path_beside, sync_folder};
use crate::name::{Hex, from_hex};
use batch::{Batch, Page};
use bits::Bits;
use lockstep_generation::Generation;
use lockstep_regular_file as regular_file;
use sealed::{Key, SEALED_BYTES};
use std::fmt::{self, Write as _};
use std::fs::{self, File};
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::UNIX_EPOCH;

/// The end of its name.
const SUFFIX: &str = ".changed";
/// The end of the name under which it begins.
const TEMPORARY_SUFFIX: &str = ".changed-new";

/// Its kind, and the version of its format.
const KIND: &str = "lockstep-changed";
const VERSION: u32 = 1;

/// Bytes of the text, with the zeroes behind it.
const HEADER_BYTES: usize = 4096;

/// States that a file names at most: with the other lines, their 8 times 75 bytes fit the header.
pub const EQUAL_MAX: usize = 8;

/// Bytes of such a file at most: the text, and a bit for each block of the largest disk in pages of
/// 4,096 bytes with their checksums, a little more than 32 MiB.
const BYTES_MAX: u64 = 34 << 20;

const _: () = assert!(
    (Bits::length_bytes(SIZE_BYTES_MAX / COPY_BLOCK_BYTES) / bits::PAGE_BYTES * SEALED_BYTES + HEADER_BYTES)
        as u64
        <= BYTES_MAX
);

/// A state in which the images of both sides were equal, and durable.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Equal {
    /// Name of the join by which the images became equal. No other join has it.
    pub join: [u8; 16],
    /// Number of the state since then.
    pub number: u64,
    /// Generation of the machine at that join.
    pub generation: Generation,
}

impl fmt::Display for Equal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {} {}", Hex(&self.join), self.number, self.generation)
    }
}

impl Equal {
    fn parse(text: &str) -> Option<Self> {
        let (join, rest) = text.split_once(' ')?;
        let (number, generation) = rest.split_once(' ')?;
        Some(Self {
            join: from_hex(join)?,
            number: number.parse().ok()?,
            generation: Generation(generation.parse().ok()?),
        })
    }
}

/// What the text of a file says.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Header {
    size_bytes: u64,
    /// The image's file.
    image: String,
    equal: Vec<Equal>,
}

/// Blocks of an image that may have been written since states in which it was equal to another.
#[derive(Debug)]
pub struct ChangedBlocks {
    file: File,
    key: Key,
    header: Header,
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

    /// Begins with `blocks` marked, in place of what there is: outside of them the image is what it
    /// was in each of the states `equal`, durably.
    ///
    /// # Errors
    /// [`ImageError::File`]
    pub fn begin(
        image: &Path,
        size_bytes: u64,
        equal: &[Equal],
        blocks: &[Range<u64>],
    ) -> Result<Self, ImageError> {
        let (path, temporary) = (Self::path(image), path_beside(image, TEMPORARY_SUFFIX));
        let mut bits = Bits::new(blocks_of(size_bytes));
        for range in blocks {
            bits.set(range.clone());
        }
        let begun = file_of(image).and_then(|image| {
            let header = Header {
                size_bytes,
                image,
                equal: equal.iter().take(EQUAL_MAX).copied().collect(),
            };
            let (file, key) = begin_file(&temporary, &header, &bits)?;
            fs::rename(&temporary, &path)?;
            sync_folder(&path)?;
            Ok((file, key, header))
        });
        let (file, key, header) = begun.map_err(|error| {
            // The next one who begins replaces it.
            let _ = fs::remove_file(&temporary);
            failed(&path, "begin what is beside the")(error)
        })?;
        Ok(Self::new(file, key, header, bits))
    }

    /// Opens what is beside `image`, whose disk has `size_bytes`; `None` where there is nothing:
    /// everything may have changed.
    ///
    /// # Errors
    /// [`ImageError`]: also where it is of another file, or of a disk of another size. Everything
    /// may have changed, then, too.
    pub fn open(image: &Path, size_bytes: u64) -> Result<Option<Self>, ImageError> {
        let path = Self::path(image);
        let bytes = match regular_file::read(&path, BYTES_MAX) {
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
            other => other.map_err(failed(&path, "read what is beside the"))?,
        };
        let (header, key) = read_header(&bytes, &path)?;
        let damaged = |why| ImageError::Beside {
            path: path.clone(),
            why,
        };
        if header.size_bytes != size_bytes {
            return Err(damaged("it is of a disk of another size"));
        }
        if header.image != file_of(image).map_err(failed(image, "find"))? {
            return Err(damaged("it is of another file than the image is now"));
        }
        let sealed = bytes.get(HEADER_BYTES..).unwrap_or_default();
        let pages = Bits::length_bytes(blocks_of(size_bytes)) / bits::PAGE_BYTES;
        if sealed.len() != pages * SEALED_BYTES {
            return Err(damaged("it is not as long as its disk needs"));
        }
        let bits = sealed::unseal(&key, sealed).ok_or_else(|| damaged("its marks are damaged"))?;
        let bits = Bits::from_bytes(bits, blocks_of(size_bytes));
        let bits = bits.ok_or_else(|| damaged("it is not as long as its disk needs"))?;
        let file = regular_file::open_to_write(&path).map_err(failed(&path, "open what is beside the"))?;
        Ok(Some(Self::new(file, key, header, bits)))
    }

    fn new(file: File, key: Key, header: Header, bits: Bits) -> Self {
        Self {
            file,
            key,
            header,
            batch: Mutex::new(Batch::new(bits)),
            written: Condvar::new(),
        }
    }

    /// States since which only marked blocks may have been written.
    #[must_use]
    pub fn equal(&self) -> &[Equal] {
        &self.header.equal
    }

    /// Marks blocks, and returns when that is durable: they may be written then, and not before.
    /// Callers that come together share a sync; for blocks that are marked already there is
    /// nothing to do.
    ///
    /// # Errors
    /// The system's. The blocks may not be written; asking again writes the marks again.
    pub fn mark(&self, blocks: Range<u64>) -> io::Result<()> {
        let blocks = blocks.start..blocks.end.min(blocks_of(self.header.size_bytes));
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

    /// Removes what is beside `image`, durably, if there is something: everything may have changed.
    ///
    /// # Errors
    /// [`ImageError::File`]
    pub fn remove(image: &Path) -> Result<(), ImageError> {
        let path = Self::path(image);
        let removed = match fs::remove_file(&path) {
            // It may have been removed before, by a try whose sync failed.
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(()),
            other => other,
        };
        removed
            .and_then(|()| sync_folder(&path))
            .map_err(failed(&path, "remove what is beside the"))
    }

    fn batch(&self) -> MutexGuard<'_, Batch> {
        self.batch.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self, pages: &[Page]) -> io::Result<()> {
        for (page, content) in pages {
            let sealed = sealed::seal(&self.key, *page, content);
            self.file.write_all_at(&sealed, place(*page))?;
        }
        self.file.sync_data()
    }
}

/// Place of a page of bits in the file, behind the text.
fn place(page: usize) -> u64 {
    (HEADER_BYTES as u64).saturating_add((page as u64).saturating_mul(SEALED_BYTES as u64))
}

const fn blocks_of(size_bytes: u64) -> u64 {
    size_bytes.div_ceil(COPY_BLOCK_BYTES)
}

/// What tells the file of an image from another that has its name later: its number, and when it
/// was made, where the file system knows that.
fn file_of(image: &Path) -> io::Result<String> {
    let metadata = fs::metadata(image)?;
    let made = metadata.created().ok();
    let made = made.and_then(|made| made.duration_since(UNIX_EPOCH).ok());
    let made_ns = made.map_or(0, |made| made.as_nanos());
    Ok(format!("{} {made_ns}", metadata.ino()))
}

/// Makes the whole file, with the room for all bits: marking must not fail for want of it.
fn begin_file(path: &Path, header: &Header, bits: &Bits) -> io::Result<(File, Key)> {
    let mut options = File::options();
    let file = options
        .read(true)
        .write(true)
        .create(true)
        .truncate(true)
        .open(path)?;
    let (mut content, key) = header.encode()?;
    for page in 0..Bits::length_bytes(blocks_of(header.size_bytes)) / bits::PAGE_BYTES {
        content.extend(sealed::seal(&key, page, bits.page(page)));
    }
    file.write_all_at(&content, 0)?;
    file.sync_all()?;
    Ok((file, key))
}

impl Header {
    /// The header, and what its checksum makes the key of the pages.
    fn encode(&self) -> io::Result<(Vec<u8>, Key)> {
        let Self {
            size_bytes,
            image,
            equal,
        } = self;
        let mut text = format!("{KIND} {VERSION}\nsize {size_bytes}\n");
        // Writing into a string cannot fail.
        let _ = writeln!(text, "image {image}");
        for equal in equal {
            let _ = writeln!(text, "equal {equal}");
        }
        let mut page = seal(text).into_bytes();
        let key = key_of(&page).ok_or_else(|| io::Error::other("it has no checksum"))?;
        page.resize(HEADER_BYTES, 0);
        Ok((page, key))
    }

    /// Reads the lines below the first.
    fn decode(body: &str) -> Option<Self> {
        let mut lines = body.lines();
        let mut value = |key: &str| lines.next()?.strip_prefix(key)?.strip_prefix(' ');
        Some(Self {
            size_bytes: value("size")?.parse().ok()?,
            image: value("image")?.to_owned(),
            equal: lines
                .map_while(|line| line.strip_prefix("equal "))
                .map(Equal::parse)
                .collect::<Option<Vec<_>>>()
                .filter(|equal| equal.len() <= EQUAL_MAX)?,
        })
    }
}

/// The checksum at the end of a text.
fn key_of(text: &[u8]) -> Option<Key> {
    let last = str::from_utf8(text).ok()?.lines().last()?;
    from_hex(last.strip_prefix("check ")?)
}

fn read_header(bytes: &[u8], path: &Path) -> Result<(Header, Key), ImageError> {
    let page = bytes.get(..HEADER_BYTES).unwrap_or(bytes);
    let end = page.iter().position(|byte| *byte == 0).unwrap_or(page.len());
    let text = page.get(..end).unwrap_or_default();
    let path = path.to_owned();
    let body = match unseal(text, KIND, VERSION) {
        Sealed::Body(body) => body,
        Sealed::Version(found) => {
            let known = VERSION;
            return Err(ImageError::Version { path, found, known });
        }
        Sealed::Damaged(why) => return Err(ImageError::Beside { path, why }),
    };
    let why = "a line is missing or wrong";
    let read = Header::decode(body).zip(key_of(text));
    read.ok_or(ImageError::Beside { path, why })
}
