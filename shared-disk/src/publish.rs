//! Publishing a file under a name exactly once, whole and durable.
//!
//! The content goes to a temporary file and to the disk first; only then is the file given its
//! name, by `link`, which fails where the name exists and is indivisible on local file systems and
//! on NFS. So the name is either absent or leads to a whole file, wherever the machine stops:
//!
//! ```text
//! stopped after     temporary file   name      publishing again
//! create            empty            absent    starts over
//! write             torn or whole    absent    starts over
//! fsync of file     whole            absent    starts over
//! link              whole            present   reads the name, syncs the directory
//! fsync of dir      whole            durable   reads the name
//! removal           gone             durable   reads the name
//! ```
//!
//! The first three steps may be made beforehand ([`prepare`]): publishing then costs one sync
//! instead of two.
//!
//! A name is believed only after a sync of its directory: one that is seen may still be lost with
//! the power. Once a name is there, temporary files for it are of no more use to anybody, and
//! whoever sees it removes them; a publisher that loses its temporary file to this finds the name
//! instead.

use std::fs::{self, File, OpenOptions};
use std::io::{self, ErrorKind, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use crate::StoreError;

/// The longest file of a store, in bytes. A claim has three lines of at most 260 and ten shorter
/// ones; a sighting a status of 3,072 and four short lines.
pub(crate) const CONTENT_BYTES_MAX: u64 = 4096;

/// Mark of a temporary file that is whole and synced.
const PREPARED: &str = "prepared-";

/// Names tried for a temporary file: one for each earlier process of the same number that died on
/// the way.
const TEMPORARY_NAMES_MAX: u32 = 1000;

/// A system call that has just been made. Tests stop or fail the publisher after each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// The temporary file was created.
    Created,
    /// A part of the content was written.
    WrittenPart,
    /// All of it was written.
    Written,
    /// The temporary file was synced.
    FileSynced,
    /// The temporary file, whole and synced, was given the name under which publishing looks for
    /// it.
    Prepared,
    /// The file was given its name, or the name was found taken.
    Linked,
    /// The directory was synced.
    DirectorySynced,
    /// The name was read.
    Read,
    /// A temporary file was removed.
    Removed,
}

/// Called after each [`Step`]; an error counts as the step's own.
pub(crate) type Probe<'a> = &'a mut dyn FnMut(Step) -> io::Result<()>;

/// Writes and syncs beforehand what [`publish`] needs for the same `name`, `owner` and `content`.
/// Decides nothing, and need not have worked.
pub(crate) fn prepare(
    directory: &Path,
    name: &str,
    owner: &str,
    content: &str,
    probe: Probe<'_>,
) -> Result<(), StoreError> {
    let temporary = write_temporary(directory, name, content, probe)?;
    let prepared = prepared_path(directory, name, owner);
    fs::rename(&temporary, &prepared)
        .and_then(|()| probe(Step::Prepared))
        .map_err(|error| {
            let _ = fs::remove_file(&temporary);
            classify(&prepared, "rename", error)
        })
}

/// Makes sure `directory/name` exists, with `content` if nobody has published it before, and gives
/// what it durably says. `owner` may have [prepared](prepare) it.
pub(crate) fn publish(
    directory: &Path,
    name: &str,
    owner: Option<&str>,
    content: &str,
    probe: Probe<'_>,
) -> Result<String, StoreError> {
    let path = directory.join(name);
    let prepared = owner.map(|owner| prepared_path(directory, name, owner));
    let linked = exists(&path)? || prepared.is_some_and(|prepared| link(&prepared, &path, probe).is_ok());
    if !linked {
        let temporary = write_temporary(directory, name, content, probe)?;
        if let Err(error) = link(&temporary, &path, probe) {
            let _ = fs::remove_file(&temporary);
            return Err(error);
        }
    }
    sync_directory(directory, probe)?;
    let found = read_bounded(&path)?;
    probe(Step::Read).map_err(|error| classify(&path, "read", error))?;
    remove_temporaries(directory, name, probe);
    Ok(found)
}

/// Makes `directory/name` say `content`, in one step for whoever reads it. Nothing is synced: after
/// a loss of power it may say less.
pub(crate) fn replace(directory: &Path, name: &str, content: &str) -> Result<(), StoreError> {
    let (path, (mut file, temporary)) = (directory.join(name), create_temporary(directory, name)?);
    let written = file
        .write_all(content.as_bytes())
        .and_then(|()| fs::rename(&temporary, &path));
    written.map_err(|error| {
        let _ = fs::remove_file(&temporary);
        classify(&path, "write", error)
    })
}

/// Gives the whole file `from` the name `path`. Whatever link(2) says, the name decides: over NFS
/// it can fail after having done the work, and `from` is gone if somebody else has published.
fn link(from: &Path, path: &Path, probe: Probe<'_>) -> Result<(), StoreError> {
    let linked = fs::hard_link(from, path).and_then(|()| probe(Step::Linked));
    match linked {
        Err(error) if !exists(path)? => Err(classify(path, "link", error)),
        _ => Ok(()),
    }
}

