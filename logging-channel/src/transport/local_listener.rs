//! A listening Unix socket and its file: taken over from a process that died, never from one that
//! lives, and removed at the end.

use std::fs;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};
use std::time::Duration;

use thiserror::Error;
use tokio::net::{UnixListener, UnixStream};
use tokio::time::{sleep, timeout};

/// Nobody holds the lock of a directory for longer than a few system calls, unless it was stopped
/// in them.
const LOCK_LIMIT: Duration = Duration::from_secs(2);
const LOCK_PAUSE: Duration = Duration::from_millis(5);
/// Connections that a listener may drop, before it counts as one that lives.
const CLOSING_MAX: usize = 10;

/// A socket that listens, with the file that belongs to it.
#[derive(Debug)]
pub struct LocalListener {
    listener: UnixListener,
    path: PathBuf,
    identity: (u64, u64),
}

/// Why there is none.
#[derive(Debug, Error)]
pub enum LocalListenError {
    /// Somebody listens there.
    #[error("another process listens there")]
    InUse,
    /// A file of another kind is there.
    #[error("it exists and is not a socket")]
    NotASocket,
    /// The system refuses it.
    #[error(transparent)]
    Refused(#[from] io::Error),
}

impl LocalListener {
    /// Listens on `path`. A socket there that nobody listens on any longer is replaced.
    ///
    /// Two processes that do this at once are told apart by a lock: a socket that has its name, and
    /// does not listen yet, is nobody's to replace.
    ///
    /// # Errors
    /// [`LocalListenError`].
    pub async fn bind(path: &Path) -> Result<Self, LocalListenError> {
        let directory = path.parent().filter(|directory| *directory != Path::new(""));
        let _lock = lock(directory.unwrap_or(Path::new("."))).await?;
        remove_stale(path).await?;
        Ok(Self {
            listener: UnixListener::bind(path)?,
            path: path.to_owned(),
            identity: identity(path)?,
        })
    }

    /// The socket.
    #[must_use]
    pub fn socket(&self) -> &UnixListener {
        &self.listener
    }
}

/// The socket still listens here, so that its file is not another's, unless somebody removed it.
impl Drop for LocalListener {
    fn drop(&mut self) {
        if identity(&self.path).is_ok_and(|found| found == self.identity)
            && let Err(error) = fs::remove_file(&self.path)
        {
            tracing::warn!(path = %self.path.display(), %error, "cannot remove the socket");
        }
    }
}

/// Device and inode, which no two files at a time have in common.
fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::symlink_metadata(path).map(|found| (found.dev(), found.ino()))
}

/// The lock of the sockets in a directory, which ends with what is returned.
///
/// It is a name in the abstract namespace (unix(7)), `lockstep-directory/DEVICE/INODE` in hexadecimal:
/// one process can have it, nothing is left of it, and flock(2) of the directory itself may mean
/// something else to others. Processes in several network namespaces do not exclude each
/// other.
async fn lock(directory: &Path) -> io::Result<UnixDatagram> {
    let directory = fs::metadata(directory)?;
    let (device, inode) = (directory.dev(), directory.ino());
    let name = format!("lockstep-directory/{device:x}/{inode:x}");
    let name = SocketAddr::from_abstract_name(name)?;
    let locking = async {
        loop {
            match UnixDatagram::bind_addr(&name) {
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => sleep(LOCK_PAUSE).await,
                outcome => return outcome,
            }
        }
    };
    let held = |_| {
        io::Error::new(
            io::ErrorKind::TimedOut,
            "a process holds the lock of its directory",
        )
    };
    timeout(LOCK_LIMIT, locking).await.map_err(held)?
}

/// Removes the socket at `path` if nobody listens on it: its process was killed before it could.
async fn remove_stale(path: &Path) -> Result<(), LocalListenError> {
    match fs::symlink_metadata(path) {
        Err(error) => return gone(error),
        Ok(found) if !found.file_type().is_socket() => return Err(LocalListenError::NotASocket),
        Ok(_) => {}
    }
    for _ in 0..CLOSING_MAX {
        let Err(error) = UnixStream::connect(path).await else {
            return Err(LocalListenError::InUse);
        };
        match error.kind() {
            io::ErrorKind::ConnectionRefused => {
                tracing::info!(path = %path.display(), "replacing the socket of a process that died");
                return fs::remove_file(path).or_else(gone);
            }
            // It closed with this connection in its queue: the next one is refused.
            io::ErrorKind::ConnectionReset => {}
            // Its queue is full: it listens, and has not accepted for long.
            io::ErrorKind::WouldBlock => return Err(LocalListenError::InUse),
            _ => return gone(error),
        }
    }
    Err(LocalListenError::InUse)
}

/// A listener that ends removes its file, without the lock.
fn gone(error: io::Error) -> Result<(), LocalListenError> {
    match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(error.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::sys::socket::{
        AddressFamily, Backlog, SockFlag, SockType, UnixAddr, bind, connect, listen, socket,
    };
    use std::os::fd::{AsRawFd, OwnedFd};

    /// A socket that has its name and does not listen yet.
    fn bound(path: &Path) -> OwnedFd {
        let socket = stream(SockFlag::SOCK_CLOEXEC);
        bind(socket.as_raw_fd(), &UnixAddr::new(path).unwrap()).unwrap();
        socket
    }

    fn stream(flags: SockFlag) -> OwnedFd {
        socket(AddressFamily::Unix, SockType::Stream, flags, None).unwrap()
    }

    #[tokio::test]
    async fn the_file_is_there_while_it_listens() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let listener = LocalListener::bind(&path).await.unwrap();
        assert!(path.exists());
        drop(listener);
        assert!(!path.exists());
    }

    #[tokio::test(start_paused = true)]
    async fn a_socket_that_is_about_to_listen_is_not_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let lock = lock(directory.path()).await.unwrap();
        let other = bound(&path);
        let mut ours = Box::pin(LocalListener::bind(&path));
        assert!(timeout(LOCK_LIMIT / 2, &mut ours).await.is_err(), "it waits");
        listen(&other, Backlog::new(1).unwrap()).unwrap();
        drop(lock);
        assert!(matches!(ours.await, Err(LocalListenError::InUse)));
        assert!(path.exists());
    }

    #[tokio::test(start_paused = true)]
    async fn a_lock_that_is_held_for_ever_is_not_waited_for() {
        let directory = tempfile::tempdir().unwrap();
        let _lock = lock(directory.path()).await.unwrap();
        let why = LocalListener::bind(&directory.path().join("socket"))
            .await
            .unwrap_err();
        assert_eq!(why.to_string(), "a process holds the lock of its directory");
    }

    #[tokio::test]
    async fn a_living_one_whose_queue_is_full_is_left_alone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let other = bound(&path);
        listen(&other, Backlog::new(0).unwrap()).unwrap();
        let waiting = stream(SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK);
        connect(waiting.as_raw_fd(), &UnixAddr::new(&path).unwrap()).unwrap();
        assert!(matches!(
            LocalListener::bind(&path).await,
            Err(LocalListenError::InUse)
        ));
        assert!(path.exists());
    }

    #[test]
    fn those_that_come_and_go_at_once_are_in_use_at_most() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let come_and_go = || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build()
                .unwrap();
            runtime.block_on(async {
                for _ in 0..5_000 {
                    match LocalListener::bind(&path).await {
                        Ok(listener) => drop(listener),
                        Err(why) => assert!(matches!(why, LocalListenError::InUse), "{why}"),
                    }
                }
            });
        };
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(come_and_go);
            }
        });
        assert!(!path.exists());
    }
}
