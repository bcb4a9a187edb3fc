//! The guest images.

use super::Build;
use std::path::PathBuf;

/// Names another folder with images.
pub const IMAGES_VARIABLE: &str = "LOCKSTEP_GUESTS";
/// Names the folder with the images of the earlier build; without it, that one has today's.
pub const IMAGES_BEFORE_VARIABLE: &str = "LOCKSTEP_GUESTS_BEFORE";

/// A guest of `guest-images/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guest {
    /// Prints, and exits with a status.
    Smoke,
    /// Stresses every source of non-determinism.
    Entropy,
    /// Computes without an exit.
    Compute,
    /// Computes without an exit while interrupts are due, and checks itself.
    Steady,
    /// Writes and reads all disks, and checks itself.
    Disk,
    /// Speaks the Redis protocol.
    KeyValue,
    /// Reads the host by a hidden instruction.
    Diverging,
}

impl Guest {
    /// All of them.
    pub const ALL: [Self; 7] = [
        Self::Smoke,
        Self::Entropy,
        Self::Compute,
        Self::Steady,
        Self::Disk,
        Self::KeyValue,
        Self::Diverging,
    ];

    /// Its image.
    ///
    /// # Panics
    /// It has not been built.
    #[must_use]
    pub fn image(self) -> PathBuf {
        let name = match self {
            Self::Smoke => "smoke.elf",
            Self::Entropy => "entropy.elf",
            Self::Compute => "compute.elf",
            Self::Steady => "steady.elf",
            Self::Disk => "disk.elf",
            Self::KeyValue => "key-value.elf",
            Self::Diverging => "diverging.elf",
        };
        let image = folder().join(name);
        assert!(
            image.is_file(),
            "no guest image {}: run `make guests` first",
            image.display()
        );
        image.canonicalize().unwrap_or(image)
    }
}

/// Folder of the images.
pub(super) fn folder() -> PathBuf {
    let built = concat!(env!("CARGO_MANIFEST_DIR"), "/../guest-images/build");
    let before = (Build::now() == Build::Before).then_some(IMAGES_BEFORE_VARIABLE);
    let named = before.into_iter().chain([IMAGES_VARIABLE]);
    let mut named = named
        .filter_map(std::env::var_os)
        .filter(|folder| !folder.is_empty());
    named.next().map_or_else(|| PathBuf::from(built), PathBuf::from)
}
