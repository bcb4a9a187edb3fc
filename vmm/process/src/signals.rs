//! SIGTERM, SIGINT and SIGHUP end every command within a second, in every state; a machine with disks
//! or with much memory to digest says that it takes longer ([`takes_longer`], [`machine_starts`]).
//!
//! A thread waits for them from the first moment on, and all others have them blocked: there is no
//! handler, and a signal that the thread has not taken is still the system's (signalfd(2)). A command
//! that listens gets the signal and stops in good order: a machine at its next execution point, a pair
//! with a Goodbye. The thread ends the process itself where no command listens, and where the good
//! order takes too long, because a command can be inside a system call that does not return (storage
//! that hangs, a FIFO without a writer).
//!
//! ```text
//!   signal -> a command listens  -> it ends by itself              its status
//!                                -> not within the limit           1 if a machine ran, else as below
//!          -> no command listens -> ended at once                  0 where nothing but a start was given up, else 1
//! ```
//!
//! Others that end a process by default do so here too ([`AT_ONCE`]), once the terminal has been put
//! back.
//!
//! SIGHUP stays ignored where it was ignored at the start (nohup). SIGXFSZ does not end the
//! process: the write that passes the limit fails with its own error.

use super::console;
use super::status::Status;
use super::writing::standard;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::SigSet;
pub use nix::sys::signal::Signal;
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::time::{ClockId, clock_gettime};
use nix::unistd::gettid;
use signal_hook::consts::SIGXFSZ;
use signal_hook::low_level;
use std::io;
use std::os::fd::AsFd;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, mpsc};
use std::thread::{self, Builder};
use std::time::Duration;
use tokio::sync::watch;

/// Signals with which nothing is stopped in good order: SIGQUIT is Ctrl-\ on a terminal.
const AT_ONCE: [Signal; 6] = [
    Signal::SIGQUIT,
    Signal::SIGALRM,
    Signal::SIGVTALRM,
    Signal::SIGPROF,
    Signal::SIGUSR2,
    Signal::SIGXCPU,
];

/// A command that listens has this long. With [`LAST_WORDS_LIMIT`] it is under a second.
const ORDER_LIMIT: Duration = Duration::from_millis(700);
/// A machine that ends digests its memory: as long as it computes, it has this time beside
/// [`ORDER_LIMIT`], at the rate of an emulated host that is busy. For 64 MiB, 8 s.
const DIGESTED_BYTES_PER_MS: u64 = 8 << 10;
/// How often it is looked whether it computes.
const COMPUTING_LOOK: Duration = Duration::from_millis(200);
/// Processor time in between by which it does. What waits in a system call uses none, and a replica
/// loop that goes on less.
const COMPUTING_MIN: Duration = Duration::from_millis(2);
/// Putting the terminal back waits for nothing but a processor, which is long in coming on a busy
/// host; the limit is for a terminal that hangs.
const RESTORE_LIMIT: Duration = Duration::from_secs(1);
/// Saying why may block, and is then left undone.
const LAST_WORDS_LIMIT: Duration = Duration::from_millis(125);

/// The signal that came.
static ASKED: LazyLock<watch::Sender<Option<Signal>>> = LazyLock::new(|| watch::Sender::new(None));

/// Held while a signal is taken from the system, until it is told.
static TAKING: Mutex<()> = Mutex::new(());

fn taking() -> MutexGuard<'static, ()> {
    TAKING.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Memory of the machine that runs, in bytes; 0 before there is one.
static MACHINE_BYTES: AtomicU64 = AtomicU64::new(0);