fn prepared_path(directory: &Path, name: &str, owner: &str) -> PathBuf {
    directory.join(format!("{}{PREPARED}{owner}", temporary_prefix(name)))
}

/// The name, and the owner, for which a file called `file` was prepared.
pub(crate) fn prepared_for(file: &str) -> Option<(&str, &str)> {
    let (name, owner) = file.strip_prefix('.')?.split_once('.')?;
    Some((name, owner.strip_prefix(PREPARED)?))
}

pub(crate) fn exists(path: &Path) -> Result<bool, StoreError> {
    path.try_exists()
        .map_err(|error| classify(path, "look up", error))
}

fn temporary_prefix(name: &str) -> String {
    format!(".{name}.")
}

/// Creates a temporary file for `name` that did not exist before. An old one is never written to:
/// it may already be linked to the name.
fn create_temporary(directory: &Path, name: &str) -> Result<(File, PathBuf), StoreError> {
    static SERIAL: AtomicU64 = AtomicU64::new(0);
    let mut result = Err(classify(
        directory,
        "create a file",
        ErrorKind::AlreadyExists.into(),
    ));
    for _ in 0..TEMPORARY_NAMES_MAX {
        let serial = SERIAL.fetch_add(1, Ordering::Relaxed);
        let path = directory.join(format!(
            "{}{}-{serial}",
            temporary_prefix(name),
            std::process::id()
        ));
        result = match OpenOptions::new().write(true).create_new(true).open(&path) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => continue,
            Err(error) => Err(classify(directory, "create a file", error)),
            Ok(file) => Ok((file, path)),
        };
        break;
    }
    result
}

fn write_temporary(
    directory: &Path,
    name: &str,
    content: &str,
    probe: Probe<'_>,
) -> Result<PathBuf, StoreError> {
    let (mut file, path) = create_temporary(directory, name)?;
    fill(&mut file, content, probe).map_err(|error| {
        let _ = fs::remove_file(&path);
        classify(&path, "write", error)
    })?;
    Ok(path)
}

fn fill(file: &mut File, content: &str, probe: Probe<'_>) -> io::Result<()> {
    probe(Step::Created)?;
    let (first, second) = content.as_bytes().split_at(content.len() / 2);
    file.write_all(first)?;
    probe(Step::WrittenPart)?;
    file.write_all(second)?;
    probe(Step::Written)?;
    file.sync_all()?;
    probe(Step::FileSynced)
}

/// Makes the names in `directory` durable.
pub(crate) fn sync_directory(directory: &Path, probe: Probe<'_>) -> Result<(), StoreError> {
    // What stands in a directory's place may be a FIFO, and opening it would wait for a writer.
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECTORY)
        .open(directory);
    opened
        .and_then(|opened| opened.sync_all())
        .and_then(|()| probe(Step::DirectorySynced))
        .map_err(|error| classify(directory, "sync", error))
}

pub(crate) fn read_bounded(path: &Path) -> Result<String, StoreError> {
    let damaged = |detail| StoreError::Damaged {
        path: path.to_owned(),
        detail,
    };
    let bytes = lockstep_regular_file::read(path, CONTENT_BYTES_MAX).map_err(|error| match error.kind() {
        ErrorKind::IsADirectory | ErrorKind::InvalidInput => damaged("it is not a regular file"),
        ErrorKind::FileTooLarge => damaged("longer than any file of a store"),
        _ => classify(path, "read", error),
    })?;
    String::from_utf8(bytes).map_err(|_| damaged("not text"))
}

/// Removes what was left of publishing `name`. What cannot be removed is in nobody's way.
fn remove_temporaries(directory: &Path, name: &str, probe: Probe<'_>) {
    let prefix = temporary_prefix(name);
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_name().to_string_lossy().starts_with(&prefix) {
            let _ = fs::remove_file(entry.path());
            let _ = probe(Step::Removed);
        }
    }
}

/// Sorts what the system said into what may pass and what needs a person.
pub(crate) fn classify(path: &Path, doing: &'static str, source: io::Error) -> StoreError {
    let path = path.to_owned();
    let hint = match source.kind() {
        ErrorKind::NotADirectory => "give a directory",
        ErrorKind::PermissionDenied if doing == "link" => {
            "give a directory in which this user may write, on a file system with hard links"
        }
        ErrorKind::PermissionDenied => "give a directory in which this user may write",
        ErrorKind::ReadOnlyFilesystem => "give a directory on a file system that can be written",
        ErrorKind::Unsupported => "give a directory on a file system with hard links",
        ErrorKind::InvalidFilename => "give a shorter path",
        _ => return StoreError::Unreachable { path, doing, source },
    };
    StoreError::Unusable {
        path,
        doing,
        hint,
        source,
    }
}
