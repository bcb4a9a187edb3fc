//! The terminal on standard input: taken for a guest that reads, and put back as it was found.

use nix::errno::Errno;
use nix::sys::signal::{SigSet, SigmaskHow, Signal};
use nix::sys::termios::{
    InputFlags, LocalFlags, SetArg, SpecialCharacterIndices, Termios, tcgetattr, tcsetattr,
};
use nix::unistd::{getpgrp, tcgetpgrp};
use std::io::IsTerminal;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What a terminal that is taken does not do.
const COOKED: LocalFlags = LocalFlags::ICANON.union(LocalFlags::ECHO);
/// What it does not either where every key is the guest's: signals, and keys of its own.
const KEPT_KEYS: LocalFlags = LocalFlags::ISIG
    .union(LocalFlags::IEXTEN)
    .union(LocalFlags::ECHONL);
/// Changes that it makes to what is typed. Those to what is written stay: messages of this program
/// are among it.
const CHANGED_KEYS: InputFlags = InputFlags::IGNBRK
    .union(InputFlags::BRKINT)
    .union(InputFlags::PARMRK)
    .union(InputFlags::ISTRIP)
    .union(InputFlags::INLCR)
    .union(InputFlags::IGNCR)
    .union(InputFlags::ICRNL)
    .union(InputFlags::IXON);

/// Manner in which a terminal is taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Manner {
    /// Keys that are signals stay signals, for this program.
    WithSignals,
    /// Every key is a byte for the guest.
    EveryKey,
}

impl Manner {
    fn settings(self, found: &Termios) -> Termios {
        let mut settings = found.clone();
        settings.local_flags &= !COOKED;
        if self == Self::EveryKey {
            settings.local_flags &= !KEPT_KEYS;
            settings.input_flags &= !CHANGED_KEYS;
            let at_once = [
                (SpecialCharacterIndices::VMIN, 1),
                (SpecialCharacterIndices::VTIME, 0),
            ];
            for (index, value) in at_once {
                if let Some(place) = settings.control_chars.get_mut(index as usize) {
                    *place = value;
                }
            }
        }
        settings
    }
}

#[derive(Debug)]
pub(super) struct Terminal {
    /// As it was found.
    found: Option<Termios>,
    /// It is as a guest's console wants it.
    taken: Option<Manner>,
    /// Whoever types is still to be told when the keys become the guest's.
    tells: bool,
    /// This process was continued: a shell may have put other settings in force.
    pub(super) continued: bool,
    /// There is a guest that reads.
    wanted: bool,
    /// The program ends: never again.
    over: bool,
}

static TERMINAL: Mutex<Terminal> = Mutex::new(Terminal {
    found: None,
    taken: None,
    tells: false,
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
/// `messages_seen`: whoever types reads messages too, and is told once whose the keys have become.
pub fn keep_stops(messages_seen: bool) {
    terminal().tells = messages_seen;
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

/// The guest has its console open for input.
static LISTENS: AtomicBool = AtomicBool::new(false);

/// From now on the guest reads its console, or no longer: whose Ctrl-C is.
pub fn guest_listens(listens: bool) {
    LISTENS.store(listens, Ordering::Relaxed);
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
            self.taken = None;
            return false;
        }
        let manner = if LISTENS.load(Ordering::Relaxed) {
            Manner::EveryKey
        } else {
            Manner::WithSignals
        };
        if self.taken != Some(manner) || std::mem::take(&mut self.continued) {
            self.take(manner);
        }
        true
    }

    /// True once: keys have become the guest's that were this program's.
    pub(super) fn has_news(&mut self) -> bool {
        self.taken == Some(Manner::EveryKey) && std::mem::take(&mut self.tells)
    }

    fn take(&mut self, manner: Manner) {
        let Ok(now) = tcgetattr(std::io::stdin()) else {
            return;
        };
        // They are our own where the manner changes; a shell may have kept those for us too.
        let is_own = !now.local_flags.intersects(COOKED);
        let found = match &self.found {
            Some(found) if is_own => found,
            _ => self.found.insert(now),
        };
        let settings = manner.settings(found);
        self.taken = set(&settings).then_some(manner);
    }

    pub(super) fn put_back(&mut self) {
        if self.taken.take().is_some()
            && let Some(found) = &self.found
            && in_foreground()
        {
            // Nothing can be done about a terminal that is gone.
            set(found);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::pty::openpty;
    use nix::sys::termios::OutputFlags;

    #[test]
    fn keys_that_are_the_guest_s_are_no_signals_and_come_as_they_are() {
        let found = tcgetattr(&openpty(None, None).unwrap().slave).unwrap();
        let with_signals = Manner::WithSignals.settings(&found);
        assert!(with_signals.local_flags.contains(LocalFlags::ISIG));
        assert!(!with_signals.local_flags.intersects(COOKED));
        assert_eq!(with_signals.input_flags, found.input_flags);
        let every_key = Manner::EveryKey.settings(&found);
        assert!(!every_key.local_flags.intersects(COOKED.union(KEPT_KEYS)));
        assert!(!every_key.input_flags.intersects(CHANGED_KEYS));
        assert!(every_key.output_flags.contains(OutputFlags::OPOST));
    }
}
