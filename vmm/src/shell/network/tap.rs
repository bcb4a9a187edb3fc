//! A TAP interface through `/dev/net/tun` (Linux: Documentation/networking/tuntap.rst).

#![allow(unsafe_code)] // One ioctl that no safe interface offers.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;

use super::NetworkError;

mod request {
    //! TUNSETIFF takes a pointer to an `ifreq`, although its number says `int`.
    nix::ioctl_write_ptr_bad!(
        set_interface,
        nix::request_code_write!(b'T', 202, size_of::<libc::c_int>()),
        libc::ifreq
    );
}

/// Attaches to the TAP interface `name`, without blocking reads and writes. Where it does not exist it is made, if
/// the process may, and goes with the process.
pub(super) fn open(name: &str) -> Result<File, NetworkError> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun")
        .map_err(|source| NetworkError::TunDevice { source })?;
    attach(&file, name).map_err(|source| NetworkError::TapUnavailable {
        interface: name.to_owned(),
        source,
    })?;
    Ok(file)
}

fn attach(file: &File, name: &str) -> io::Result<()> {
    let mut wanted = libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru {
            ifru_flags: (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short,
        },
    };
    // The last byte stays zero: the name was checked to be shorter.
    for (to, from) in wanted
        .ifr_name
        .iter_mut()
        .take(libc::IFNAMSIZ - 1)
        .zip(name.bytes())
    {
        *to = from as libc::c_char;
    }
    // SAFETY: TUNSETIFF reads and writes one `ifreq`, which lives through the call; the descriptor is open.
    let outcome = unsafe { request::set_interface(file.as_raw_fd(), &wanted) };
    outcome.map(|_| ()).map_err(io::Error::from)
}
