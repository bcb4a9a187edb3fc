//! Images of the hosts on which the sides of a machine are started.

use std::fmt;
use std::fs::File;
use std::path::{Path, PathBuf};

/// Size of an image: the guest rewrites its file before a half of this is full.
const SIZE_BYTES: u64 = 4 << 20;

/// Holding of a disk by the two sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Held {
    /// Each side has an image.
    Mirrored,
    /// Both sides have one image.
    Shared,
}

impl fmt::Display for Held {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::Mirrored => "mirrored",
            Self::Shared => "shared",
        })
    }
}

/// The images. A host has one, and one side at a time.
#[derive(Debug)]
pub struct Images {
    /// Holding of the disk.
    pub held: Held,
    paths: Vec<PathBuf>,
}

impl Images {
    /// None yet.
    #[must_use]
    pub fn new(held: Held) -> Self {
        Self {
            held,
            paths: Vec::new(),
        }
    }

    /// The image of the next side: of a host on which none runs, or of a new one.
    ///
    /// # Panics
    /// It cannot be made.
    pub fn next(&mut self, folder: &Path, in_use: &[&Path]) -> PathBuf {
        let is_free = |path: &&PathBuf| self.held == Held::Shared || !in_use.contains(&path.as_path());
        if let Some(path) = self.paths.iter().find(is_free) {
            return path.clone();
        }
        let path = folder.join(format!("host-{}.img", self.paths.len()));
        let made = File::create(&path).and_then(|file| file.set_len(SIZE_BYTES));
        made.unwrap_or_else(|why| panic!("{}: {why}", path.display()));
        self.paths.push(path.clone());
        path
    }

    /// The value of `--disk` for this image.
    #[must_use]
    pub fn argument(&self, image: &Path) -> String {
        let shared = if self.held == Held::Shared { ",shared" } else { "" };
        format!("{}{shared}", image.display())
    }

    /// Those that there are.
    #[must_use]
    pub fn paths(&self) -> &[PathBuf] {
        &self.paths
    }
}

/// The file beside an image that says whose disk it is.
#[must_use]
pub fn identity(image: &Path) -> PathBuf {
    image.with_added_extension("lockstep")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::harness::Scratch;

    #[test]
    fn a_side_gets_the_image_of_a_host_on_which_none_runs() {
        let scratch = Scratch::new();
        let mut images = Images::new(Held::Mirrored);
        let first = images.next(scratch.path(), &[]);
        let second = images.next(scratch.path(), &[&first]);
        assert_ne!(first, second);
        assert_eq!(images.next(scratch.path(), &[&second]), first);
        assert_ne!(images.next(scratch.path(), &[&first, &second]), second);
        assert_eq!(images.paths().len(), 3);
    }

    #[test]
    fn all_sides_get_a_shared_image() {
        let scratch = Scratch::new();
        let mut images = Images::new(Held::Shared);
        let first = images.next(scratch.path(), &[]);
        assert_eq!(images.next(scratch.path(), &[&first]), first);
        assert!(images.argument(&first).ends_with("host-0.img,shared"));
    }
}
