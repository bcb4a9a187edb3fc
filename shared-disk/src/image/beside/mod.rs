//! Files beside an image, which say what its own bytes cannot.

pub(super) mod changed;
pub(super) mod identity;
mod text;

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};

/// Path of the file beside `image` with `suffix` at its end.
fn path_beside(image: &Path, suffix: &str) -> PathBuf {
    let mut path = OsString::from(image);
    path.push(suffix);
    path.into()
}

/// Folder in which a file is.
pub(super) fn folder(path: &Path) -> &Path {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
}

/// Makes the name of a file durable.
pub(super) fn sync_folder(path: &Path) -> io::Result<()> {
    File::open(folder(path))?.sync_all()
}
