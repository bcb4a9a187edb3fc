//! Somebody wants a long run to end: what was found so far is still told.

use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};
use signal_hook::iterator::Signals;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

/// Whether SIGINT, SIGTERM or SIGHUP has come.
#[derive(Clone, Debug)]
pub struct Interrupt {
    asked: Arc<AtomicBool>,
}

impl Interrupt {
    /// Status of a process that was interrupted, as a shell says it.
    pub const STATUS: u8 = 128 + SIGINT as u8;

    /// Watches for them from now on. The first asks to end soon; with the second the process ends at once, and what it started
    /// with it.
    ///
    /// # Panics
    /// Signals cannot be handled.
    #[must_use]
    pub fn watch() -> Self {
        let mut signals = Signals::new([SIGINT, SIGTERM, SIGHUP]).expect("signals can be handled");
        let asked = Arc::new(AtomicBool::new(false));
        let told = asked.clone();
        thread::spawn(move || {
            for _ in signals.forever() {
                if told.swap(true, Ordering::Relaxed) {
                    std::process::exit(Self::STATUS.into());
                }
                eprintln!("--- ending after this round; once more: at once");
            }
        });
        Self { asked }
    }

    /// Whether to end.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        self.asked.load(Ordering::Relaxed)
    }
}
