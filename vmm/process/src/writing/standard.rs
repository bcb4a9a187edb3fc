//! Standard output and standard error of this process.

use super::{Writer, write_all};
use crate::console;
use std::backtrace::{Backtrace, BacktraceStatus};
use std::io::{self, IsTerminal};
use std::os::fd::AsFd;
use std::sync::{Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// Time that the end of the process, or a signal that is to end it, waits for text that is still to
/// be written. Half of the second in which SIGTERM ends every command.
pub const LAST_TEXT_LIMIT: Duration = Duration::from_millis(500);
/// Messages and reports have at least this long at the end, beside it.
const LAST_MESSAGE_LIMIT: Duration = Duration::from_millis(100);

static CONSOLE: OnceLock<Writer> = OnceLock::new();
static MESSAGES: OnceLock<Writer> = OnceLock::new();
/// Writers of files, flushed at the end of the process: one a `--report`.
static FILES: Mutex<Vec<Writer>> = Mutex::new(Vec::new());
/// When a signal asked the process to end.
static HURRIED: OnceLock<Instant> = OnceLock::new();

/// Standard output: the guest's console, and lines of commands that print some.
pub fn console() -> &'static Writer {
    CONSOLE.get_or_init(|| {
        let mark = |bytes| format!("[lockstep: {bytes} bytes of console text dropped]\n");
        Writer::start("output", io::stdout(), mark, |why| {
            tracing::warn!("standard output cannot be written, text for it is dropped: {why}");
        })
    })
}

/// Standard error.
pub fn messages() -> &'static Writer {
    MESSAGES.get_or_init(|| start_messages(false))
}

fn start_messages(json: bool) -> Writer {
    let text: super::queue::Mark = |bytes| format!("[lockstep: {bytes} bytes of messages dropped]\n");
    let line: super::queue::Mark = |bytes| {
        let fields = serde_json::json!({ "message": "messages were dropped", "bytes": bytes });
        format!("{}\n", serde_json::json!({ "level": "WARN", "fields": fields }))
    };
    // There is nobody left to tell.
    Writer::start("messages", io::stderr(), if json { line } else { text }, |_| {})
}

/// Prepares standard error for messages as text or as JSON lines, and for panics.
pub fn begin(json: bool) {
    // Set once: this is the beginning.
    let _ = MESSAGES.set(start_messages(json));
    std::panic::set_hook(Box::new(|panic| {
        console::restore();
        let thread = std::thread::current();
        let mut text = format!("\nthread '{}' {panic}\n", thread.name().unwrap_or("unnamed"));
        let backtrace = Backtrace::capture();
        if backtrace.status() == BacktraceStatus::Captured {
            text.push_str(&format!("{backtrace}\n"));
        }
        messages().push(text.as_bytes());
        messages().wait_until_written(Instant::now() + LAST_TEXT_LIMIT);
    }));
}

/// A file that is written until the end of the process.
pub fn keep(writer: Writer) {
    FILES.lock().unwrap_or_else(PoisonError::into_inner).push(writer);
}

/// A signal has asked the process to end: nobody waits for a reader any more.
pub fn hurry() {
    let _ = HURRIED.set(Instant::now());
    console().hurry();
}

/// Until when the end of the process waits for readers.
#[must_use]
pub fn last_text_deadline() -> Instant {
    HURRIED.get().copied().unwrap_or_else(Instant::now) + LAST_TEXT_LIMIT
}

/// True once a signal has asked the process to end.
#[must_use]
pub fn is_hurried() -> bool {
    HURRIED.get().is_some()
}

/// Drops what standard output has not taken, and says so.
pub fn give_up_console() {
    let console = console();
    if console.give_up() {
        let bytes = console.dropped_bytes();
        tracing::warn!(bytes, "standard output is not read: text for it was dropped");
    }
}

/// Waits, with a bound, until everything said so far is written.
pub fn flush() {
    let deadline = last_text_deadline();
    if let Some(console) = CONSOLE.get() {
        console.wait_until_written(deadline);
        give_up_console();
    }
    // Giving up the console may have taken all of the time, and its message still has to be
    // written.
    let deadline = deadline.max(Instant::now() + LAST_MESSAGE_LIMIT);
    let files = FILES.lock().unwrap_or_else(PoisonError::into_inner).clone();
    for writer in files.iter().chain(MESSAGES.get()) {
        let _ = writer.wait_until_written(deadline);
    }
}

/// Messages as `tracing` writes them: one write, one message.
#[derive(Clone, Copy, Debug)]
pub struct Messages;

impl io::Write for Messages {
    fn write(&mut self, message: &[u8]) -> io::Result<usize> {
        messages().push(message);
        Ok(message.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Standard output for a command that prints and does nothing else: it waits for the reader, and
/// fails where the reader fails.
#[derive(Debug)]
pub struct Printer(io::Stdout);

impl Printer {
    /// After what was said on standard error before.
    #[must_use]
    pub fn new() -> Self {
        messages().wait_until_written(last_text_deadline());
        Self(io::stdout())
    }
}

impl Default for Printer {
    fn default() -> Self {
        Self::new()
    }
}

impl io::Write for Printer {
    fn write(&mut self, text: &[u8]) -> io::Result<usize> {
        let (written, outcome) = write_all(self.0.as_fd(), text);
        match (written, outcome) {
            (0, Err(why)) => Err(why),
            (written, _) => Ok(written),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Prints to standard error without a queue, for what comes before there is one.
pub fn print_error(text: &str) {
    // Nothing can be done where standard error is closed.
    let _ = write_all(io::stderr().as_fd(), text.as_bytes());
}

/// True if standard output is a terminal.
#[must_use]
pub fn output_is_terminal() -> bool {
    io::stdout().is_terminal()
}

/// True if standard error is a terminal.
#[must_use]
pub fn error_is_terminal() -> bool {
    io::stderr().is_terminal()
}
