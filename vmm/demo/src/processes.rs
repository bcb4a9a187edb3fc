//! A process of the demonstration: started, signalled, and never left behind.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::path::PathBuf;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{Signal, kill};
use nix::unistd::{Pid, getpid, getppid};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::DemoError;
use super::command_lines::Places;

/// A process that was told to end has this long: a guest that runs without exits is stopped within
/// 5 s.
const END_TIME_MAX: Duration = Duration::from_secs(10);

/// Lines quoted from what a process said.
const QUOTED_LINES: usize = 12;

/// This program, also where another one has come to its place since: two builds make no pair.
const EXECUTABLE: &str = "/proc/self/exe";

/// A running process, or one that has ended.
pub(super) struct Process {
    command: &'static str,
    child: Child,
    messages: PathBuf,
}

/// A process that ends with the demonstration, even where that is killed and can end nothing
/// itself. It is the end of the thread that starts the process which counts: the demonstration has
/// one, and lives as long as it.
#[expect(unsafe_code, reason = "what runs between fork and exec")]
fn tied(command: &mut Command) -> &mut Command {
    let parent = getpid();
    // SAFETY: two system calls, which touch no memory and take no lock.
    unsafe { command.pre_exec(move || Ok(end_with(parent)?)) }
}

/// Ends this process with `parent`. Refused where that has ended before the kernel was asked: it
/// would not say so any more.
fn end_with(parent: Pid) -> Result<(), Errno> {
    set_pdeathsig(Signal::SIGKILL)?;
    if getppid() == parent {
        Ok(())
    } else {
        Err(Errno::ESRCH)
    }
}

impl Process {
    /// Starts `lockstep` with `arguments`, the first of which is `command`. What it says goes into
    /// files at `places`, under its `name` here; its standard output can be taken where `piped`.
    pub(super) fn start(
        (command, name): (&'static str, &str),
        arguments: &[OsString],
        places: &Places,
        piped: bool,
    ) -> Result<Self, DemoError> {
        let failed = |source| DemoError::Spawn {
            process: command,
            source,
        };
        let messages = places.messages(name);
        let output = if piped {
            Stdio::piped()
        } else {
            File::create(places.console(name)).map_err(failed)?.into()
        };
        let child = tied(Command::new(EXECUTABLE).arg0("lockstep").args(arguments))
            .stdin(Stdio::null())
            .stdout(output)
            .stderr(File::create(&messages).map_err(failed)?)
            // An interrupt from the terminal is for the demonstration, which ends its processes
            // itself.
            .process_group(0)
            .kill_on_drop(true)
            .spawn()
            .map_err(failed)?;
        Ok(Self {
            command,
            child,
            messages,
        })
    }

    /// The child, to take its output.
    pub(super) fn child(&mut self) -> &mut Child {
        &mut self.child
    }

    /// Its number; 0 once it has ended.
    pub(super) fn id(&self) -> u32 {
        self.child.id().unwrap_or(0)
    }

    /// Sends it a signal, unless it has ended.
    pub(super) fn signal(&self, signal: Signal) {
        // The number stays taken until the child is waited for, which forgets it.
        if let Some(id) = self.child.id().and_then(|id| i32::try_from(id).ok()) {
            // It may be ending on its own: then there is nobody to tell.
            let _ = kill(Pid::from_raw(id), signal);
        }
    }

    /// An error where it has ended.
    pub(super) fn check(&mut self) -> Result<(), DemoError> {
        match self.child.try_wait() {
            Ok(Some(status)) => Err(DemoError::EndedEarly {
                process: self.command,
                status,
                messages: self.messages(),
            }),
            Ok(None) => Ok(()),
            Err(source) => Err(DemoError::Spawn {
                process: self.command,
                source,
            }),
        }
    }

    /// Waits until it has ended, for a limited time.
    pub(super) async fn ended(&mut self) -> Option<ExitStatus> {
        timeout(END_TIME_MAX, self.child.wait()).await.ok()?.ok()
    }

    /// Ends it, by force if it must be, and waits for it.
    pub(super) async fn end(&mut self) -> io::Result<ExitStatus> {
        self.signal(Signal::SIGTERM);
        // A stopped process takes it only when it goes on.
        self.signal(Signal::SIGCONT);
        if let Some(status) = self.ended().await {
            return Ok(status);
        }
        self.kill().await
    }

    /// Kills it and waits for it.
    pub(super) async fn kill(&mut self) -> io::Result<ExitStatus> {
        self.signal(Signal::SIGKILL);
        self.child.wait().await
    }

    /// The end of what it said.
    pub(super) fn messages(&self) -> String {
        let bytes = std::fs::read(&self.messages).unwrap_or_default();
        let text = String::from_utf8_lossy(&bytes);
        let lines: Vec<&str> = text.lines().collect();
        let from = lines.len().saturating_sub(QUOTED_LINES);
        lines.get(from..).unwrap_or_default().join("\n")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_whose_parent_is_gone_already_does_not_begin() {
        let somebody_else = Pid::from_raw(i32::MAX);
        assert_eq!(end_with(somebody_else), Err(Errno::ESRCH));
        assert_eq!(end_with(getppid()), Ok(()));
    }
}
