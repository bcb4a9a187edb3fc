//! Guests that a machine boots: an image, or a kernel.

use super::images::Guest;
use super::linux::Linux;
use std::ffi::OsString;

/// A guest that a machine boots.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Boots {
    /// An image of `guest-images/`.
    Image(Guest),
    /// A kernel with an initrd.
    Kernel(Linux),
}

impl Boots {
    /// Arguments that name it on Lockstep's command line.
    #[must_use]
    pub fn arguments(self) -> Vec<OsString> {
        match self {
            Self::Image(guest) => vec![guest.image().into()],
            Self::Kernel(linux) => linux.arguments(),
        }
    }
}

impl From<Guest> for Boots {
    fn from(guest: Guest) -> Self {
        Self::Image(guest)
    }
}

impl From<Linux> for Boots {
    fn from(linux: Linux) -> Self {
        Self::Kernel(linux)
    }
}
