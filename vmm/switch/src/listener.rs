//! The Unix socket of a switch.

use std::path::Path;

use lockstep_logging_channel::transport::{LocalListenError, LocalListener};

use super::SwitchError;

/// Listens on `path`, also where a switch that died has left its socket.
pub(super) async fn listen(path: &Path) -> Result<LocalListener, SwitchError> {
    let socket = path.to_owned();
    let directory = path.parent().filter(|parent| *parent != Path::new(""));
    if let Some(directory) = directory.filter(|directory| !directory.is_dir()) {
        let directory = directory.to_owned();
        return Err(SwitchError::SocketDirectoryMissing { socket, directory });
    }
    LocalListener::bind(path).await.map_err(|why| match why {
        LocalListenError::InUse => SwitchError::SwitchRunning { socket },
        LocalListenError::NotASocket => SwitchError::NoSocket { socket },
        LocalListenError::Refused(source) => SwitchError::SocketUnusable { socket, source },
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[tokio::test]
    async fn a_living_switch_is_left_alone_and_a_dead_one_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("switch");

        let living = std::os::unix::net::UnixListener::bind(&path).unwrap();
        assert!(matches!(
            listen(&path).await,
            Err(SwitchError::SwitchRunning { .. })
        ));
        drop(living);

        assert!(listen(&path).await.is_ok());
    }

    #[tokio::test]
    async fn what_is_no_place_for_a_socket_is_refused_and_kept() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("file");
        fs::write(&file, "precious").unwrap();

        assert!(matches!(listen(&file).await, Err(SwitchError::NoSocket { .. })));
        assert_eq!(fs::read_to_string(&file).unwrap(), "precious");
        let missing = listen(&directory.path().join("nowhere/switch")).await;
        assert!(matches!(missing, Err(SwitchError::SocketDirectoryMissing { .. })));
        let too_long = listen(&directory.path().join("x".repeat(120))).await;
        assert!(matches!(too_long, Err(SwitchError::SocketUnusable { .. })));
    }
}
