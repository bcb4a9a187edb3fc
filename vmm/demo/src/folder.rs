//! The folder of a demonstration, which is removed with it.
//!
//! A demonstration that is killed can remove nothing. So each holds a lock on its folder, and every
//! process that it starts inherits that lock: where it can be taken nobody of that demonstration
//! lives, and the next one removes the folder. A folder that is kept has another name, and is never
//! removed.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{Flock, FlockArg, OFlag, open};
use nix::sys::stat::{Mode, fstat};
use nix::unistd::geteuid;
use tempfile::TempDir;

/// Name of a folder, before what makes it unique.
const PREFIX: &str = "lockstep-demonstration-";

/// The same for one that is kept.
const PREFIX_KEPT: &str = "lockstep-kept-demonstration-";

/// Attempts to make one. Another demonstration may take a folder for abandoned between the call
/// that makes it and the one that locks it; it would have to do so each time.
const ATTEMPTS: usize = 8;

/// A folder.
#[derive(Debug)]
pub(super) struct Folder {
    directory: TempDir,
    /// Inherited by the processes of the demonstration: it has no close-on-exec flag. None where
    /// the file system has no locks.
    _lock: Option<Flock<OwnedFd>>,
    keep: bool,
}

impl Folder {
    /// Makes one in `parent`, and removes those there that were abandoned.
    pub(super) fn make(parent: &Path, keep: bool) -> io::Result<Self> {
        remove_abandoned(parent);
        let prefix = if keep { PREFIX_KEPT } else { PREFIX };
        for _ in 0..ATTEMPTS {
            let directory = tempfile::Builder::new().prefix(prefix).tempdir_in(parent)?;
            match lock(directory.path(), OFlag::empty()) {
                Err(Errno::ENOENT | Errno::EWOULDBLOCK) => {}
                Ok(lock) if is_at(&lock, directory.path()) => {
                    return Ok(Self {
                        directory,
                        _lock: Some(lock),
                        keep,
                    });
                }
                Ok(_) => {}
                Err(_) => {
                    return Ok(Self {
                        directory,
                        _lock: None,
                        keep,
                    });
                }
            }
        }
        Err(io::Error::other(
            "each new folder was removed at once by somebody else",
        ))
    }

    /// Its path.
    pub(super) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Removes it, or keeps it; gives its path then.
    pub(super) fn leave(self) -> Option<PathBuf> {
        if self.keep {
            Some(self.directory.keep())
        } else {
            None
        }
    }
}

/// Locks the folder at `path`, unless somebody else has.
fn lock(path: &Path, flags: OFlag) -> Result<Flock<OwnedFd>, Errno> {
    let flags = flags | OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW;
    let folder = open(path, flags, Mode::empty())?;
    Flock::lock(folder, FlockArg::LockExclusiveNonblock).map_err(|(_, why)| why)
}

/// True if `folder` is still the one at `path`.
fn is_at(folder: &Flock<OwnedFd>, path: &Path) -> bool {
    match (fstat(&**folder), fs::symlink_metadata(path)) {
        (Ok(open), Ok(there)) => (open.st_dev, open.st_ino) == (there.dev(), there.ino()),
        _ => false,
    }
}

/// Removes the folders in `parent` of demonstrations none of whose processes lives.
fn remove_abandoned(parent: &Path) {
    let entries = fs::read_dir(parent).into_iter().flatten().flatten();
    for entry in entries {
        if !entry.file_name().to_string_lossy().starts_with(PREFIX) {
            continue;
        }
        let path = entry.path();
        let Ok(lock) = lock(&path, OFlag::O_CLOEXEC) else {
            continue;
        };
        let is_ours = fstat(&*lock).is_ok_and(|stat| stat.st_uid == geteuid().as_raw());
        if is_ours && is_at(&lock, &path) {
            match fs::remove_dir_all(&path) {
                Ok(()) => tracing::info!("removed {}: its demonstration was killed", path.display()),
                Err(why) => tracing::warn!("cannot remove {}: {why}", path.display()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsRawFd;

    fn names(parent: &Path) -> usize {
        fs::read_dir(parent).unwrap().count()
    }

    #[test]
    fn a_folder_goes_with_its_demonstration_unless_it_is_kept() {
        let parent = tempfile::tempdir().unwrap();
        let folder = Folder::make(parent.path(), false).unwrap();
        assert!(folder.path().is_dir());
        assert_eq!((folder.leave(), names(parent.path())), (None, 0));

        let kept = Folder::make(parent.path(), true).unwrap().leave().unwrap();
        drop(Folder::make(parent.path(), false).unwrap());
        assert!(kept.is_dir());
    }

    #[test]
    fn a_folder_that_nobody_holds_is_removed_by_the_next() {
        let parent = tempfile::tempdir().unwrap();
        let abandoned = parent.path().join(format!("{PREFIX}abandoned"));
        fs::create_dir(&abandoned).unwrap();
        fs::write(abandoned.join("report"), "left").unwrap();
        let other = parent.path().join("lockstep-demo");
        fs::create_dir(&other).unwrap();

        let folder = Folder::make(parent.path(), false).unwrap();

        assert!(!abandoned.exists());
        assert!(other.exists() && folder.path().exists());
    }

    #[test]
    fn a_folder_that_somebody_holds_stays() {
        let parent = tempfile::tempdir().unwrap();
        let first = Folder::make(parent.path(), false).unwrap();
        let second = Folder::make(parent.path(), false).unwrap();
        assert!(first.path().exists() && second.path().exists());
    }

    #[test]
    fn a_folder_stays_while_a_process_that_was_started_lives() {
        let parent = tempfile::tempdir().unwrap();
        let Folder { directory, _lock, .. } = Folder::make(parent.path(), false).unwrap();
        let mut child = std::process::Command::new("cat")
            .stdin(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        // As SIGKILL leaves it: closed, and not unlocked.
        let lock = std::mem::ManuallyDrop::new(_lock.unwrap());
        nix::unistd::close(lock.as_raw_fd()).unwrap();
        let path = directory.keep();

        drop(Folder::make(parent.path(), false).unwrap());
        assert!(path.exists());

        drop(child.stdin.take());
        child.wait().unwrap();
        drop(Folder::make(parent.path(), false).unwrap());
        assert!(!path.exists());
    }

    #[test]
    fn a_link_to_elsewhere_is_not_followed() {
        let parent = tempfile::tempdir().unwrap();
        let elsewhere = tempfile::tempdir().unwrap();
        fs::write(elsewhere.path().join("file"), "precious").unwrap();
        let link = parent.path().join(format!("{PREFIX}link"));
        std::os::unix::fs::symlink(elsewhere.path(), &link).unwrap();

        drop(Folder::make(parent.path(), false).unwrap());

        assert!(elsewhere.path().join("file").exists());
    }
}
