//! Console input: standard input, a byte at a time where it is a terminal, which is put back on every exit path.
//!
//! The terminal keeps its signals: Ctrl-C still ends the program.

use crossbeam_channel::{Receiver, Sender, bounded};
use nix::sys::termios::{LocalFlags, SetArg, Termios, tcgetattr, tcsetattr};
use std::io::{IsTerminal, Read};
use std::sync::Mutex;
use std::thread;

/// Bytes taken from standard input at once; with the channel's length this bounds what waits for the guest: 16 KiB.
const READ_BYTES: usize = 1024;
const WAITING_READS: usize = 16;

/// The terminal as it was found, until it is put back.
static FOUND: Mutex<Option<Termios>> = Mutex::new(None);

/// Puts the terminal back when it is dropped. A panic and a signal put it back too.
#[derive(Debug)]
pub struct TerminalGuard(());

impl TerminalGuard {
    /// Takes bytes as they are typed, without echo, if standard input is a terminal.
    #[must_use]
    pub fn take() -> Self {
        let stdin = std::io::stdin();
        if stdin.is_terminal()
            && let Ok(found) = tcgetattr(&stdin)
        {
            let mut wanted = found.clone();
            wanted.local_flags &= !(LocalFlags::ICANON | LocalFlags::ECHO);
            if tcsetattr(&stdin, SetArg::TCSANOW, &wanted).is_ok() {
                remember(Some(found));
                let previous = std::panic::take_hook();
                std::panic::set_hook(Box::new(move |panic| {
                    restore();
                    previous(panic);
                }));
            }
        }
        Self(())
    }
}

fn remember(found: Option<Termios>) {
    if let Ok(mut place) = FOUND.lock() {
        *place = found;
    }
}

/// Puts the terminal back, if it was taken.
pub fn restore() {
    let found = FOUND.lock().ok().and_then(|mut place| place.take());
    if let Some(found) = found {
        // Nothing can be done about a terminal that is gone.
        let _ = tcsetattr(std::io::stdin(), SetArg::TCSANOW, &found);
    }
}

impl Drop for TerminalGuard {
    fn drop(&mut self) {
        restore();
    }
}

/// Reads standard input on a thread of its own, until its end. `arrived` is called after each read.
#[must_use]
pub fn read_input(arrived: impl Fn() + Send + 'static) -> Receiver<Vec<u8>> {
    let (sender, receiver) = bounded(WAITING_READS);
    // The thread may block in its read for ever; the program does not wait for it.
    let started = thread::Builder::new()
        .name("console".to_owned())
        .spawn(move || forward(&sender, &arrived));
    if let Err(why) = started {
        tracing::warn!(%why, "no console input");
    }
    receiver
}

fn forward(sender: &Sender<Vec<u8>>, arrived: &impl Fn()) {
    let mut buffer = [0; READ_BYTES];
    let mut stdin = std::io::stdin().lock();
    loop {
        match stdin.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(length) => {
                let bytes = buffer.get(..length).unwrap_or_default().to_vec();
                if sender.send(bytes).is_err() {
                    return;
                }
                arrived();
            }
        }
    }
}
