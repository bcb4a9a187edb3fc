//! Makes images. One that is made is durable with its name, or is not there.

use super::beside::sync_folder;
use super::error::{ImageError, failed};
use super::kinds::{BLOCK_BYTES, Base, Format, Opened, Options};
use super::probe;
use super::qcow2::Qcow2;
use nix::fcntl::{FallocateFlags, fallocate};
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::path::Path;

/// Makes the image `path` of `size_bytes`, which reads as zeroes. All its room is taken at once
/// with `preallocate`.
///
/// # Errors
/// [`ImageError`]: also where `path` exists.
pub fn create(path: &Path, size_bytes: u64, format: Format, preallocate: bool) -> Result<(), ImageError> {
    let [block_bytes, ..] = BLOCK_BYTES;
    probe::check_size(path, size_bytes, block_bytes)?;
    make(path, |file| match format {
        Format::Raw => fill(file, size_bytes, preallocate),
        Format::Qcow2 => Qcow2::format(file, size_bytes, preallocate, None),
    })
}

/// Makes the overlay `path` of `base`.
pub(super) fn overlay(path: &Path, base: Base<'_>) -> Result<(), ImageError> {
    make(path, |file| {
        Qcow2::format(file, base.size_bytes, false, Some(base))
    })
}

/// Makes an overlay of `base` in a file without a name.
pub(super) fn throwaway(folder: &Path, base: Base<'_>, options: &Options) -> Result<Opened, ImageError> {
    let file = tempfile::tempfile_in(folder).map_err(failed(folder, "make an overlay in"))?;
    let path = folder.join("(overlay without a name)");
    Qcow2::format(&file, base.size_bytes, false, Some(base)).map_err(failed(&path, "write"))?;
    let bytes = file.metadata().map_err(failed(&path, "read"))?.len();
    Ok(Opened {
        file,
        path,
        bytes,
        read_only: false,
        direct: options.direct,
    })
}

/// Makes the file `path`, and removes it where `write` fails.
fn make(path: &Path, write: impl FnOnce(&File) -> io::Result<()>) -> Result<(), ImageError> {
    let opened = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(path);
    let file = opened.map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => ImageError::Exists {
            path: path.to_owned(),
        },
        _ => failed(path, "make")(error),
    })?;
    let made = write(&file)
        .and_then(|()| file.sync_all())
        .and_then(|()| sync_folder(path));
    made.map_err(|error| {
        // Half an image is worse than none; where it cannot be removed either, the error says that
        // it is not made.
        let _ = fs::remove_file(path);
        failed(path, "make")(error)
    })
}

fn fill(file: &File, size_bytes: u64, preallocate: bool) -> io::Result<()> {
    file.set_len(size_bytes)?;
    if !preallocate {
        return Ok(());
    }
    let length = i64::try_from(size_bytes).map_err(|_| ErrorKind::InvalidInput)?;
    Ok(fallocate(file, FallocateFlags::empty(), 0, length)?)
}
