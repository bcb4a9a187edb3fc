//! qcow2 images, and overlays, which are qcow2 images over a base: what the format is, is the
//! business of the crate `imago`, with plain blocking calls.
//!
//! What the crate does not do is done here. [`header`] refuses what it would fall over, and what
//! would make it open other files. [`check`] refuses a file whose tables contradict each other, and
//! [`repair`] counts what a killed process had not counted yet. The crate syncs nothing between its
//! writes of tables, so that a loss of the host's power can leave a file that `check` refuses; a raw
//! image has no tables.

pub(super) mod check;
pub(super) mod header;
mod repair;
#[cfg(test)]
mod tests;

use super::error::{ImageError, failed};
use super::kinds::{Base, Format, Opened};
use check::{Checked, Found, Unsound, check};
use header::{HEADER_BYTES_MAX, Header, Refused};
use imago::file::File as ImagoFile;
use imago::format::PreallocateMode;
use imago::qcow2::Qcow2 as ImagoQcow2;
use imago::raw::Raw as ImagoRaw;
use imago::{
    DenyImplicitOpenGate, FormatAccess, FormatCreateBuilder, FormatDriverBuilder, StorageOpenOptions,
};
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::{Arc, PoisonError, RwLock};

/// A file in any format, as the crate has it.
type Layer = FormatAccess<ImagoFile>;

/// A qcow2 image that is open.
#[derive(Debug)]
pub(super) struct Qcow2 {
    /// The lock is held for writing while clusters are given back: the crate wants nobody to use
    /// them meanwhile.
    layer: RwLock<Layer>,
    /// The same file, to sync it.
    file: File,
    size_bytes: u64,
    checked: Checked,
}

/// Header of the file `path`, which has `file_bytes`.
pub(super) fn read_header(file: &File, path: &Path, file_bytes: u64) -> Result<Header, ImageError> {
    let mut bytes = vec![0; HEADER_BYTES_MAX.min(usize::try_from(file_bytes).unwrap_or(usize::MAX))];
    file.read_exact_at(&mut bytes, 0).map_err(failed(path, "read"))?;
    // What a file that is cut within its first cluster lacks is zeroes for the crate, too.
    bytes.resize(HEADER_BYTES_MAX, 0);
    Header::read(&bytes, file_bytes).map_err(|refused| match refused {
        Refused::Damaged(why) => ImageError::Damaged {
            path: path.to_owned(),
            why,
        },
        Refused::Unsupported { why, hint } => ImageError::Unsupported {
            path: path.to_owned(),
            why,
            hint,
        },
    })
}

/// Checks the tables of the file `path`.
pub(super) fn check_tables(
    file: &File,
    path: &Path,
    header: &Header,
    file_bytes: u64,
) -> Result<Checked, ImageError> {
    found(file, path, header, file_bytes).map(|found| found.checked)
}

fn found(file: &File, path: &Path, header: &Header, file_bytes: u64) -> Result<Found, ImageError> {
    check(file, header, file_bytes).map_err(|unsound| match unsound {
        Unsound::Read(source) => failed(path, "read")(source),
        Unsound::Damaged(why) => ImageError::Damaged {
            path: path.to_owned(),
            why,
        },
    })
}

/// Counts clusters that are in use and not counted, and checks again.
fn repaired(file: &File, path: &Path, header: &Header, found_before: Found) -> Result<Checked, ImageError> {
    repair::repair(file, header, found_before).map_err(failed(path, "repair"))?;
    let file_bytes = file.metadata().map_err(failed(path, "read"))?.len();
    let checked = check_tables(file, path, header, file_bytes)?;
    if checked.uncounted_clusters == 0 {
        return Ok(checked);
    }
    Err(ImageError::Damaged {
        path: path.to_owned(),
        why: format!("{} of its clusters cannot be counted", checked.uncounted_clusters),
    })
}

impl Qcow2 {
    /// Opens a file that is locked already, over `base` if it is an overlay.
    pub(super) fn open(opened: Opened, base: Option<Base<'_>>) -> Result<Self, ImageError> {
        let Opened {
            file,
            path,
            bytes,
            read_only,
            ..
        } = opened;
        let header = read_header(&file, &path, bytes)?;
        if header.backing.is_some() != base.is_some() {
            return Err(wrong_backing(&path, header.backing.as_deref()));
        }
        let found = found(&file, &path, &header, bytes)?;
        let checked = if read_only || found.checked.uncounted_clusters == 0 {
            found.checked
        } else {
            repaired(&file, &path, &header, found)?
        };
        let storage = storage(&file, !read_only).map_err(failed(&path, "open"))?;
        let backing = match base {
            None => None,
            Some(base) => Some(Arc::new(below(base).map_err(failed(base.path, "open"))?)),
        };
        let layer = ImagoQcow2::<ImagoFile, Arc<Layer>>::builder(storage)
            .write(!read_only)
            .backing(backing)
            .data_file(None)
            .open(DenyImplicitOpenGate::default())
            .map_err(failed(&path, "open"))?;
        Ok(Self {
            layer: RwLock::new(FormatAccess::new(layer)),
            file,
            size_bytes: header.size_bytes,
            checked,
        })
    }

