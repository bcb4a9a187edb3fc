//! The Unix socket of a switch: taken over from one that died, never from one that lives, and
//! removed at the end.

use std::fs;
use std::io;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};

use tokio::net::UnixListener;

use super::SwitchError;

/// The listening socket; its file goes with it.
pub(super) struct Listener {
    pub(super) socket: UnixListener,
    path: PathBuf,
    /// Device and inode of the file, so that only the own one is removed.
    identity: Option<(u64, u64)>,
}

impl Listener {
    /// Listens on `path`.
    pub(super) fn bind(path: &Path) -> Result<Self, SwitchError> {
        let directory = path.parent().filter(|parent| *parent != Path::new(""));
        if let Some(directory) = directory.filter(|directory| !directory.is_dir()) {
            let (socket, directory) = (path.to_owned(), directory.to_owned());
            return Err(SwitchError::SocketDirectoryMissing { socket, directory });
        }
        remove_stale(path)?;
        let socket = UnixListener::bind(path).map_err(|source| unusable(path, source))?;
        Ok(Self {
            socket,
            path: path.to_owned(),
            identity: identity(path),
        })
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if self.identity.is_some() && identity(&self.path) == self.identity {
            // Nothing can be done about a failure, and the next switch removes the file.
            let _ = fs::remove_file(&self.path);
        }
    }
}

fn identity(path: &Path) -> Option<(u64, u64)> {
    fs::symlink_metadata(path)
        .ok()
        .map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Removes a socket file on which nobody listens any more.
fn remove_stale(path: &Path) -> Result<(), SwitchError> {
    let metadata = match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        outcome => outcome.map_err(|source| unusable(path, source))?,
    };
    if !metadata.file_type().is_socket() {
        return Err(SwitchError::NoSocket {
            socket: path.to_owned(),
        });
    }
    match UnixStream::connect(path) {
        Ok(_) => Err(SwitchError::SwitchRunning {
            socket: path.to_owned(),
        }),
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            tracing::info!(socket = %path.display(), "taking over the socket of a switch that died");
            fs::remove_file(path).map_err(|source| unusable(path, source))
        }
        Err(source) => Err(unusable(path, source)),
    }
}

fn unusable(path: &Path, source: io::Error) -> SwitchError {
    SwitchError::SocketUnusable {
        socket: path.to_owned(),
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_file_is_there_while_it_listens() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("switch");
        let listener = Listener::bind(&path).unwrap();
        assert!(path.exists());
        drop(listener);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn a_living_switch_is_left_alone_and_a_dead_one_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("switch");

        let living = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert!(matches!(
            Listener::bind(&path),
            Err(SwitchError::SwitchRunning { .. })
        ));
        drop(living);

        assert!(Listener::bind(&path).is_ok());
    }

    #[tokio::test]
    async fn what_is_no_place_for_a_socket_is_refused_and_kept() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "precious").unwrap();

        assert!(matches!(Listener::bind(&file), Err(SwitchError::NoSocket { .. })));
        assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
        let missing = Listener::bind(&directory.path().join("nowhere/switch"));
        assert!(matches!(missing, Err(SwitchError::SocketDirectoryMissing { .. })));
        let too_long = Listener::bind(&directory.path().join("x".repeat(120)));
        assert!(matches!(too_long, Err(SwitchError::SocketUnusable { .. })));
    }

    #[tokio::test]
    async fn the_file_of_a_successor_is_not_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("switch");
        let listener = Listener::bind(&path).unwrap();
        fs::remove_file(&path).unwrap();
        let successor = Listener::bind(&path).unwrap();
        drop(listener);
        assert!(path.exists());
        drop(successor);
    }
}
