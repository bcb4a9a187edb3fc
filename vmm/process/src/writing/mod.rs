//! Output for people and programs: a bounded queue and a thread for each descriptor, so that nobody
//! who reads, or no longer reads, can stop, slow or end what writes.
//!
//! | who | queue | when it is full |
//! | --- | --- | --- |
//! | console of `run`, `record`, `replay`, `verify` | standard output | the guest waits for the reader, until a signal ends the command |
//! | console of a replica, lines of `demo` and `switch` | standard output | the oldest text is dropped |
//! | messages, progress, panics | standard error | the oldest text is dropped |
//! | `--report` | its file | the oldest text is dropped |
//!
//! Dropped text is counted, and a mark with the number of bytes takes its place ([`queue`]). A
//! descriptor that refuses (a full disk, a broken pipe, a terminal that was hung up) loses the text
//! in the same way; it is tried again with the next. `log`, `doctor`, `--help` and `--print-config`
//! run no machine: they write by [`standard::Printer`], and fail where it fails.

pub mod queue;
pub mod standard;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::SigSet;
use queue::{Mark, Queue};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;
use tokio::sync::Notify;

/// Text that may wait for a descriptor: a guest that prints a hundred lines a second fills it in
/// two minutes.
pub const WAITING_BYTES_MAX: usize = 1024 * 1024;

/// Back to the line's beginning, and erase from there (ECMA-48: CR, EL).
const ERASE: &str = "\r\x1b[K";

/// Told when a descriptor refuses for the first time.
pub type Refused = fn(why: &io::Error);

struct State {
    queue: Queue,
    /// A portion is on its way.
    writing: bool,
    /// No thread writes: it could not be started.
    dead: bool,
    /// Nobody waits for room any more.
    hurried: bool,
    /// The last text is a line of progress that nothing has ended.
    progress_open: bool,
}

struct Shared {
    state: Mutex<State>,
    /// Text came.
    filled: Condvar,
    /// Room came, or nobody is to wait for it.
    emptied: Condvar,
    /// The same, for tasks.
    progress: Notify,
}

/// The queue of one descriptor. Clones share it.
#[derive(Clone)]
pub struct Writer(Arc<Shared>);

impl Writer {
    /// Starts a writer to `target`.
    #[must_use]
    pub fn start(name: &str, target: impl AsFd + Send + 'static, mark: Mark, refused: Refused) -> Self {
        let state = State {
            queue: Queue::new(WAITING_BYTES_MAX, mark),
            writing: false,
            dead: false,
            hurried: false,
            progress_open: false,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            filled: Condvar::new(),
            emptied: Condvar::new(),
            progress: Notify::new(),
        });
        let writer = Self(shared);
        let for_thread = writer.clone();
        // The thread may be blocked in a write for ever; the program does not wait for it.
        let started = thread::Builder::new()
            .name(name.to_owned())
            .spawn(move || for_thread.write_for_ever(&target, refused));
        if started.is_err() {
            writer.lock().dead = true;
        }
        writer
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A panic of another thread leaves the queue as whole as it was.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes text, at once; the oldest is dropped where there is no room. After an open line of
    /// progress it begins on a line of its own.
    pub fn push(&self, text: &[u8]) {
        self.put(self.lock(), text);
    }

    /// Takes a line of progress in place of the one before; an empty one clears it. For terminals.
    pub fn rewrite(&self, line: &str) {
        let mut state = self.lock();
        state.progress_open = !line.is_empty();
        self.put_text(state, format!("{ERASE}{line}").as_bytes());
    }

    /// Takes text, and waits for room unless the program is to end.
    pub fn push_when_there_is_room(&self, text: &[u8]) {
        let waits = |state: &mut State| !state.queue.has_room(text.len()) && !state.hurried && !state.dead;
        let state = self.0.emptied.wait_while(self.lock(), waits);
        self.put(state.unwrap_or_else(PoisonError::into_inner), text);
    }

    fn put(&self, mut state: MutexGuard<'_, State>, text: &[u8]) {
        if std::mem::take(&mut state.progress_open) {
            state.queue.push(b"\n");
        }
        self.put_text(state, text);
    }

    fn put_text(&self, mut state: MutexGuard<'_, State>, text: &[u8]) {
        state.queue.push(text);
        if state.dead {
            state.queue.give_up();
        }
        drop(state);
        self.0.filled.notify_one();
    }

    /// From now on nobody waits for room.
    pub fn hurry(&self) {
        self.lock().hurried = true;
        self.0.emptied.notify_all();
    }

