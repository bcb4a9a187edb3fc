//! A process that does not outlive its test, and what it says.

use super::{PATIENCE, wait_until};
use nix::fcntl::OFlag;
use nix::sys::prctl::set_pdeathsig;
use nix::sys::signal::{SigHandler, Signal, kill, signal};
use nix::unistd::Pid;
use std::fs::File;
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// What one pipe has brought so far.
#[derive(Debug)]
struct Collected {
    bytes: Arc<Mutex<Vec<u8>>>,
    reader: Option<JoinHandle<()>>,
}

impl Collected {
    /// Of what is no pipe.
    fn nothing() -> Self {
        Self {
            bytes: Arc::default(),
            reader: None,
        }
    }

    fn from(mut pipe: impl Read + Send + 'static) -> Self {
        let bytes = Arc::new(Mutex::new(Vec::new()));
        let place = bytes.clone();
        let reader = thread::spawn(move || {
            let mut buffer = [0; 16 * 1024];
            while let Ok(count @ 1..) = pipe.read(&mut buffer) {
                place
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .extend_from_slice(&buffer[..count]);
            }
        });
        Self {
            bytes,
            reader: Some(reader),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn text(&self) -> String {
        String::from_utf8_lossy(&self.lock()).into_owned()
    }

    /// After the process has ended: everything it wrote.
    fn finish(&mut self) -> String {
        if let Some(reader) = self.reader.take() {
            let _ = reader.join();
        }
        self.text()
    }
}

/// How a process ended, and everything it said.
#[derive(Clone, Debug)]
pub struct Ended {
    /// What was run.
    pub name: String,
    /// Its status.
    pub status: ExitStatus,
    /// Its standard output.
    pub stdout: String,
    /// Its standard error.
    pub stderr: String,
}

impl Ended {
    /// Its exit status, if it was not a signal that ended it.
    #[must_use]
    pub fn code(&self) -> Option<i32> {
        self.status.code()
    }

    /// Fails unless it ended with `code`.
    ///
    /// # Panics
    /// It did not.
    #[must_use = "what it said may be of interest; `let _` otherwise"]
    pub fn expect_code(self, code: i32) -> Self {
        assert_eq!(self.code(), Some(code), "{self}");
        self
    }

    /// Fails unless it named every one of `texts` on standard error.
    ///
    /// # Panics
    /// It did not.
    pub fn expect_named(&self, texts: &[&str]) {
        for text in texts {
            assert!(self.stderr.contains(text), "`{text}` is not named by {self}");
        }
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let Self {
            name,
            status,
            stdout,
            stderr,
        } = self;
        write!(
            formatter,
            "{name}: {status}\n--- stdout\n{stdout}\n--- stderr\n{stderr}"
        )
    }
}

/// Signals that whoever starts the tests may have ignored (nohup, `&` in a shell without job
/// control). A process inherits that, and a shell cannot trap what was ignored when it started.
const IGNORED_BY_STARTERS: [Signal; 3] = [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT];

/// Makes `command` start with the default actions of [`IGNORED_BY_STARTERS`], whatever they are
/// here.
#[expect(unsafe_code, reason = "what runs between fork and exec")]
pub fn with_default_signals(command: &mut Command) -> &mut Command {
    let before_exec = || {
        for ignored in IGNORED_BY_STARTERS {
            // SAFETY: the default action runs no code of this process.
            unsafe { signal(ignored, SigHandler::SigDfl) }?;
        }
        Ok(())
    };
    // SAFETY: three system calls, which touch no memory and take no lock.
    unsafe { command.pre_exec(before_exec) }
}

/// A process that is no longer there when its caller's thread is gone, even by SIGKILL, and to
/// which an interrupt from the terminal does not come: that is for its caller. Signals do to it
/// what they do to a process that an operator starts.
#[expect(unsafe_code, reason = "what runs between fork and exec")]
fn tied(command: &mut Command) -> &mut Command {
    let before_exec = || Ok(set_pdeathsig(Signal::SIGKILL)?);
    // SAFETY: one system call, which touches no memory and takes no lock.
    unsafe { with_default_signals(command).pre_exec(before_exec) }.process_group(0)
}

/// True if the program `tool` is installed: it says its version.
#[must_use]
pub fn is_installed(tool: &str) -> bool {
    Command::new(tool).arg("--version").output().is_ok()
}

/// What a process writes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stream {
    /// Standard output.
    Output,
    /// Standard error.
    Error,
}

/// A stream of a process that goes to a file instead of a pipe: `/dev/full`, a terminal, a FIFO
/// that somebody reads.
#[derive(Clone, Debug)]
pub struct Redirect {
    /// Which.
    pub stream: Stream,
    /// Where to.
    pub path: PathBuf,
}

impl Redirect {
    fn apply(&self, command: &mut Command) {
        let file = File::options()
            .write(true)
            .custom_flags(OFlag::O_NOCTTY.bits())
            .open(&self.path)
            .unwrap_or_else(|why| panic!("cannot open {}: {why}", self.path.display()));
        match self.stream {
            Stream::Output => command.stdout(file),
            Stream::Error => command.stderr(file),
        };
    }
}

/// A running process, killed and reaped with this value.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    stdin: Option<ChildStdin>,
    stdout: Collected,
    stderr: Collected,
}

