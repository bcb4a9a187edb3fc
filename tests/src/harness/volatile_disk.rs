//! Disks whose write cache is lost with the process that uses them, by a library that is loaded
//! before the C library's.

use super::scratch::Scratch;
use super::troubled::library;
use super::wait_until;
use std::path::{Path, PathBuf};
use std::process::Command;

const SOURCE: &str = include_str!("volatile_disk.c");

/// The library, built for one test.
#[derive(Debug)]
pub struct VolatileDisk {
    library: PathBuf,
    control: PathBuf,
}

impl VolatileDisk {
    /// Builds it in `scratch`. `None`: there is no C compiler, and that was said.
    ///
    /// # Panics
    /// It cannot be built.
    #[must_use]
    pub fn build(scratch: &Scratch) -> Option<Self> {
        Some(Self {
            library: library(scratch, "volatile_disk", SOURCE)?,
            control: scratch.join("volatile"),
        })
    }

    /// Has `command` use `image` as such a disk. The seed draws what of a write that was not
    /// flushed reaches it.
    ///
    /// # Panics
    /// There is no such image.
    pub fn use_for<'a>(&self, command: &'a mut Command, image: &Path, seed: u64) -> &'a mut Command {
        command
            .env("LD_PRELOAD", &self.library)
            .env("LOCKSTEP_SHIM_IMAGE", image.canonicalize().expect("an image"))
            .env("LOCKSTEP_SHIM_SEED", seed.to_string())
            .env("LOCKSTEP_SHIM_CONTROL", &self.control)
    }

    /// From now on nothing that is written reaches the disk, and a flush is said to be done.
    ///
    /// # Panics
    /// The switch cannot be written.
    pub fn lie(&self) {
        self.switch_to("lie");
    }

    /// From now on a flush fails.
    ///
    /// # Panics
    /// The switch cannot be written.
    pub fn fail(&self) {
        self.switch_to("fail");
    }

    /// From now on the first half of each write reaches the disk, and a flush does not come back.
    ///
    /// # Panics
    /// The switch cannot be written.
    pub fn tear(&self) {
        self.switch_to("tear");
    }

    /// The disk is as before for processes that start now.
    ///
    /// # Panics
    /// It was not switched.
    pub fn mend(&self) {
        std::fs::remove_file(&self.control).expect("a switch that was on");
    }

    /// Waits until a flush of `image` hangs.
    ///
    /// # Panics
    /// None does.
    pub fn wait_until_torn(&self, image: &Path) {
        let torn = image.with_added_extension("torn");
        wait_until(
            || torn.exists().then_some(()),
            || "a flush of a torn write".to_owned(),
        );
    }

    fn switch_to(&self, word: &str) {
        // Whole at once: a process may look at any time.
        let fresh = self.control.with_extension("fresh");
        std::fs::write(&fresh, word)
            .and_then(|()| std::fs::rename(&fresh, &self.control))
            .expect("a switch that can be written");
    }
}
