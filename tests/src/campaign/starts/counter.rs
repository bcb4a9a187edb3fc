//! A client that counts: it adds one to the same key again and again, over a new connection where
//! the one before is gone.

use crate::harness::clock::wall_us;
use crate::harness::{Client, Reply};
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// The key.
const KEY: &str = "count";
/// A machine that does not answer for so long is gone, or has not begun.
const ANSWER_LIMIT: Duration = Duration::from_millis(1_500);
/// Between two tries.
const PAUSE: Duration = Duration::from_millis(20);

/// A count that was answered. Times are of the clock of captures: they tell which machine gave it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counted {
    /// The value.
    pub value: u64,
    /// Time at which it was asked for.
    pub asked_us: u64,
    /// Time at which it was answered.
    pub at_us: u64,
}

/// A client under way.
#[derive(Debug)]
pub struct Counter {
    stopping: Arc<AtomicBool>,
    answers: Arc<AtomicU64>,
    thread: JoinHandle<Vec<Counted>>,
}

impl Counter {
    /// Starts one that counts behind `address`.
    #[must_use]
    pub fn start(address: SocketAddr) -> Self {
        let (stopping, answers) = (Arc::<AtomicBool>::default(), Arc::<AtomicU64>::default());
        let (shared, counted) = (stopping.clone(), answers.clone());
        let thread = thread::spawn(move || {
            let mut all = Vec::new();
            while !shared.load(Ordering::Relaxed) {
                // Whatever ends a connection, another one follows.
                let _ = count(address, &shared, &counted, &mut all);
                thread::sleep(PAUSE);
            }
            all
        });
        Self {
            stopping,
            answers,
            thread,
        }
    }

    /// Answers so far.
    #[must_use]
    pub fn answers(&self) -> u64 {
        self.answers.load(Ordering::Relaxed)
    }

    /// Ends it. Gives what it was answered.
    ///
    /// # Panics
    /// It has panicked.
    #[must_use]
    pub fn stop(self) -> Vec<Counted> {
        self.stopping.store(true, Ordering::Relaxed);
        self.thread.join().expect("a counter")
    }
}

fn count(
    address: SocketAddr,
    stopping: &AtomicBool,
    answers: &AtomicU64,
    all: &mut Vec<Counted>,
) -> io::Result<()> {
    let mut client = Client::open(address)?;
    client.stream()?.set_read_timeout(Some(ANSWER_LIMIT))?;
    while !stopping.load(Ordering::Relaxed) {
        let asked_us = wall_us();
        let Reply::Integer(value) = client.try_call(&["INCR", KEY])? else {
            return Err(io::Error::other("no number"));
        };
        all.push(Counted {
            value: value.unsigned_abs(),
            asked_us,
            at_us: wall_us(),
        });
        answers.fetch_add(1, Ordering::Relaxed);
        thread::sleep(Duration::from_millis(1));
    }
    Ok(())
}
