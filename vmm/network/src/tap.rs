//! A TAP interface through `/dev/net/tun` (Linux: Documentation/networking/tuntap.rst).
//!
//! The interface has to exist: TUNSETIFF would make a missing one, without an address or a bridge,
//! and the typing error would show as silence.

#![allow(unsafe_code)] // Three ioctls that no safe interface offers.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixDatagram;

use nix::net::if_::if_nametoindex;

use super::NetworkError;

mod request {
    //! TUNSETIFF and TUNGETIFF take a pointer to an `ifreq`, although their numbers say `int`.
    nix::ioctl_write_ptr_bad!(
        set_interface,
        nix::request_code_write!(b'T', 202, size_of::<libc::c_int>()),
        libc::ifreq
    );
    nix::ioctl_read_bad!(
        get_interface,
        nix::request_code_read!(b'T', 210, size_of::<libc::c_int>()),
        libc::ifreq
    );
    nix::ioctl_read_bad!(get_flags, libc::SIOCGIFFLAGS, libc::ifreq);
}

/// Condition of an attached link.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Carrier {
    /// Frames pass.
    Up,
    /// The interface is down: frames are lost, and the attachment holds.
    Down,
    /// The interface was deleted: the attachment is void.
    Gone,
}

/// Attaches to the existing TAP interface `name`, without blocking reads and writes.
pub(super) fn open(name: &str) -> Result<File, NetworkError> {
    let index = index(name)?;
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open("/dev/net/tun")
        .map_err(|source| NetworkError::TunDevice { source })?;
    attach(&file, name).map_err(|source| {
        let interface = name.to_owned();
        match source.raw_os_error() {
            Some(libc::EINVAL) => NetworkError::NotTap { interface, source },
            _ => NetworkError::TapUnavailable { interface, source },
        }
    })?;
    // Deleted in between, it was made anew by the attaching. Closing the file removes that one.
    if self::index(name)? == index {
        Ok(file)
    } else {
        Err(missing(name, io::ErrorKind::NotFound.into()))
    }
}

fn index(name: &str) -> Result<libc::c_uint, NetworkError> {
    if_nametoindex(name).map_err(|source| missing(name, source.into()))
}

fn missing(name: &str, source: io::Error) -> NetworkError {
    NetworkError::TapMissing {
        interface: name.to_owned(),
        source,
    }
}

fn no_interface() -> libc::ifreq {
    libc::ifreq {
        ifr_name: [0; libc::IFNAMSIZ],
        ifr_ifru: libc::__c_anonymous_ifr_ifru { ifru_flags: 0 },
    }
}

fn attach(file: &File, name: &str) -> io::Result<()> {
    let mut wanted = no_interface();
    wanted.ifr_ifru.ifru_flags = (libc::IFF_TAP | libc::IFF_NO_PI) as libc::c_short;
    // The last byte stays zero: the name was checked to be shorter.
    for (to, from) in wanted
        .ifr_name
        .iter_mut()
        .take(libc::IFNAMSIZ - 1)
        .zip(name.bytes())
    {
        *to = from as libc::c_char;
    }
    // SAFETY: TUNSETIFF reads and writes one `ifreq`, which lives through the call; the descriptor
    // is open.
    let outcome = unsafe { request::set_interface(file.as_raw_fd(), &wanted) };
    outcome.map(|_| ()).map_err(io::Error::from)
}

/// Condition of the interface to which `file` is attached, whatever its name is now.
pub(super) fn carrier(file: &File) -> Carrier {
    let mut interface = no_interface();
    // SAFETY: TUNGETIFF writes one `ifreq`, which lives through the call; the descriptor is open.
    if unsafe { request::get_interface(file.as_raw_fd(), &mut interface) }.is_err() {
        return Carrier::Gone;
    }
    let Ok(socket) = UnixDatagram::unbound() else {
        // Without a descriptor to ask by, nothing is known to be wrong.
        return Carrier::Up;
    };
    // SAFETY: SIOCGIFFLAGS reads the name in one `ifreq` and writes its flags; both live through
    // the call.
    if unsafe { request::get_flags(socket.as_raw_fd(), &mut interface) }.is_err() {
        return Carrier::Gone;
    }
    // SAFETY: the call succeeded, and has written this member of the union.
    let flags = libc::c_int::from(unsafe { interface.ifr_ifru.ifru_flags });
    if flags & libc::IFF_UP == 0 {
        Carrier::Down
    } else {
        Carrier::Up
    }
}
