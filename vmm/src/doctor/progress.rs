//! What is being measured right now, on a terminal.

use lockstep_process::writing::standard;
use lockstep_qualify::Property;
use std::time::Instant;

/// A line that is overwritten, where standard error is a terminal; nothing elsewhere.
pub struct Progress {
    shown: bool,
    begun: Instant,
}

impl Progress {
    /// For standard error.
    #[must_use]
    pub fn on_stderr() -> Self {
        Self {
            shown: standard::error_is_terminal(),
            begun: Instant::now(),
        }
    }

    /// Number `done` of `all` begins.
    pub fn at(&mut self, done: usize, all: usize, property: Property) {
        let seconds = self.begun.elapsed().as_secs();
        self.put(&format!("[{}/{all}, {seconds} s] {property}", done + 1));
    }

    /// All is done.
    pub fn end(&mut self) {
        self.put("");
    }

    fn put(&self, line: &str) {
        if self.shown {
            standard::messages().rewrite(line);
        }
    }
}
