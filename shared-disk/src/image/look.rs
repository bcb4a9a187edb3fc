//! Looks at images without opening them for a machine.

use super::beside::changed::ChangedBlocks;
use super::beside::identity::Identity;
use super::error::{ImageError, failed};
use super::holder::User;
use super::kinds::{BLOCK_BYTES, COPY_BLOCK_BYTES, Format, Opened, Options};
use super::qcow2::check::Checked;
use super::{lock, probe, qcow2};
use lockstep_generation::Generation;
use lockstep_regular_file as regular_file;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Unit of [`MetadataExt::blocks`].
const ALLOCATION_BYTES: u64 = 512;

/// What an image is.
#[derive(Debug)]
pub struct Look {
    /// Its format, where it is one of those that are read.
    pub format: Option<Format>,
    /// Size of the disk, where it is known.
    pub size_bytes: Option<u64>,
    /// Length of the file.
    pub file_bytes: u64,
    /// Room that it takes.
    pub allocated_bytes: u64,
    /// Size of a qcow2 image's clusters.
    pub cluster_bytes: Option<u64>,
    /// The name that an overlay has for its base.
    pub backing: Option<String>,
    /// True if it has a user.
    pub user: User,
    /// What is recorded beside it.
    pub identity: Option<Identity>,
    /// Reason why it cannot be used.
    pub refused: Option<ImageError>,
    /// The bitmap beside it; none where the size of the disk is not known.
    pub bitmap: Option<Bitmap>,
}

/// State of the bitmap beside an image.
#[derive(Debug)]
pub enum Bitmap {
    /// There is none: a join compares all blocks.
    None,
    /// A join compares these blocks and those that the other side has marked.
    Marked {
        /// Generation in which the images became equal.
        generation: Generation,
        /// Blocks that may differ from the other side's.
        blocks: u64,
        /// Blocks of the disk.
        of: u64,
    },
    /// It cannot be used: a join compares all blocks.
    Refused(ImageError),
}

/// Looks of one who finds a mark that is being written, and half of it.
const BITMAP_LOOKS: usize = 3;

fn bitmap(path: &Path, size_bytes: u64) -> Bitmap {
    let mut found = ChangedBlocks::open(path, size_bytes);
    for _ in 1..BITMAP_LOOKS {
        if found.is_err() {
            found = ChangedBlocks::open(path, size_bytes);
        }
    }
    match found {
        Ok(None) => Bitmap::None,
        Ok(Some(found)) => Bitmap::Marked {
            generation: found
                .equal()
                .last()
                .map_or(Generation(0), |state| state.generation),
            blocks: found.blocks().iter().map(|range| range.end - range.start).sum(),
            of: size_bytes.div_ceil(COPY_BLOCK_BYTES),
        },
        Err(why) => Bitmap::Refused(why),
    }
}

/// Looks at the image `path`, in use or not. Nothing is locked, and only its beginning is read.
///
/// # Errors
/// [`ImageError::File`]: it cannot be read.
pub fn look(path: &Path) -> Result<Look, ImageError> {
    let file = regular_file::open(path).map_err(failed(path, "open"))?;
    let user = lock::user(&file, path);
    look_at(&file, path, user)
}

fn look_at(file: &File, path: &Path, user: User) -> Result<Look, ImageError> {
    let metadata = file.metadata().map_err(failed(path, "open"))?;
    let (file_bytes, allocated_bytes) = (metadata.len(), metadata.blocks().saturating_mul(ALLOCATION_BYTES));
    let mut look = Look {
        format: None,
        size_bytes: None,
        file_bytes,
        allocated_bytes,
        cluster_bytes: None,
        backing: None,
        user,
        identity: None,
        refused: None,
        bitmap: None,
    };
    match Identity::read(path) {
        Ok(identity) => look.identity = identity,
        Err(why) => look.refused = Some(why),
    }
    if look.refused.is_none() {
        let found = probe::format(file, path, file_bytes);
        match found.and_then(|format| look.take(file, path, format)) {
            Ok(()) => {}
            Err(why @ ImageError::File { .. }) => return Err(why),
            Err(why) => look.refused = Some(why),
        }
    }
    look.bitmap = look.size_bytes.map(|size_bytes| bitmap(path, size_bytes));
    Ok(look)
}

impl Look {
    fn take(&mut self, file: &File, path: &Path, format: Format) -> Result<(), ImageError> {
        self.format = Some(format);
        let size_bytes = match format {
            Format::Raw => self.file_bytes,
            Format::Qcow2 => {
                let header = qcow2::read_header(file, path, self.file_bytes)?;
                self.cluster_bytes = Some(header.cluster_bytes());
                self.backing = header.backing;
                header.size_bytes
            }
        };
        self.size_bytes = Some(size_bytes);
        let [block_bytes, ..] = BLOCK_BYTES;
        probe::check_size(path, size_bytes, block_bytes)?;
        let recorded_bytes = self.identity.as_ref().map_or(0, |identity| identity.size_bytes);
        if size_bytes < recorded_bytes {
            let path = path.to_owned();
            return Err(ImageError::Shrunk {
                path,
                size_bytes,
                recorded_bytes,
            });
        }
        Ok(())
    }
}

/// Result of a check of an image that is sound.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sound {
    /// Its format.
    pub format: Format,
    /// Size of the disk.
    pub size_bytes: u64,
    /// The name that an overlay has for its base.
    pub backing: Option<String>,
    /// What the tables of a qcow2 image say.
    pub tables: Option<Checked>,
}

/// Checks the image `path`, which nobody writes meanwhile, and what is beside it.
///
/// # Errors
/// [`ImageError`]: it is not sound, or in use.
pub fn check(path: &Path) -> Result<Sound, ImageError> {
    let options = Options {
        read_only: true,
        ..Options::default()
    };
    // The lock is held until the end.
    let (Opened { file, bytes, .. }, _lock) = probe::open(path, &options)?;
    let look = look_at(&file, path, User::None)?;
    if let Some(why) = look.refused {
        return Err(why);
    }
    let format = look.format.unwrap_or(Format::Raw);
    let tables = match format {
        Format::Raw => None,
        Format::Qcow2 => {
            let header = qcow2::read_header(&file, path, bytes)?;
            Some(qcow2::check_tables(&file, path, &header, bytes)?)
        }
    };
    Ok(Sound {
        format,
        size_bytes: look.size_bytes.unwrap_or(bytes),
        backing: look.backing,
        tables,
    })
}
