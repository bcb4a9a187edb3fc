//! Makes images. One that is made is durable with its name, or is not there.

use super::beside::{folder, sync_folder};
use super::error::{ImageError, failed};
use super::kinds::{BLOCK_BYTES, Base, Format, Opened, Options};
use super::probe;
use super::qcow2::Qcow2;
use nix::fcntl::{AT_FDCWD, AtFlags, FallocateFlags, fallocate};
use nix::unistd::linkat;
use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
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

/// Makes the file `path`: without a name until it is whole, so that nothing is left of it wherever
/// the process ends, or by its name where the file system has no such files.
fn make(path: &Path, write: impl FnOnce(&File) -> io::Result<()>) -> Result<(), ImageError> {
    let exists = || ImageError::Exists {
        path: path.to_owned(),
    };
    // Before the work; the name is taken only where it is free all the same.
    if fs::symlink_metadata(path).is_ok() {
        return Err(exists());
    }
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    let nameless = options.clone().custom_flags(libc::O_TMPFILE).open(folder(path));
    let made = match nameless {
        Ok(file) => write(&file)
            .and_then(|()| file.sync_all())
            .and_then(|()| give_name(&file, path)),
        Err(_) => options.create_new(true).open(path).and_then(|file| {
            let written = write(&file).and_then(|()| file.sync_all());
            // Half an image is worse than none. Where it cannot be removed either, the error says
            // that it is not made.
            written.inspect_err(|_| drop(fs::remove_file(path)))
        }),
    };
    made.and_then(|()| sync_folder(path))
        .map_err(|error| match error.kind() {
            ErrorKind::AlreadyExists => exists(),
            _ => failed(path, "make")(error),
        })
}

fn give_name(file: &File, path: &Path) -> io::Result<()> {
    let open = format!("/proc/self/fd/{}", file.as_raw_fd());
    let (here, follow) = (AT_FDCWD, AtFlags::AT_SYMLINK_FOLLOW);
    Ok(linkat(here, open.as_str(), here, path, follow)?)
}

fn fill(file: &File, size_bytes: u64, preallocate: bool) -> io::Result<()> {
    file.set_len(size_bytes)?;
    if !preallocate {
        return Ok(());
    }
    let length = i64::try_from(size_bytes).map_err(|_| ErrorKind::InvalidInput)?;
    Ok(fallocate(file, FallocateFlags::empty(), 0, length)?)
}