/// Begins to wait for signals. Threads that were started before are not to take any; those that are
/// started later by this one have these blocked, and no others, whatever the parent process had: a
/// vCPU is woken by a signal. `given_up` is the status of a command that is ended before a machine of
/// its own runs.
///
/// # Errors
/// The system refuses a descriptor or a thread.
pub fn watch(given_up: Status) -> io::Result<()> {
    signal_hook::flag::register(SIGXFSZ, Arc::new(AtomicBool::new(false)))?;
    let others = AT_ONCE.into_iter().chain([Signal::SIGHUP]);
    let wanted: SigSet = [Signal::SIGTERM, Signal::SIGINT]
        .into_iter()
        .chain(others.filter(|signal| !is_ignored(*signal)))
        .collect();
    let waiting = SignalFd::with_flags(&wanted, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
    let wait = move || wait_for_ever(&waiting, given_up);
    // The thread begins with all blocked, as its last words may stop in a terminal's background.
    SigSet::all().thread_set_mask()?;
    let begun = Builder::new().name("signals".to_owned()).spawn(wait);
    wanted.thread_set_mask()?;
    begun.map(|_| ())
}

fn wait_for_ever(waiting: &SignalFd, given_up: Status) -> ! {
    loop {
        // A wait that fails ends at once, and what it waited for is tried.
        let _ = poll(
            &mut [PollFd::new(waiting.as_fd(), PollFlags::POLLIN)],
            PollTimeout::NONE,
        );
        let taking = taking();
        let taken = waiting.read_signal().ok().flatten();
        let Some(signal) = taken.and_then(|taken| Signal::try_from(taken.ssi_signo as i32).ok()) else {
            continue;
        };
        if AT_ONCE.contains(&signal) {
            end_at_once(signal)
        }
        // One stop in good order is enough.
        if ASKED.borrow().is_some() {
            continue;
        }
        standard::hurry();
        // Before it is told: a command that stops at once listens no longer.
        let listens = ASKED.receiver_count() > 0;
        ASKED.send_replace(Some(signal));
        drop(taking);
        let end = move || asked_to_end(signal, listens, given_up);
        if Builder::new().name("end".to_owned()).spawn(end).is_err() {
            end()
        }
    }
}

/// Puts another program in the place of this process, by execve(2) in `replace`. The program begins
/// with the signals of [`watch()`] blocked, and those that this process has not taken wait for it.
///
/// Comes back where a signal was taken before, with `None`: nothing more is to begin. Otherwise with
/// the error of `replace`.
pub fn replace_process(replace: impl FnOnce() -> io::Error) -> Option<io::Error> {
    let _taking = taking();
    ASKED.borrow().is_none().then(replace)
}

/// Time beside [`ORDER_LIMIT`] that a command was given, in milliseconds.
static LONGER_MS: AtomicU64 = AtomicU64::new(0);

/// From now on a machine of this much memory runs: a stop that is not orderly is a failure.
pub fn machine_starts(memory_bytes: u64) {
    MACHINE_BYTES.store(memory_bytes, Ordering::Relaxed);
}

/// From now on the command has this much longer to stop in good order: the disks of its machine
/// finish what they were asked.
pub fn takes_longer(by: Duration) {
    LONGER_MS.store(by.as_millis() as u64, Ordering::Relaxed);
}

fn end_at_once(signal: Signal) -> ! {
    within(RESTORE_LIMIT, console::restore);
    // Does not return: each of them ends the process.
    let _ = low_level::emulate_default_handler(signal as i32);
    low_level::exit(Status::Failure as i32)
}

fn asked_to_end(signal: Signal, listens: bool, given_up: Status) -> ! {
    if !listens {
        end(move || tracing::info!("{signal}: ended"), given_up);
    }
    let memory_bytes = MACHINE_BYTES.load(Ordering::Relaxed);
    thread::sleep(ORDER_LIMIT);
    thread::sleep(Duration::from_millis(LONGER_MS.load(Ordering::Relaxed)));
    wait_while_computing(Duration::from_millis(memory_bytes / DIGESTED_BYTES_PER_MS));
    let status = if MACHINE_BYTES.load(Ordering::Relaxed) > 0 {
        Status::Failure
    } else {
        given_up
    };
    let words = move || tracing::error!("{signal}: the command does not stop in good order, and was ended");
    end(words, status)
}

/// Waits until this process no longer computes, and no longer than `limit`.
fn wait_while_computing(limit: Duration) {
    let mut left = limit;
    while !left.is_zero() {
        let before = processor_time();
        let look = COMPUTING_LOOK.min(left);
        thread::sleep(look);
        left -= look;
        let computed = processor_time().saturating_sub(before) >= COMPUTING_MIN;
        if !computed && !wants_processor() {
            return;
        }
    }
}

/// True if another thread of this process runs, or would if a processor were free: on a busy host it
/// may have waited for one since the last look.
fn wants_processor() -> bool {
    let own = gettid().to_string();
    let threads = std::fs::read_dir("/proc/self/task")
        .into_iter()
        .flatten()
        .flatten();
    threads
        .filter(|thread| thread.file_name() != own.as_str())
        .filter_map(|thread| std::fs::read_to_string(thread.path().join("stat")).ok())
        .any(|stat| is_runnable(&stat))
}

/// The state of proc_pid_stat(5): it stands behind the name, which may hold anything.
fn is_runnable(stat: &str) -> bool {
    stat.rsplit_once(") ")
        .is_some_and(|(_, rest)| rest.starts_with('R'))
}

/// Processor time of all threads of this process; none where the system does not tell.
fn processor_time() -> Duration {
    clock_gettime(ClockId::CLOCK_PROCESS_CPUTIME_ID).map_or(Duration::ZERO, Duration::from)
}

fn end(words: impl FnOnce() + Send + 'static, status: Status) -> ! {
    within(RESTORE_LIMIT, console::restore);
    within(LAST_WORDS_LIMIT, || {
        words();
        standard::flush();
    });
    low_level::exit(status as i32)
}

/// Does something that may block for ever, and waits for it no longer than `limit`.
fn within(limit: Duration, work: impl FnOnce() + Send + 'static) {
    let (done, is_done) = mpsc::channel();
    let begun = Builder::new().spawn(move || {
        work();
        // Nobody waits any more when it took too long.
        let _ = done.send(());
    });
    if begun.is_ok() {
        // Too late or not at all: the process ends all the same.
        let _ = is_done.recv_timeout(limit);
    }
}

/// Whether this process was started with `signal` ignored.
fn is_ignored(signal: Signal) -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    ignored_in(&status, signal)
}

