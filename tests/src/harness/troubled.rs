//! Shared storage in trouble, by a library that is loaded before the C library's.

use super::kvm;
use super::scratch::Scratch;
use std::path::{Path, PathBuf};
use std::process::Command;

const SOURCE: &str = include_str!("storage_shim.c");

/// What happens to system calls on the storage.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    /// They do not come back, ever.
    Hang,
    /// They fail with ESTALE.
    Stale,
}

/// Builds a library from C in `scratch`. `None`: there is no C compiler, and that was said.
///
/// # Panics
/// It cannot be built.
#[must_use]
pub fn library(scratch: &Scratch, name: &str, source: &str) -> Option<PathBuf> {
    let source = scratch.write(&format!("{name}.c"), source);
    let library = scratch.join(&format!("{name}.so"));
    let mut compiler = Command::new("cc");
    compiler.args(["-shared", "-fPIC", "-O1", "-o"]).arg(&library);
    match compiler.arg(&source).arg("-ldl").output() {
        Err(why) => {
            kvm::skip(&format!("it needs a C compiler: cc: {why}"));
            None
        }
        Ok(built) => {
            let said = String::from_utf8_lossy(&built.stderr);
            assert!(built.status.success(), "cc cannot build the library: {said}");
            Some(library)
        }
    }
}

/// The library, built for one test, and its switch.
#[derive(Debug)]
pub struct TroubledStorage {
    library: PathBuf,
    control: PathBuf,
}

impl TroubledStorage {
    /// Builds it in `scratch`. `None`: there is no C compiler, and that was said.
    ///
    /// # Panics
    /// It cannot be built.
    #[must_use]
    pub fn build(scratch: &Scratch) -> Option<Self> {
        let library = library(scratch, "storage_shim", SOURCE)?;
        let control = scratch.join("trouble");
        Some(Self { library, control })
    }

    /// The variables by which a process uses `directory` with this trouble.
    ///
    /// # Panics
    /// A path is no text.
    #[must_use]
    pub fn variables(&self, directory: &Path) -> [(&'static str, String); 3] {
        let text = |path: &Path| path.to_str().expect("a path that is text").to_owned();
        [
            ("LD_PRELOAD", text(&self.library)),
            ("LOCKSTEP_SHIM_CONTROL", text(&self.control)),
            ("LOCKSTEP_SHIM_DIRECTORY", text(directory)),
        ]
    }

    /// From now on calls meet this trouble.
    ///
    /// # Panics
    /// The switch cannot be written.
    pub fn begin(&self, trouble: Trouble) {
        let word = match trouble {
            Trouble::Hang => "hang",
            Trouble::Stale => "stale",
        };
        // Whole at once: a process may look at any time.
        let fresh = self.control.with_extension("fresh");
        std::fs::write(&fresh, word)
            .and_then(|()| std::fs::rename(&fresh, &self.control))
            .expect("a switch that can be written");
    }

    /// New calls are as usual again; what hangs goes on hanging.
    ///
    /// # Panics
    /// There was no trouble.
    pub fn end(&self) {
        std::fs::remove_file(&self.control).expect("a switch that was on");
    }
}
