//! A directory of a test's own, and what is left in it.

use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A directory that is removed with the test. Its path is short: Unix sockets allow 107 bytes.
#[derive(Debug)]
pub struct Scratch(TempDir);

impl Default for Scratch {
    fn default() -> Self {
        Self::new()
    }
}

impl Scratch {
    /// A new one.
    ///
    /// # Panics
    /// The host gives none.
    #[must_use]
    pub fn new() -> Self {
        Self(
            tempfile::Builder::new()
                .prefix("lockstep-")
                .tempdir()
                .expect("a temporary directory"),
        )
    }

    /// The directory.
    #[must_use]
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// A path in it.
    #[must_use]
    pub fn join(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// A path in it, as text.
    ///
    /// # Panics
    /// The temporary directory's name is no text.
    #[must_use]
    pub fn text(&self, name: &str) -> String {
        self.join(name).to_str().expect("a path that is text").to_owned()
    }

    /// A file in it with these bytes.
    ///
    /// # Panics
    /// It cannot be written.
    pub fn write(&self, name: &str, bytes: impl AsRef<[u8]>) -> PathBuf {
        let path = self.join(name);
        std::fs::write(&path, bytes).unwrap_or_else(|why| panic!("cannot write {}: {why}", path.display()));
        path
    }

    /// A directory in it.
    ///
    /// # Panics
    /// It cannot be made.
    pub fn directory(&self, name: &str) -> PathBuf {
        let path = self.join(name);
        std::fs::create_dir(&path).unwrap_or_else(|why| panic!("cannot create {}: {why}", path.display()));
        path
    }

    /// Names of everything directly in it, sorted.
    ///
    /// # Panics
    /// It cannot be read.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        let entries = std::fs::read_dir(self.path()).expect("a readable directory");
        let mut names: Vec<String> = entries
            .map(|entry| {
                entry
                    .expect("an entry")
                    .file_name()
                    .to_string_lossy()
                    .into_owned()
            })
            .collect();
        names.sort();
        names
    }
}
