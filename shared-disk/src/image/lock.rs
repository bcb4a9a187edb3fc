//! The lock that keeps a second user away from an image: one of an open file description
//! (`F_OFD_SETLK`), on the whole file. It ends with the process, and QEMU's own locks collide with
//! it.

use super::error::{ImageError, failed};
use super::holder::{Holder, User};
use nix::fcntl::{FcntlArg, fcntl};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

/// Descriptors that are looked at for the holder of a lock: those of a busy host with a thousand
/// processes of sixty-four each.
const DESCRIPTORS_MAX: usize = 64 << 10;

/// Longest name of a process in a message. The kernel keeps 15 bytes of it.
const NAME_CHARACTERS_MAX: usize = 15;

/// A lock on a file. It is given up when this is dropped, and not when the last duplicate of the
/// descriptor is closed: a child that another thread has just forked has one until it executes.
#[derive(Debug)]
pub(super) struct Lock(File);

impl Drop for Lock {
    fn drop(&mut self) {
        // Where it fails the lock ends with the descriptors.
        let _ = fcntl(&self.0, FcntlArg::F_OFD_SETLK(&whole(libc::F_UNLCK)));
    }
}

/// Locks `file`, which is `path`: shared with others that only read it, or for one alone.
pub(super) fn lock(file: &File, path: &Path, read_only: bool) -> Result<Lock, ImageError> {
    let wanted = whole(if read_only { libc::F_RDLCK } else { libc::F_WRLCK });
    let taken = fcntl(file, FcntlArg::F_OFD_SETLK(&wanted));
    if matches!(taken, Err(nix::Error::EAGAIN | nix::Error::EACCES)) {
        let holder = match user(file, path) {
            User::Some(holder) => holder,
            // It has just gone.
            User::None => None,
        };
        let path = path.to_owned();
        return Err(ImageError::InUse { path, holder });
    }
    taken.map_err(|error| ImageError::NoLocks {
        path: path.to_owned(),
        source: error.into(),
    })?;
    file.try_clone().map(Lock).map_err(failed(path, "open"))
}

/// Who has `file`, which is `path`, locked in any way.
pub(super) fn user(file: &File, path: &Path) -> User {
    let mut wanted = whole(libc::F_WRLCK);
    if fcntl(file, FcntlArg::F_OFD_GETLK(&mut wanted)).is_err()
        || wanted.l_type == libc::F_UNLCK as libc::c_short
    {
        return User::None;
    }
    // -1 for a lock that belongs to an open file description.
    let process = u32::try_from(wanted.l_pid).ok().filter(|process| *process > 0);
    User::Some(process.map_or_else(|| search(path), named))
}

/// A lock of the whole file.
fn whole(kind: libc::c_int) -> libc::flock {
    libc::flock {
        l_type: kind as libc::c_short,
        l_whence: libc::SEEK_SET as libc::c_short,
        l_start: 0,
        l_len: 0,
        l_pid: 0,
    }
}

/// Searches the open files of all processes that may be looked at for one with a lock on `path`.
fn search(path: &Path) -> Option<Holder> {
    let path = fs::canonicalize(path).ok()?;
    let processes = fs::read_dir("/proc").ok()?;
    let processes = processes.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let descriptors = processes.flat_map(|process: u32| {
        let found = fs::read_dir(format!("/proc/{process}/fd"));
        let entries = found.into_iter().flatten().filter_map(Result::ok);
        entries.map(move |entry| (process, entry.path()))
    });
    descriptors
        .take(DESCRIPTORS_MAX)
        .find(|(process, descriptor)| has_lock(*process, descriptor, &path).unwrap_or(false))
        .and_then(|(process, _)| named(process))
}

fn has_lock(process: u32, descriptor: &PathBuf, path: &Path) -> io::Result<bool> {
    // The text of the link: following it could wait for a file system that does not answer.
    if fs::read_link(descriptor)? != path {
        return Ok(false);
    }
    let number = descriptor.file_name().unwrap_or_default();
    let information = fs::read_to_string(PathBuf::from(format!("/proc/{process}/fdinfo")).join(number))?;
    Ok(information.lines().any(|line| line.starts_with("lock:")))
}

fn named(process: u32) -> Option<Holder> {
    let name = fs::read_to_string(format!("/proc/{process}/comm")).ok()?;
    let name = name
        .trim_end()
        .chars()
        .filter(|char| !char.is_control())
        .take(NAME_CHARACTERS_MAX)
        .collect();
    Some(Holder { process, name })
}