impl Process {
    /// Starts `command`, with pipes for all it says; what it reads comes from [`Process::type_in`].
    ///
    /// # Panics
    /// It does not start.
    #[must_use]
    pub fn start(name: &str, command: &mut Command) -> Self {
        Self::start_redirected(name, command, &[])
    }

    /// The same, with some streams to elsewhere.
    ///
    /// # Panics
    /// It does not start.
    #[must_use]
    pub fn start_redirected(name: &str, command: &mut Command, redirects: &[Redirect]) -> Self {
        Self::start_with(name, command, Stdio::piped(), redirects)
    }

    /// As [`Process::start`], but it reads from `input`, such as a terminal.
    ///
    /// # Panics
    /// It does not start.
    #[must_use]
    pub fn start_reading(name: &str, command: &mut Command, input: impl Into<Stdio>) -> Self {
        Self::start_with(name, command, input.into(), &[])
    }

    fn start_with(name: &str, command: &mut Command, input: Stdio, redirects: &[Redirect]) -> Self {
        command.stdin(input).stdout(Stdio::piped()).stderr(Stdio::piped());
        redirects.iter().for_each(|redirect| redirect.apply(command));
        let mut child = tied(command)
            .spawn()
            .unwrap_or_else(|why| panic!("cannot start {command:?}: {why}"));
        let stdin = child.stdin.take();
        let stdout = child
            .stdout
            .take()
            .map_or_else(Collected::nothing, Collected::from);
        let stderr = child
            .stderr
            .take()
            .map_or_else(Collected::nothing, Collected::from);
        // What was opened for the process is open in it alone.
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Self {
            name: name.to_owned(),
            child,
            stdin,
            stdout,
            stderr,
        }
    }

    /// Its process number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends it `signal`.
    ///
    /// # Panics
    /// It is not there.
    pub fn signal(&self, signal: Signal) {
        // Not reaped yet, so the number is still its own.
        kill(Pid::from_raw(self.child.id() as i32), signal)
            .unwrap_or_else(|why| panic!("cannot send {signal} to {}: {why}", self.name));
    }

    /// Writes to its standard input.
    ///
    /// # Panics
    /// It takes none.
    pub fn type_in(&mut self, text: &str) {
        let stdin = self.stdin.as_mut().expect("standard input is open");
        stdin
            .write_all(text.as_bytes())
            .and_then(|()| stdin.flush())
            .expect("it reads");
    }

    /// What it has written to standard output so far.
    #[must_use]
    pub fn stdout(&self) -> String {
        self.stdout.text()
    }

    /// What it has written to standard error so far.
    #[must_use]
    pub fn stderr(&self) -> String {
        self.stderr.text()
    }

    /// True if it still runs (or is stopped).
    #[must_use]
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until standard output has `text`, and gives all of it.
    ///
    /// # Panics
    /// It does not come, or the process ends before.
    pub fn wait_for_stdout(&mut self, text: &str) -> String {
        self.wait_for(text, |process| process.stdout.text())
    }

    /// Waits until standard error has `text`, and gives all of it.
    ///
    /// # Panics
    /// It does not come, or the process ends before.
    pub fn wait_for_stderr(&mut self, text: &str) -> String {
        self.wait_for(text, |process| process.stderr.text())
    }

    fn wait_for(&mut self, text: &str, said: impl Fn(&Self) -> String) -> String {
        let name = self.name.clone();
        let all = (self.stdout.bytes.clone(), self.stderr.bytes.clone());
        let missing = move || {
            let text = |bytes: &Mutex<Vec<u8>>| {
                String::from_utf8_lossy(&bytes.lock().unwrap_or_else(PoisonError::into_inner)).into_owned()
            };
            format!(
                "{name} says no such thing\n--- stdout\n{}\n--- stderr\n{}",
                text(&all.0),
                text(&all.1)
            )
        };
        wait_until(
            || {
                // Looked at first: what an ended process said last is in its pipes.
                let running = self.is_running();
                let now = said(self);
                if now.contains(text) {
                    return Some(now);
                }
                assert!(
                    running || self.is_collecting(),
                    "`{text}` never came: {}",
                    missing()
                );
                None
            },
            || format!("`{text}`: {}", missing()),
        )
    }

