//! Console input: standard input, a byte at a time where it is a terminal.
//!
//! ```text
//!            wanted, and in the terminal's foreground
//!   left ----------------------------------------------> taken: bytes as they are typed, no echo
//!   alone <---------------------------------------------
//!            Ctrl-Z, put into the background, or the end
//! ```
//!
//! A terminal that is taken keeps its signals: Ctrl-C still ends the program, and Ctrl-Z stops it.
//! It is put back as it was found on every exit path, a panic included, and before a stop. In the
//! background nothing is read from it and none of its settings is touched: the shell owns it, and
//! would have the process stopped. A backup leaves it alone until it goes live: what is typed
//! before waits in the terminal.

use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, SigmaskHow, Signal, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use nix::unistd::{getpgrp, read, tcgetpgrp};
use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::thread;

/// Bytes taken from standard input at once; with the channel's length this bounds what waits for
/// the guest: 16 KiB.
const READ_BYTES: usize = 1024;
const WAITING_READS: usize = 16;

/// Between two looks at who is in the foreground: no signal tells a running job that it was put
/// there.
const LOOK_INTERVAL_MS: u8 = 100;

/// What a terminal that is taken does not do.
const COOKED: LocalFlags = LocalFlags::ICANON.union(LocalFlags::ECHO);

#[derive(Debug)]
struct Terminal {
    /// As it was found.
    found: Option<Termios>,
    /// It is as a guest's console wants it.
    taken: bool,
    /// This process was continued: a shell may have put other settings in force.
    continued: bool,
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

fn terminal() -> MutexGuard<'static, Terminal> {
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
fn job_control() -> SigSet {
    [Signal::SIGTSTP, Signal::SIGCONT].into_iter().collect()
}

/// The terminal has controlled this process.
static CONTROLLED: AtomicBool = AtomicBool::new(false);

/// True if this process may use the terminal. One that never controlled this process has no
/// background; one that did and does no more, because the shell has ended, is no longer this
/// process's to use.
fn in_foreground() -> bool {
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
    fn follow_foreground(&mut self) -> bool {
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

    fn put_back(&mut self) {
        if std::mem::take(&mut self.taken)
            && let Some(found) = &self.found
            && in_foreground()
        {
            // Nothing can be done about a terminal that is gone.
            set(found);
        }
    }
}

/// Reads standard input on a thread of its own, until its end. `arrived` is called after each read.
#[must_use]
pub fn read_input(arrived: impl Fn() + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, receiver) = bounded(WAITING_READS);
    // The thread may block in its read for ever; the program does not wait for it.
    let started = thread::Builder::new().name("console".to_owned()).spawn(move || {
        if std::io::stdin().is_terminal() {
            forward_typed(&sender, &arrived);
        } else {
            forward(&sender, &arrived);
        }
    });
    if let Err(why) = started {
        tracing::warn!(%why, "no console input");
    }
    receiver
}

/// Reads once. Nothing is there where the descriptor does not block; no bytes are the end.
fn read_some() -> Result<Vec<u8>, Errno> {
    let mut buffer = [0; READ_BYTES];
    loop {
        match read(std::io::stdin(), &mut buffer) {
            Err(Errno::EINTR) => {}
            outcome => return outcome.map(|length| buffer.get(..length).unwrap_or_default().to_vec()),
        }
    }
}

/// Forwards what is no terminal.
fn forward(sender: &Sender<Vec<u8>>, arrived: &impl Fn()) {
    let stdin = std::io::stdin();
    loop {
        match read_some() {
            Err(Errno::EAGAIN) => {
                // An error of the wait is one of the next read too.
                let _ = poll(
                    &mut [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)],
                    PollTimeout::NONE,
                );
            }
            Ok(bytes) if !bytes.is_empty() => {
                if sender.send(bytes).is_err() {
                    return;
                }
                arrived();
            }
            _ => return,
        }
    }
}

/// Forwards what is typed, while this process is in the terminal's foreground.
fn forward_typed(sender: &Sender<Vec<u8>>, arrived: &impl Fn()) {
    // Should the shell take the terminal back between a look and what follows, that fails, and does
    // not stop the process.
    let background: SigSet = [Signal::SIGTTIN, Signal::SIGTTOU].into_iter().collect();
    let _ = background.thread_block();
    let signals = SignalFd::with_flags(&job_control(), SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC);
    let Ok(signals) = signals else {
        tracing::warn!("no console input: the host gives no signal descriptor");
        return;
    };
    let stdin = std::io::stdin();
    let mut unread = None;
    loop {
        let may_read = terminal().follow_foreground();
        unread = unread.and_then(|bytes| propose(sender, bytes, arrived));
        let mut waits_for = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        if may_read && unread.is_none() {
            waits_for.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
        }
        // A wait that fails ends at once, and what it waited for is tried.
        let _ = poll(&mut waits_for, LOOK_INTERVAL_MS);
        let typed = waits_for.get(1).and_then(PollFd::any).unwrap_or(false);
        while let Ok(Some(signal)) = signals.read_signal() {
            follow_signal(signal.ssi_signo as i32);
        }
        if !typed || !in_foreground() {
            continue;
        }
        match read_some() {
            Ok(bytes) if bytes.is_empty() => return,
            Ok(bytes) => unread = propose(sender, bytes, arrived),
            Err(Errno::EAGAIN) => {}
            Err(_) if !in_foreground() => {}
            Err(_) => return,
        }
    }
}

/// Gives typed bytes to the guest; gives them back while it takes none.
fn propose(sender: &Sender<Vec<u8>>, bytes: Vec<u8>, arrived: &impl Fn()) -> Option<Vec<u8>> {
    match sender.try_send(bytes) {
        Ok(()) => arrived(),
        Err(TrySendError::Full(bytes)) => return Some(bytes),
        // The guest has ended: nobody reads any more, but the terminal is still held.
        Err(TrySendError::Disconnected(_)) => {}
    }
    None
}

fn follow_signal(signal: i32) {
    if signal == Signal::SIGTSTP as i32 {
        terminal().put_back();
        let stop = SigSet::from(Signal::SIGTSTP);
        // Taken as it would have been before: the process stops here, unless nobody could continue
        // it.
        let _ = raise(Signal::SIGTSTP).and_then(|()| stop.thread_unblock());
        let _ = stop.thread_block();
    }
    terminal().continued = true;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_guest_does_not_take_is_kept_in_order() {
        let (sender, receiver) = bounded(1);
        assert_eq!(propose(&sender, b"a".to_vec(), &|| {}), None);
        assert_eq!(propose(&sender, b"b".to_vec(), &|| {}), Some(b"b".to_vec()));
        assert_eq!(receiver.recv(), Ok(b"a".to_vec()));
        assert_eq!(propose(&sender, b"b".to_vec(), &|| {}), None);
        drop(receiver);
        assert_eq!(propose(&sender, b"c".to_vec(), &|| {}), None);
    }
}
