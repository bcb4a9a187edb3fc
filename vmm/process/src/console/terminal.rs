//! The terminal on standard input: taken for a guest that reads, and put back as it was found.

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use nix::unistd::{getpgrp, tcgetpgrp};
use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What a terminal that is taken does not do.
const COOKED: LocalFlags = LocalFlags::ICANON.union(LocalFlags::ECHO);

#[derive(Debug)]
pub(super) struct Terminal {
    /// As it was found.
    found: Option<Termios>,
    /// It is as a guest's console wants it.
    taken: bool,
    /// This process was continued: a shell may have put other settings in force.
    pub(super) continued: bool,
    /// There is a guest that reads.
    wanted: bool,
    /// The program ends: never again.
    over: bool,
}

static TERMINAL: Mutex<Terminal> = Mutex::new(Terminal {
    found: None,
    taken: false,
    continued: false,
    wanted: false,
    over: false,
});

pub(super) fn terminal() -> MutexGuard<'static, Terminal> {
    TERMINAL.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Puts the terminal back when it is dropped.
#[derive(Debug)]
pub struct TerminalGuard(());

impl TerminalGuard {
    /// Lets console input take the terminal, from now on, or from [`want`] on.
    #[must_use]
    pub fn new(wanted: bool) -> Self {
        terminal().wanted = wanted;
        Self(())
    }
}

impl Drop for TerminalGuard {
    fn drop(&mut self) {
        restore();
    }
}

/// Keeps Ctrl-Z for the thread that reads the console, which puts the terminal back before the
/// process stops. For commands that have one, before any thread is started that does not block it.
pub fn keep_stops() {
    if std::io::stdin().is_terminal() {
        // Finds out whether the terminal controls this process: a shell may end before the next
        // look.
        let _ = in_foreground();
        // Where it cannot be blocked, a stop leaves the terminal as it is.
        let _ = job_control().thread_block();
    }
}

/// From now on there is a guest that reads.
pub fn want() {
    terminal().wanted = true;
}

/// Puts the terminal back, if it was taken, for good.
pub fn restore() {
    let mut terminal = terminal();
    terminal.over = true;
    terminal.put_back();
}

/// Signals with which a shell stops and continues a job.
pub(super) fn job_control() -> SigSet {
    [Signal::SIGTSTP, Signal::SIGCONT].into_iter().collect()
}

/// The terminal has controlled this process.
static CONTROLLED: AtomicBool = AtomicBool::new(false);

/// True if this process may use the terminal. One that never controlled this process has no
/// background; one that did and does no more, because the shell has ended, is no longer this
/// process's to use.
pub(super) fn in_foreground() -> bool {
    match tcgetpgrp(std::io::stdin()) {
        Ok(group) => {
            CONTROLLED.store(true, Ordering::Relaxed);
            group == getpgrp()
        }
        Err(why) => why == Errno::ENOTTY && !CONTROLLED.load(Ordering::Relaxed),
    }
}

/// Sets the terminal up. Should the shell have taken it back in this moment, its signal must not
/// stop the process.
fn set(settings: &Termios) -> bool {
    let background = SigSet::from(Signal::SIGTTOU);
    let before = background.thread_swap_mask(SigmaskHow::SIG_BLOCK);
    let outcome = tcsetattr(std::io::stdin(), SetArg::TCSANOW, settings);
    if let Ok(before) = before {
        // What was in force before can be in force again.
        let _ = before.thread_set_mask();
    }
    outcome.is_ok()
}

impl Terminal {
    /// Takes the terminal or leaves it alone, whichever is right now. True if it may be read.
    pub(super) fn follow_foreground(&mut self) -> bool {
        if !self.wanted || self.over || !in_foreground() {
            // In the background the shell has its own settings in force.
            self.taken = false;
            return false;
        }
        if !self.taken || std::mem::take(&mut self.continued) {
            self.take();
        }
        true
    }

    fn take(&mut self) {
        let Ok(found) = tcgetattr(std::io::stdin()) else {
            return;
        };
        let mut wanted = found.clone();
        wanted.local_flags &= !COOKED;
        // A shell may have kept our own settings for us.
        if found.local_flags.intersects(COOKED) || self.found.is_none() {
            self.found = Some(found);
        }
        self.taken = set(&wanted);
    }

    pub(super) fn put_back(&mut self) {
        if std::mem::take(&mut self.taken)
            && let Some(found) = &self.found
            && in_foreground()
        {
            // Nothing can be done about a terminal that is gone.
            set(found);
        }
    }
}
