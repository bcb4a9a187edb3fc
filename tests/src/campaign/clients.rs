//! Clients under way: each holds one TCP connection, asks, and writes down what it asked, when, and what it was told.

use super::history::{Answer, Operation, Record};
use super::session::{COUNTERS, SHARED, diary};
use crate::harness::clock::monotonic_ns;
use crate::harness::{Client, Reply};
use crate::simulator::rng::{Rng, mix};
use std::collections::BTreeMap;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::Duration;

/// A client that has the last word: it reads every key when all others have stopped.
const LAST: usize = usize::MAX;

/// One value in so many is long.
const LONG_ONE_IN: u64 = 8;
/// Five full frames.
const LONG_BYTES_MAX: u64 = 7_000;

/// What a client came back with.
#[derive(Debug)]
pub struct Account {
    /// Everything it did.
    pub history: Vec<Record>,
    /// What broke its connection, if something did.
    pub broken: Option<String>,
}

#[derive(Debug, Default)]
struct Shared {
    stopping: AtomicBool,
    /// Answers to each client.
    answered: Vec<AtomicU64>,
    /// For closing connections to which no answer will come.
    streams: Mutex<Vec<TcpStream>>,
}

/// Clients under way.
#[derive(Debug)]
pub struct Clients {
    shared: Arc<Shared>,
    threads: Vec<JoinHandle<Account>>,
}

impl Clients {
    /// Starts `count` of them, which draw what they do from `seed`.
    #[must_use]
    pub fn start(address: SocketAddr, count: usize, seed: u64) -> Self {
        Self::start_each((0..count).map(|_| move || Client::open(address)).collect(), seed)
    }

    /// Starts one on each of these connections: a guest that takes long to boot has answered.
    #[must_use]
    pub fn start_on(connections: Vec<Client>, seed: u64) -> Self {
        Self::start_each(
            connections.into_iter().map(|client| || Ok(client)).collect(),
            seed,
        )
    }

    fn start_each<F: FnOnce() -> io::Result<Client> + Send + 'static>(opens: Vec<F>, seed: u64) -> Self {
        let count = opens.len();
        let answered = (0..count).map(|_| AtomicU64::new(0)).collect();
        let shared = Arc::new(Shared {
            answered,
            ..Shared::default()
        });
        let threads = (0..).zip(opens);
        let threads = threads
            .map(|(client, open)| {
                let shared = shared.clone();
                let rng = Rng::new(mix(seed ^ mix(client as u64)));
                thread::spawn(move || work(&shared, open, client, count, rng))
            })
            .collect();
        Self { shared, threads }
    }

    /// Answers so far, of the client that has fewest.
    #[must_use]
    pub fn fewest_answers(&self) -> u64 {
        let answers = self
            .shared
            .answered
            .iter()
            .map(|count| count.load(Ordering::Relaxed));
        answers.min().unwrap_or(0)
    }

    /// Whether one has given up.
    #[must_use]
    pub fn any_broken(&self) -> bool {
        !self.shared.stopping.load(Ordering::Relaxed) && self.threads.iter().any(JoinHandle::is_finished)
    }

    /// Lets each have the answer it waits for, and gives what they came back with. `abandon`: no answer will come.
    ///
    /// # Panics
    /// One has panicked.
    #[must_use]
    pub fn stop(self, abandon: bool) -> Vec<Account> {
        self.shared.stopping.store(true, Ordering::Relaxed);
        if abandon {
            for stream in self
                .shared
                .streams
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .iter()
            {
                // Fails where the other side has closed first.
                let _ = stream.shutdown(Shutdown::Both);
            }
        }
        self.threads
            .into_iter()
            .map(|thread| thread.join().expect("a client"))
            .collect()
    }
}

fn work(
    shared: &Shared,
    open: impl FnOnce() -> io::Result<Client>,
    client: usize,
    clients: usize,
    mut rng: Rng,
) -> Account {
    let mut history = Vec::new();
    let outcome = open().and_then(|mut connection| {
        shared
            .streams
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(connection.stream()?);
        let mut writes = 0;
        while !shared.stopping.load(Ordering::Relaxed) {
            let (key, operation) = draw(&mut rng, client, clients, &mut writes);
            ask(&mut connection, client, key, operation, &mut history)?;
            shared.answered[client].fetch_add(1, Ordering::Relaxed);
            if rng.once_in(4) {
                // Clients that are not all busy all the time meet in more ways.
                thread::sleep(Duration::from_micros(rng.below(2_000)));
            }
        }
        Ok(())
    });
    let broken = outcome.err().map(|why| why.to_string());
    Account { history, broken }
}

