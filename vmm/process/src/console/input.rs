//! Standard input, read on a thread of its own.

use super::escape::{KEYS, Typed, Wish};
use super::terminal::{in_foreground, job_control, terminal};
use crossbeam_channel::{Receiver, Sender, TrySendError, bounded};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, kill, raise};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::unistd::{Pid, read};
use rustix::termios::tcgetwinsize;
use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::thread;

/// Bytes taken from standard input at once; with the channel's length this bounds what waits for
/// the guest: 16 KiB.
const READ_BYTES: usize = 1024;
const WAITING_READS: usize = 16;
/// Bytes typed at a terminal that may wait beside them, for the keys behind them that are this
/// program's to be read: only a paste is so long. With what is read at once, 17 KiB.
const TYPED_BYTES_MAX: usize = 16 * 1024;

/// Between two looks at who is in the foreground: no signal tells a running job that it was put
/// there.
const LOOK_INTERVAL_MS: u8 = 100;

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
    let (mut typed, mut waiting) = (Typed::default(), Vec::new());
    loop {
        let may_read = follow_foreground();
        propose(sender, &mut waiting, arrived);
        let mut waits_for = vec![PollFd::new(signals.as_fd(), PollFlags::POLLIN)];
        if may_read && waiting.len() < TYPED_BYTES_MAX {
            waits_for.push(PollFd::new(stdin.as_fd(), PollFlags::POLLIN));
        }
        // A wait that fails ends at once, and what it waited for is tried.
        let _ = poll(&mut waits_for, LOOK_INTERVAL_MS);
        let is_typed = waits_for.get(1).and_then(PollFd::any).unwrap_or(false);
        while let Ok(Some(signal)) = signals.read_signal() {
            follow_signal(signal.ssi_signo as i32);
        }
        if !is_typed || !in_foreground() {
            continue;
        }
        match read_some() {
            Ok(bytes) if bytes.is_empty() => return,
            Ok(bytes) => {
                typed.tell_apart(&bytes, &mut waiting, carry_out);
                propose(sender, &mut waiting, arrived);
            }
            Err(Errno::EAGAIN) => {}
            Err(_) if !in_foreground() => {}
            Err(_) => return,
        }
    }
}

/// Takes the terminal or leaves it alone, and says once whose the keys have become. True if it may
/// be read.
fn follow_foreground() -> bool {
    let (may_read, has_news) = {
        let mut terminal = terminal();
        (terminal.follow_foreground(), terminal.has_news())
    };
    if has_news {
        tracing::info!(
            "the guest reads its console: every key is the guest's from here on, Ctrl-C too; \
             Ctrl-A x stops lockstep, Ctrl-A h tells of other keys"
        );
    }
    may_read
}

/// Gives typed bytes to the guest; what it does not take stays.
fn propose(sender: &Sender<Vec<u8>>, waiting: &mut Vec<u8>, arrived: &impl Fn()) {
    while !waiting.is_empty() {
        let rest = waiting.split_off(waiting.len().min(READ_BYTES));
        match sender.try_send(std::mem::replace(waiting, rest)) {
            Ok(()) => arrived(),
            Err(TrySendError::Full(bytes)) => {
                waiting.splice(..0, bytes);
                return;
            }
            // The guest has ended: nobody reads any more, but the terminal is still held.
            Err(TrySendError::Disconnected(_)) => waiting.clear(),
        }
    }
}

/// Carries out a wish; what it types into the guest goes behind `for_guest`.
fn carry_out(wish: Wish, for_guest: &mut Vec<u8>) {
    // A signal to oneself, or to one's own group, is not refused.
    let _ = match wish {
        Wish::Stop => kill(Pid::this(), Signal::SIGINT),
        // What the terminal does: the other processes of the job stop too.
        Wish::Suspend => kill(Pid::from_raw(0), Signal::SIGTSTP),
        Wish::Size => {
            match tcgetwinsize(std::io::stdin()) {
                Ok(size) if size.ws_row > 0 && size.ws_col > 0 => {
                    for_guest.extend(format!("stty rows {} cols {}\r", size.ws_row, size.ws_col).bytes());
                }
                _ => tracing::warn!("the terminal does not say how large it is: nothing is typed"),
            }
            Ok(())
        }
        Wish::Help => {
            tracing::info!("{KEYS}");
            Ok(())
        }
    };
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

    fn bytes(text: &str) -> Vec<u8> {
        text.as_bytes().to_vec()
    }

    #[test]
    fn what_the_guest_does_not_take_is_kept_in_order() {
        let (sender, receiver) = bounded(1);
        let mut waiting = bytes("a");
        propose(&sender, &mut waiting, &|| {});
        assert_eq!(waiting, bytes(""));
        waiting.extend(b"b");
        propose(&sender, &mut waiting, &|| {});
        waiting.extend(b"c");
        assert_eq!(waiting, bytes("bc"));
        assert_eq!(receiver.recv(), Ok(bytes("a")));
        propose(&sender, &mut waiting, &|| {});
        assert_eq!(receiver.recv(), Ok(bytes("bc")));
        drop(receiver);
        waiting.extend(b"d");
        propose(&sender, &mut waiting, &|| {});
        assert_eq!(waiting, bytes(""));
    }

    #[test]
    fn what_waits_goes_in_pieces_of_bounded_length() {
        let (sender, receiver) = bounded(2);
        let text = bytes(&"0123456789".repeat(300));
        let mut waiting = text.clone();
        propose(&sender, &mut waiting, &|| {});
        assert_eq!(waiting.len(), text.len() - 2 * READ_BYTES);
        let taken: Vec<u8> = receiver.try_iter().flatten().collect();
        assert_eq!([taken, waiting].concat(), text);
    }
}
