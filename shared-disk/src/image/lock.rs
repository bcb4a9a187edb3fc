//! The lock that keeps a second user away from an image: one of an open file description
//! (`F_OFD_SETLK`), on the whole file. QEMU's own locks collide with it. It outlives a killed
//! process for as long as the kernel has requests of that process which it was given by io_uring:
//! what those write must not come after what the next user writes.

use super::error::{ImageError, failed};
use super::holder::{Holder, User};
use super::kinds::Options;
use nix::fcntl::{FcntlArg, fcntl};
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

/// Descriptors that are looked at for the holder of a lock: those of a busy host with a thousand
/// processes of sixty-four each.
const DESCRIPTORS_MAX: usize = 64 << 10;

/// Pauses between looks at a lock that no visible process holds: about 10 s in all.
/// Requests of a killed process take as long as the storage needs for them.
const PAUSES_MS: [u64; 9] = [20, 40, 80, 160, 320, 640, 1_280, 2_560, 5_120];
/// Shortest pause that is told of: most locks are free sooner.
const TOLD_PAUSE_MS: u64 = 640;

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
pub(super) fn lock(file: &File, path: &Path, options: &Options) -> Result<Lock, ImageError> {
    let pauses_ms = if options.waits { &PAUSES_MS[..] } else { &[] };
    lock_with(file, path, options.read_only, pauses_ms, thread::sleep)
}

fn lock_with(
    file: &File,
    path: &Path,
    read_only: bool,
    pauses_ms: &[u64],
    mut pause: impl FnMut(Duration),
) -> Result<Lock, ImageError> {
    let mut pauses_ms = pauses_ms.iter().copied();
    while !try_lock(file, path, read_only)? {
        let holder = match user(file, path) {
            User::Some(holder) => holder,
            // It has just gone.
            User::None => None,
        };
        match pauses_ms.next() {
            Some(pause_ms) if holder.is_none() => {
                if pause_ms == TOLD_PAUSE_MS {
                    tracing::info!(
                        "image {} is locked by a process that is not seen here: waiting up to {} s for the last \
                         requests of one that has ended",
                        path.display(),
                        PAUSES_MS.iter().sum::<u64>() / 1_000
                    );
                }
                pause(Duration::from_millis(pause_ms));
            }
            _ => {
                let path = path.to_owned();
                return Err(ImageError::InUse { path, holder });
            }
        }
    }
    file.try_clone().map(Lock).map_err(failed(path, "open"))
}

/// True if `file` is locked now; false if another user has a lock on it.
fn try_lock(file: &File, path: &Path, read_only: bool) -> Result<bool, ImageError> {
    let wanted = whole(if read_only { libc::F_RDLCK } else { libc::F_WRLCK });
    match fcntl(file, FcntlArg::F_OFD_SETLK(&wanted)) {
        Ok(_) => Ok(true),
        Err(nix::Error::EAGAIN | nix::Error::EACCES) => Ok(false),
        Err(error) => Err(ImageError::NoLocks {
            path: path.to_owned(),
            source: error.into(),
        }),
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;
    use tempfile::NamedTempFile;

    /// A lock that no process has a descriptor of: a mapping keeps it, as the kernel's requests keep
    /// that of a killed process.
    struct Unseen(*mut libc::c_void);

    impl Unseen {
        #[expect(unsafe_code, reason = "a mapping")]
        fn lock(file: &NamedTempFile) -> Self {
            let held = file.reopen().unwrap();
            assert!(try_lock(&held, file.path(), false).unwrap());
            let (protection, flags) = (libc::PROT_READ, libc::MAP_SHARED);
            // SAFETY: a new mapping, which nobody reads.
            let address =
                unsafe { libc::mmap(std::ptr::null_mut(), 1, protection, flags, held.as_raw_fd(), 0) };
            assert_ne!(address, libc::MAP_FAILED);
            Self(address)
        }
    }

    impl Drop for Unseen {
        #[expect(unsafe_code, reason = "a mapping")]
        fn drop(&mut self) {
            // SAFETY: this mapping is its own, and nobody reads it.
            assert_eq!(unsafe { libc::munmap(self.0, 1) }, 0);
        }
    }

    #[test]
    fn a_lock_of_a_process_that_has_gone_is_waited_for() {
        let file = NamedTempFile::new().unwrap();
        let mut unseen = Some(Unseen::lock(&file));
        let mut pauses = 0;
        let pause = |_| {
            pauses += 1;
            if pauses == 3 {
                drop(unseen.take());
            }
        };
        let _lock = lock_with(&file.reopen().unwrap(), file.path(), false, &PAUSES_MS, pause).unwrap();
        assert!(pauses >= 3);
    }

    #[test]
    fn a_lock_that_nobody_gives_up_is_not_waited_for_without_end() {
        let file = NamedTempFile::new().unwrap();
        let unseen = Unseen::lock(&file);
        let mut waited = Duration::ZERO;
        let refused = lock_with(&file.reopen().unwrap(), file.path(), false, &PAUSES_MS, |pause| {
            waited += pause
        });
        assert!(matches!(refused, Err(ImageError::InUse { holder: None, .. })));
        assert_eq!(waited, Duration::from_millis(PAUSES_MS.iter().sum()));
        drop(unseen);
    }

    #[test]
    fn a_process_that_is_seen_is_named_at_once() {
        let file = NamedTempFile::new().unwrap();
        let held = file.reopen().unwrap();
        assert!(try_lock(&held, file.path(), false).unwrap());
        let refused = lock_with(&file.reopen().unwrap(), file.path(), false, &PAUSES_MS, |_| {
            panic!("it waits")
        });
        let Err(ImageError::InUse { holder, .. }) = refused else {
            panic!("not refused: {refused:?}");
        };
        assert_eq!(holder.unwrap().process, std::process::id());
    }
}