    /// Bytes dropped so far.
    #[must_use]
    pub fn dropped_bytes(&self) -> u64 {
        self.lock().queue.dropped_bytes()
    }

    /// Drops what waits, and counts it. True if there was anything.
    pub fn give_up(&self) -> bool {
        let mut state = self.lock();
        let waits = state.queue.waiting_bytes() > 0;
        state.queue.give_up();
        waits
    }

    fn is_written(&self) -> bool {
        let state = self.lock();
        !state.writing && state.queue.waiting_bytes() == 0
    }

    /// Waits until everything is written. Cancel-safe.
    pub async fn written(&self) {
        loop {
            // Made before the look, so that no progress is missed in between.
            let progress = self.0.progress.notified();
            if self.is_written() {
                return;
            }
            progress.await;
        }
    }

    /// Waits until everything is written, but not longer than until `deadline`. True if it is.
    pub fn wait_until_written(&self, deadline: Instant) -> bool {
        let mut state = self.lock();
        while state.writing || state.queue.waiting_bytes() > 0 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return false;
            }
            let woken = self.0.emptied.wait_timeout(state, left);
            state = woken.unwrap_or_else(PoisonError::into_inner).0;
        }
        true
    }

    fn write_for_ever(&self, target: &impl AsFd, refused: Refused) {
        // SIGTTOU among them: a terminal that wants no output from the background stops the
        // writer's process otherwise.
        let _ = SigSet::all().thread_block();
        let mut told = false;
        loop {
            let portion = {
                let empty = |state: &mut State| state.queue.waiting_bytes() == 0;
                let state = self.0.filled.wait_while(self.lock(), empty);
                let mut state = state.unwrap_or_else(PoisonError::into_inner);
                state.writing = true;
                state.queue.take()
            };
            let (written, outcome) = match &portion {
                Some(portion) => write_all(target.as_fd(), &portion.bytes),
                None => (0, Ok(())),
            };
            {
                let mut state = self.lock();
                state.writing = false;
                if let Some(portion) = &portion {
                    state.queue.settle(portion, written);
                }
            }
            self.0.emptied.notify_all();
            self.0.progress.notify_waiters();
            if let Err(why) = outcome
                && !std::mem::replace(&mut told, true)
            {
                refused(&why);
            }
        }
    }
}