/// The mask of proc_pid_status(5): bit 0 is signal 1.
fn ignored_in(status: &str, signal: Signal) -> bool {
    status
        .lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask >> (signal as i32 - 1) & 1 == 1)
}

/// A command's way to hear that it is to end. While there is one, the command has time to stop in
/// good order.
pub struct Signals(watch::Receiver<Option<Signal>>);

impl Signals {
    /// Listens. A signal that came before is heard too.
    #[must_use]
    pub fn listen() -> Self {
        let mut receiver = ASKED.subscribe();
        if receiver.borrow().is_some() {
            receiver.mark_changed();
        }
        Self(receiver)
    }

    /// Hears what somebody in this process says, and no signal.
    #[must_use]
    pub fn of(asked: watch::Receiver<Option<Signal>>) -> Self {
        Self(asked)
    }

    /// True once a signal has come, also where it was received before: what it was to stop may have
    /// ended by itself at that moment, and nothing more is to begin.
    #[must_use]
    pub fn have_come(&self) -> bool {
        self.0.borrow().is_some()
    }

    /// Waits for a signal; each is given once. Cancel-safe.
    pub async fn received(&mut self) {
        if self.0.changed().await.is_err() {
            // The sender is static.
            return std::future::pending().await;
        }
        let name = self.0.borrow().map_or("a signal", Signal::as_str);
        tracing::info!("{name}: stopping");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ignored_signals_are_those_of_the_mask() {
        let status = "Name:\tlockstep\nSigIgn:\t0000000001001001\nSigCgt:\tffff\n";
        assert!(ignored_in(status, Signal::SIGHUP));
        assert!(!ignored_in(status, Signal::SIGTERM));
        assert!(!ignored_in("", Signal::SIGHUP));
    }

    #[test]
    fn the_state_of_a_thread_stands_behind_its_name() {
        assert!(is_runnable("7 (vcpu) R 1 7 7 0"));
        assert!(!is_runnable("7 (vcpu) S 1 7 7 0"));
        assert!(!is_runnable("7 (a ) R) S 1 7 7 0"));
        assert!(!is_runnable(""));
    }

    #[test]
    fn a_thread_that_computes_is_seen_to_want_a_processor() {
        let done = Arc::new(AtomicBool::new(false));
        let computing = done.clone();
        let thread = thread::spawn(move || while !computing.load(Ordering::Relaxed) {});
        assert!(wants_processor());
        done.store(true, Ordering::Relaxed);
        thread.join().unwrap();
    }

    #[test]
    fn what_blocks_is_not_waited_for() {
        let (unblock, blocked) = mpsc::channel::<()>();
        within(Duration::from_millis(1), move || {
            let _ = blocked.recv();
        });
        unblock.send(()).unwrap();
    }
}