    fn is_collecting(&self) -> bool {
        let collecting = |pipe: &Collected| pipe.reader.as_ref().is_some_and(|reader| !reader.is_finished());
        collecting(&self.stdout) || collecting(&self.stderr)
    }

    /// Waits for its end.
    ///
    /// # Panics
    /// It does not end within [`PATIENCE`]; it is killed then.
    pub fn wait(&mut self) -> Ended {
        drop(self.stdin.take());
        self.wait_with_input()
    }

    /// Waits for its end with its standard input still open.
    ///
    /// # Panics
    /// As [`Process::wait`].
    pub fn wait_with_input(&mut self) -> Ended {
        self.wait_within(PATIENCE)
    }

    /// The same, with another bound.
    ///
    /// # Panics
    /// It does not end within it; it is killed then.
    pub fn wait_within(&mut self, bound: Duration) -> Ended {
        let deadline = std::time::Instant::now() + bound;
        let status = loop {
            if let Some(status) = self.child.try_wait().expect("a child that can be waited for") {
                break status;
            }
            if std::time::Instant::now() > deadline {
                self.end();
                panic!(
                    "{} does not end\n--- stdout\n{}\n--- stderr\n{}",
                    self.name,
                    self.stdout.text(),
                    self.stderr.text()
                );
            }
            thread::sleep(super::LOOK_INTERVAL);
        };
        let (stdout, stderr) = (self.stdout.finish(), self.stderr.finish());
        Ended {
            name: self.name.clone(),
            status,
            stdout,
            stderr,
        }
    }

    /// Kills it with SIGKILL, and reaps it.
    ///
    /// # Panics
    /// It had ended before.
    pub fn kill(&mut self) -> Ended {
        self.signal(Signal::SIGKILL);
        let ended = self.wait();
        assert_eq!(
            ended.status.signal(),
            Some(Signal::SIGKILL as i32),
            "it had ended before: {ended}"
        );
        ended
    }

    fn end(&mut self) {
        // Both fail only where it has ended and been reaped already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.end();
        if thread::panicking() {
            eprintln!(
                "=== {}\n--- stdout\n{}\n--- stderr\n{}",
                self.name,
                self.stdout.finish(),
                self.stderr.finish()
            );
        }
    }
}

/// Runs `command` to its end.
///
/// # Panics
/// It does not end.
pub fn run(command: &mut Command) -> Ended {
    let name = format!("{command:?}");
    Process::start(&name, command).wait()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Signals that process `number` ignores, a bit each.
    fn ignored_by(number: u32) -> u64 {
        let status = std::fs::read_to_string(format!("/proc/{number}/status")).unwrap();
        let line = status.lines().find_map(|line| line.strip_prefix("SigIgn:"));
        u64::from_str_radix(line.unwrap().trim(), 16).unwrap()
    }

    #[test]
    #[expect(unsafe_code, reason = "actions of this process are changed")]
    fn a_process_ignores_no_signal_that_the_tests_were_started_to_ignore() {
        let set = |action| {
            for one in IGNORED_BY_STARTERS {
                // SAFETY: neither action runs code.
                unsafe { signal(one, action) }.unwrap();
            }
        };
        set(SigHandler::SigIgn);
        let process = Process::start("sleep", Command::new("sleep").arg("1000"));
        let (here, there) = (ignored_by(std::process::id()), ignored_by(process.id()));
        set(SigHandler::SigDfl);
        for signal in IGNORED_BY_STARTERS {
            let bit = 1 << (signal as u32 - 1);
            assert_ne!(here & bit, 0, "{signal} is ignored here");
            assert_eq!(there & bit, 0, "{signal} is ignored there");
        }
    }

    #[test]
    fn a_process_ends_with_the_thread_that_started_it() {
        let number = thread::spawn(|| {
            let process = Process::start("sleep", Command::new("sleep").arg("1000"));
            let number = process.id();
            // As where that thread is killed: nothing is dropped.
            std::mem::forget(process);
            number
        })
        .join()
        .unwrap();
        let state = || std::fs::read_to_string(format!("/proc/{number}/stat")).unwrap_or_default();
        // Nobody reaps it.
        wait_until(
            || (!state().contains(") S ")).then_some(()),
            || format!("the end of process {number}: {}", state()),
        );
    }
}