/// Writes all of `bytes`, and waits where a descriptor that does not block takes none. The number
/// of bytes written, and what ended it.
pub fn write_all(target: BorrowedFd<'_>, bytes: &[u8]) -> (usize, io::Result<()>) {
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match nix::unistd::write(target, rest) {
            Ok(0) => return (written, Err(io::ErrorKind::WriteZero.into())),
            Ok(more) => written += more,
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => {
                // An error of the wait is one of the next write too.
                let _ = poll(&mut [PollFd::new(target, PollFlags::POLLOUT)], PollTimeout::NONE);
            }
            Err(why) => return (written, Err(why.into())),
        }
    }
    (written, Ok(()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::fcntl::{FcntlArg, OFlag, fcntl};
    use std::io::Read;
    use std::time::Duration;

    const PATIENCE: Duration = Duration::from_secs(30);

    fn mark(lost_bytes: u64) -> String {
        format!("[{lost_bytes} lost]\n")
    }

    fn writer(target: impl AsFd + Send + 'static) -> Writer {
        Writer::start("writer", target, mark, |_| {})
    }

    fn wait(writer: &Writer) {
        assert!(writer.wait_until_written(Instant::now() + PATIENCE));
    }

    #[test]
    fn text_arrives_in_order() {
        let (mut reader, target) = io::pipe().unwrap();
        let writer = writer(target);
        writer.push(b"one\n");
        writer.push(b"two\n");
        wait(&writer);
        let mut text = [0; 8];
        reader.read_exact(&mut text).unwrap();
        assert_eq!(&text, b"one\ntwo\n");
    }

    #[test]
    fn a_message_begins_on_a_line_of_its_own_behind_an_open_line_of_progress() {
        let (mut reader, target) = io::pipe().unwrap();
        let writer = writer(target);
        writer.rewrite("1 of 2");
        writer.rewrite("2 of 2");
        writer.push(b"one\n");
        writer.push(b"two\n");
        writer.rewrite("again");
        writer.rewrite("");
        writer.push(b"three\n");
        wait(&writer);
        drop(writer);
        let expected = "\r\x1b[K1 of 2\r\x1b[K2 of 2\none\ntwo\n\r\x1b[Kagain\r\x1b[Kthree\n";
        let mut text = vec![0; expected.len()];
        reader.read_exact(&mut text).unwrap();
        assert_eq!(String::from_utf8(text).unwrap(), expected);
    }

    #[test]
    fn a_descriptor_that_does_not_block_is_waited_for() {
        let (mut reader, target) = io::pipe().unwrap();
        fcntl(&target, FcntlArg::F_SETFL(OFlag::O_NONBLOCK)).unwrap();
        let writer = writer(target);
        let text = vec![b'x'; WAITING_BYTES_MAX / 2];
        writer.push(&text);
        let mut read = vec![0; text.len()];
        reader.read_exact(&mut read).unwrap();
        assert_eq!(read, text);
        wait(&writer);
        assert_eq!(writer.dropped_bytes(), 0);
    }

    #[test]
    fn a_reader_that_is_gone_costs_text_and_nothing_else() {
        let (reader, target) = io::pipe().unwrap();
        drop(reader);
        let writer = writer(target);
        writer.push(b"lost\n");
        wait(&writer);
        writer.push(b"lost too\n");
        wait(&writer);
        assert_eq!(writer.dropped_bytes(), 14);
    }

    #[test]
    fn a_full_queue_is_waited_for_until_it_is_said_to_hurry() {
        let (_reader, target) = io::pipe().unwrap();
        let writer = writer(target);
        writer.push(&vec![b'x'; WAITING_BYTES_MAX]);
        let waiting = thread::spawn({
            let writer = writer.clone();
            // Twice the queue: the pipe and the portion on its way hold less than the first of it.
            move || {
                (0..2).for_each(|_| writer.push_when_there_is_room(&vec![b'y'; WAITING_BYTES_MAX]));
            }
        });
        writer.hurry();
        waiting.join().unwrap();
        assert!(writer.dropped_bytes() > 0);
    }

    #[test]
    fn a_reader_that_is_slow_loses_nothing_of_what_waits_for_room() {
        let (mut reader, target) = io::pipe().unwrap();
        let writer = writer(target);
        let text = vec![b'x'; 3 * WAITING_BYTES_MAX];
        let pushed = thread::spawn({
            let (writer, text) = (writer.clone(), text.clone());
            move || {
                text.chunks(1000)
                    .for_each(|chunk| writer.push_when_there_is_room(chunk));
            }
        });
        let mut read = vec![0; text.len()];
        reader.read_exact(&mut read).unwrap();
        pushed.join().unwrap();
        assert_eq!(read, text);
        assert_eq!(writer.dropped_bytes(), 0);
    }

    #[test]
    fn a_flood_into_a_reader_that_stands_still_is_marked_with_what_is_missing() {
        let (mut reader, target) = io::pipe().unwrap();
        let writer = writer(target);
        let lines = (0..60_000).map(|line| format!("{line:063}\n"));
        lines.clone().for_each(|line| writer.push(line.as_bytes()));
        writer.push(b"the end\n");
        let mut text = Vec::new();
        while !text.ends_with(b"the end\n") {
            let mut buffer = [0; 4096];
            let count = reader.read(&mut buffer).unwrap();
            text.extend_from_slice(&buffer[..count]);
        }
        let text = String::from_utf8(text).unwrap();
        let lost = |line: &str| {
            line.strip_prefix('[')?
                .strip_suffix(" lost]")?
                .parse::<usize>()
                .ok()
        };
        let marks: Vec<usize> = text.lines().filter_map(lost).collect();
        let kept: Vec<&str> = text.lines().filter(|line| line.len() == 63).collect();
        assert!(kept.is_sorted() && kept.last() == Some(&format!("{:063}", 59_999).as_str()));
        assert_eq!(marks.len(), 1, "{marks:?}");
        assert_eq!(64 * kept.len() + marks[0], 64 * lines.len(), "{marks:?}");
        assert_eq!(writer.dropped_bytes(), marks[0] as u64);
    }

    #[test]
    fn the_wait_for_a_stopped_reader_has_a_bound() {
        let (_reader, target) = io::pipe().unwrap();
        let writer = writer(target);
        writer.push(&vec![b'x'; WAITING_BYTES_MAX / 2]);
        assert!(!writer.wait_until_written(Instant::now() + Duration::from_millis(1)));
        writer.give_up();
        assert!(writer.dropped_bytes() > 0);
    }
}