fn draw(rng: &mut Rng, client: usize, clients: usize, writes: &mut u64) -> (String, Operation) {
    // A value that nobody else writes tells where it comes from.
    let mut value = || {
        *writes += 1;
        (client as u64 + 1) * 1_000_000 + *writes
    };
    match rng.below(10) {
        0 | 1 => (diary(client), Operation::Write(value())),
        2 => (diary(client), Operation::Read),
        3 => (diary(rng.below(clients as u64) as usize), Operation::Read),
        4 | 5 => (COUNTERS[rng.below(2) as usize].to_owned(), Operation::Increment),
        6 => (COUNTERS[rng.below(2) as usize].to_owned(), Operation::Read),
        7 => (
            SHARED[rng.below(3) as usize].to_owned(),
            Operation::Write(value()),
        ),
        8 => (SHARED[rng.below(3) as usize].to_owned(), Operation::Swap(value())),
        _ => (SHARED[rng.below(3) as usize].to_owned(), Operation::Read),
    }
}

/// Asks, and writes it down, answered or not.
fn ask(
    connection: &mut Client,
    client: usize,
    key: String,
    operation: Operation,
    history: &mut Vec<Record>,
) -> io::Result<u64> {
    let invoked_ns = monotonic_ns();
    let reply = match operation {
        Operation::Read => connection.try_call(&["GET", &key]),
        Operation::Write(value) => connection.try_call(&["SET", &key, &text(value)]),
        Operation::Swap(value) => connection.try_call(&["GETSET", &key, &text(value)]),
        Operation::Increment => connection.try_call(&["INCR", &key]),
    };
    let at_ns = monotonic_ns();
    let value = reply.and_then(|reply| number(operation, &reply));
    let answer = value.as_ref().ok().map(|value| Answer { at_ns, value: *value });
    history.push(Record {
        client,
        key,
        operation,
        invoked_ns,
        answer,
    });
    value
}

/// A value as it is sent: some with so many leading zeros that they, and the answers that have them, take several frames.
fn text(value: u64) -> String {
    let width = if value.is_multiple_of(LONG_ONE_IN) {
        (mix(value) % LONG_BYTES_MAX) as usize
    } else {
        1
    };
    format!("{value:0>width$}")
}

fn number(operation: Operation, reply: &Reply) -> io::Result<u64> {
    let strange = || io::Error::other(format!("{operation} was answered {reply:?}"));
    match (operation, reply) {
        (Operation::Write(_), Reply::Simple(text)) if text == "OK" => Ok(0),
        (Operation::Increment, Reply::Integer(sum)) => u64::try_from(*sum).map_err(|_| strange()),
        (Operation::Read | Operation::Swap(_), Reply::Bulk(None)) => Ok(0),
        (Operation::Read | Operation::Swap(_), Reply::Bulk(Some(bytes))) => {
            let text = std::str::from_utf8(bytes).map_err(|_| strange())?;
            text.parse().map_err(|_| strange())
        }
        _ => Err(strange()),
    }
}

/// Reads every key over a new connection. What each held, and the reads themselves.
///
/// # Errors
/// The pair does not answer.
pub fn read_all(address: SocketAddr, clients: usize) -> io::Result<(BTreeMap<String, u64>, Vec<Record>)> {
    read_all_on(&mut Client::open(address)?, clients)
}

/// The same over this connection.
///
/// # Errors
/// The pair does not answer.
pub fn read_all_on(
    connection: &mut Client,
    clients: usize,
) -> io::Result<(BTreeMap<String, u64>, Vec<Record>)> {
    let keys = SHARED.iter().chain(&COUNTERS).map(|key| (*key).to_owned());
    let mut history = Vec::new();
    let mut held = BTreeMap::new();
    for key in keys.chain((0..clients).map(diary)) {
        let value = ask(connection, LAST, key.clone(), Operation::Read, &mut history)?;
        held.insert(key, value);
    }
    Ok((held, history))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_and_short_values_are_read_as_what_was_written() {
        let longest = (1..1_000).map(|value| text(value).len()).max();
        assert!(longest > Some(6_000), "{longest:?}");
        for value in 1..1_000 {
            let reply = Reply::bulk(&text(value));
            assert_eq!(number(Operation::Read, &reply).unwrap(), value);
        }
    }

    #[test]
    fn what_is_no_answer_is_refused() {
        assert!(number(Operation::Read, &Reply::bulk("12x")).is_err());
        assert!(number(Operation::Write(1), &Reply::Error("ERR".to_owned())).is_err());
        assert!(number(Operation::Increment, &Reply::Integer(-1)).is_err());
    }
}
