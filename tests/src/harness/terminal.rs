//! A process on a terminal of its own, as the leader of a session whose terminal it is: what is
//! typed there are keys, and signals where the terminal makes signals of them.

use super::process::with_default_signals;
use super::wait_until;
use nix::pty::{OpenptyResult, openpty};
use nix::sys::signal::{Signal, kill};
use nix::sys::termios::{LocalFlags, tcgetattr};
use nix::unistd::{Pid, read, write};
use rustix::termios::{Winsize, tcsetwinsize};
use std::process::{Child, Command, ExitStatus};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;

/// Ctrl-A.
pub const CTRL_A: &str = "\x01";
/// Ctrl-C.
pub const CTRL_C: &str = "\x03";
/// Ctrl-Z.
pub const CTRL_Z: &str = "\x1a";

/// Whose keys are typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keys {
    /// The terminal's, as it was found: it makes lines of them.
    Lines,
    /// The program's that has taken the terminal, but for those that are signals.
    WithSignals,
    /// The program's, every one.
    Every,
}

impl Keys {
    fn flags(self) -> LocalFlags {
        match self {
            Self::Lines => LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG,
            Self::WithSignals => LocalFlags::ISIG,
            Self::Every => LocalFlags::empty(),
        }
    }
}

/// The process, killed and reaped with this value.
pub struct OnTerminal {
    child: Child,
    terminal: Option<OpenptyResult>,
    shown: Arc<Mutex<Vec<u8>>>,
}

impl OnTerminal {
    /// Starts `command` there; all three of its streams are the terminal.
    #[must_use]
    pub fn start(command: &Command) -> Self {
        let terminal = openpty(None, None).unwrap();
        // Leads a session, and takes this terminal as its own.
        let mut leading = Command::new("setsid");
        leading
            .arg("-c")
            .arg(command.get_program())
            .args(command.get_args());
        for (name, value) in command.get_envs() {
            match value {
                Some(value) => leading.env(name, value),
                None => leading.env_remove(name),
            };
        }
        let stream = || terminal.slave.try_clone().unwrap();
        leading.stdin(stream()).stdout(stream()).stderr(stream());
        let child = with_default_signals(&mut leading).spawn().unwrap();
        drop(leading);
        let shown = Arc::<Mutex<Vec<u8>>>::default();
        let (master, place) = (terminal.master.try_clone().unwrap(), shown.clone());
        // Ends once nobody has the terminal open any more.
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            while let Ok(count @ 1..) = read(&master, &mut buffer) {
                place
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .extend_from_slice(&buffer[..count]);
            }
        });
        Self {
            child,
            terminal: Some(terminal),
            shown,
        }
    }

    fn terminal(&self) -> &OpenptyResult {
        self.terminal.as_ref().unwrap()
    }

    /// Everything that it has shown.
    #[must_use]
    pub fn shown(&self) -> String {
        let shown = self.shown.lock().unwrap_or_else(PoisonError::into_inner);
        String::from_utf8_lossy(&shown).into_owned()
    }

    /// Waits until the terminal shows `text`.
    pub fn wait_for(&self, text: &str) {
        wait_until(
            || self.shown().contains(text).then_some(()),
            || format!("`{text}` on the terminal: {}", self.shown()),
        );
    }

    /// Types.
    pub fn type_in(&self, keys: &str) {
        assert_eq!(write(&self.terminal().master, keys.as_bytes()), Ok(keys.len()));
    }

    /// Makes the terminal as large as that.
    pub fn resize(&self, rows: u16, columns: u16) {
        let size = Winsize {
            ws_row: rows,
            ws_col: columns,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        tcsetwinsize(&self.terminal().master, size).unwrap();
    }

    fn flags(&self) -> LocalFlags {
        tcgetattr(&self.terminal().slave).unwrap().local_flags
            & (LocalFlags::ICANON | LocalFlags::ECHO | LocalFlags::ISIG)
    }

    /// True if the terminal makes of keys what they are for.
    #[must_use]
    pub fn has(&self, keys: Keys) -> bool {
        self.flags() == keys.flags()
    }

    /// Waits until it does.
    pub fn wait_until_it_has(&self, keys: Keys) {
        wait_until(
            || self.has(keys).then_some(()),
            || format!("a terminal with {keys:?}: {:?}; {}", self.flags(), self.shown()),
        );
    }

    /// Sends the process a signal.
    pub fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.child.id() as i32), signal).unwrap();
    }

    /// Waits for its end.
    pub fn wait(&mut self) -> ExitStatus {
        wait_until(
            || self.child.try_wait().unwrap(),
            || "the end of what runs on a terminal".to_owned(),
        )
    }

    /// A line that was typed and that nobody has read.
    #[must_use]
    pub fn unread(&self) -> String {
        let mut buffer = [0; 4096];
        let count = read(&self.terminal().slave, &mut buffer).unwrap();
        String::from_utf8_lossy(&buffer[..count]).into_owned()
    }
}

impl Drop for OnTerminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        if thread::panicking() {
            eprintln!("=== on its terminal\n{}", self.shown());
        }
        drop(self.terminal.take());
    }
}
