//! The guest images.

use std::path::PathBuf;

/// Names another folder with images.
pub const IMAGES_VARIABLE: &str = "LOCKSTEP_GUESTS";

/// A guest of `guest-images/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Guest {
    /// Prints, and exits with a status.
    Smoke,
    /// Stresses every source of non-determinism.
    Entropy,
    /// Computes without an exit.
    Compute,
    /// Speaks the Redis protocol.
    KeyValue,
}

impl Guest {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::Smoke, Self::Entropy, Self::Compute, Self::KeyValue];

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
            Self::KeyValue => "key-value.elf",
        };
        let built = concat!(env!("CARGO_MANIFEST_DIR"), "/../guest-images/build");
        let folder = std::env::var_os(IMAGES_VARIABLE).map_or_else(|| PathBuf::from(built), PathBuf::from);
        let image = folder.join(name);
        assert!(
            image.is_file(),
            "no guest image {}: run `make guests` first",
            image.display()
        );
        image.canonicalize().unwrap_or(image)
    }
}