    /// Makes an image in `file`, which is empty: of its own, or with the name of its base.
    pub(super) fn format(
        file: &File,
        size_bytes: u64,
        preallocate: bool,
        base: Option<Base<'_>>,
    ) -> io::Result<()> {
        let mode = if preallocate {
            PreallocateMode::FullAllocate
        } else {
            PreallocateMode::None
        };
        let storage = storage(file, true)?;
        let builder = ImagoQcow2::<ImagoFile, Arc<Layer>>::create_builder(storage)
            .size(size_bytes)
            .preallocate(mode);
        let builder = match base {
            None => builder,
            // For people and other programs: it is not opened by this name.
            Some(base) => builder.backing(base.path.display().to_string(), base.format.to_string()),
        };
        builder.create()?;
        file.sync_all()
    }

    pub(super) fn size_bytes(&self) -> u64 {
        self.size_bytes
    }

    pub(super) fn file(&self) -> &File {
        &self.file
    }

    pub(super) fn checked(&self) -> Checked {
        self.checked
    }

    pub(super) fn read_at(&self, offset_bytes: u64, buffer: &mut [u8]) -> io::Result<()> {
        let layer = self.layer.read().unwrap_or_else(PoisonError::into_inner);
        layer.read(buffer, offset_bytes)
    }

    pub(super) fn write_at(&self, offset_bytes: u64, bytes: &[u8]) -> io::Result<()> {
        let layer = self.layer.read().unwrap_or_else(PoisonError::into_inner);
        layer.write(bytes, offset_bytes)
    }

    /// Writes the tables.
    pub(super) fn write_tables(&self) -> io::Result<()> {
        let layer = self.layer.read().unwrap_or_else(PoisonError::into_inner);
        layer.flush()
    }

    pub(super) fn sync(&self) -> io::Result<()> {
        self.file.sync_data()
    }

    pub(super) fn zero(&self, offset_bytes: u64, length_bytes: u64, may_unmap: bool) -> io::Result<()> {
        if may_unmap {
            let mut layer = self.layer.write().unwrap_or_else(PoisonError::into_inner);
            return layer.discard_to_zero(offset_bytes, length_bytes);
        }
        let layer = self.layer.read().unwrap_or_else(PoisonError::into_inner);
        layer.write_zeroes(offset_bytes, length_bytes)
    }

    /// True if a range surely reads as zeroes, and how much of it is so or not.
    pub(super) fn mapping(&self, offset_bytes: u64, length_bytes: u64) -> io::Result<(bool, u64)> {
        let layer = self.layer.read().unwrap_or_else(PoisonError::into_inner);
        let (mapping, length) = layer.get_mapping(offset_bytes, length_bytes)?;
        Ok((matches!(mapping, imago::Mapping::Zero { .. }), length))
    }
}

/// The base of an overlay, as the crate has it. It is only read, by the same open file.
fn below(base: Base<'_>) -> io::Result<Layer> {
    let storage = storage(base.file, false)?;
    let deny = DenyImplicitOpenGate::default();
    Ok(match base.format {
        Format::Raw => FormatAccess::new(ImagoRaw::builder(storage).write(false).open(deny)?),
        Format::Qcow2 => {
            let builder = ImagoQcow2::<ImagoFile, Arc<Layer>>::builder(storage);
            let builder = builder.write(false).backing(None).data_file(None);
            FormatAccess::new(builder.open(deny)?)
        }
    })
}

/// A duplicate of an open file for the crate, which closes it. It is never `O_DIRECT`: the crate
/// finds out the alignment by trying, and where it tries a hole, every alignment works.
fn storage(file: &File, writable: bool) -> io::Result<ImagoFile> {
    let options = StorageOpenOptions::new().write(writable).direct(false);
    ImagoFile::from_open_file(file.try_clone()?, options)
}

fn wrong_backing(path: &Path, backing: Option<&str>) -> ImageError {
    let why = match backing {
        Some(name) => format!("it is an overlay of {}", name.escape_debug()),
        None => "it is not an overlay, and one is wanted".to_owned(),
    };
    ImageError::Unsupported {
        path: path.to_owned(),
        why,
        hint: "`qemu-img convert -O qcow2` makes an image of its own out of an overlay",
    }
}
