//! Addresses for joining a replica: the one that it listens on, and the one that its claims give.

use super::identity::Identity;
use crate::error::RunError;
use lockstep_logging_channel::transport::Address;
use std::fs;
use std::net::IpAddr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// Bytes a socket path may have: `sun_path` of unix(7), less its terminating zero.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// Address that a side listens on, and the one that others connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Joinable {
    /// Address that it listens on.
    pub listens: Address,
    /// Address that its claims give.
    pub claimed: Address,
}

/// The address of `--channel`, or one of this side's own: a socket in the machine's folder of the
/// store, for sides on this host.
///
/// # Errors
/// [`RunError::Setting`]: no address is given, and the store has no folder.
pub fn joinable(channel: Option<&Address>, identity: &Identity) -> Result<Joinable, RunError> {
    let listens = match channel {
        Some(address) => address.clone(),
        None => {
            let path = identity.socket().ok_or_else(|| {
                RunError::setting(
                    "channel",
                    "this kind of shared storage has no folder for sockets: say where this side can be joined",
                )
            })?;
            Address::Unix { path: short(path) }
        }
    };
    let claimed = claimed(&listens)?;
    Ok(Joinable { listens, claimed })
}

/// `path`, or one in the folder for temporary files where it is too long for a socket.
fn short(path: PathBuf) -> PathBuf {
    if path.as_os_str().as_bytes().len() <= SOCKET_PATH_BYTES_MAX {
        return path;
    }
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let short = std::env::temp_dir().join(format!("lockstep-{name}"));
    tracing::debug!(
        "{} is too long for a socket: {} is used",
        path.display(),
        short.display()
    );
    short
}

/// Address that another process connects to: from another folder, and from another host where every
/// interface is listened on.
fn claimed(listens: &Address) -> Result<Address, RunError> {
    Ok(match listens {
        Address::Unix { path } => Address::Unix {
            path: std::path::absolute(path).map_err(|source| RunError::File {
                action: "find the folder of the socket",
                path: path.clone(),
                source,
            })?,
        },
        Address::Tcp { host, port } => Address::Tcp {
            host: reachable(host, Path::new("/proc/sys/kernel/hostname")),
            port: *port,
        },
    })
}

/// `host`, or this host's name where it means every interface.
fn reachable(host: &str, name: &Path) -> String {
    let is_any = host
        .parse::<IpAddr>()
        .is_ok_and(|address| address.is_unspecified());
    let name = fs::read_to_string(name).unwrap_or_default();
    match name.trim() {
        name if is_any && !name.is_empty() => name.to_owned(),
        _ => host.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_that_is_too_long_for_a_socket_is_replaced_by_a_short_one() {
        let path = PathBuf::from("/shared/web/channel-00000001");
        assert_eq!(short(path.clone()), path);
        let long = Path::new("/")
            .join("x".repeat(SOCKET_PATH_BYTES_MAX))
            .join("channel-1");
        let found = short(long);
        assert!(found.as_os_str().len() <= SOCKET_PATH_BYTES_MAX);
        assert!(found.ends_with("lockstep-channel-1"), "{found:?}");
    }

    #[test]
    fn every_interface_is_claimed_by_the_host_s_name() {
        let file = tempfile::NamedTempFile::new().unwrap();
        fs::write(file.path(), "left\n").unwrap();
        assert_eq!(reachable("0.0.0.0", file.path()), "left");
        assert_eq!(reachable("::", file.path()), "left");
        assert_eq!(reachable("10.0.0.1", file.path()), "10.0.0.1");
        assert_eq!(reachable("0.0.0.0", Path::new("/nowhere")), "0.0.0.0");
    }

    #[test]
    fn a_relative_socket_is_claimed_by_its_absolute_path() {
        let address = "unix:pair/channel".parse().unwrap();
        let Address::Unix { path } = claimed(&address).unwrap() else {
            panic!("another kind of address")
        };
        assert!(path.is_absolute() && path.ends_with("pair/channel"));
    }
}
