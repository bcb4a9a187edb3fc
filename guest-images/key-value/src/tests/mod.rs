//! Behaviour of the whole, as a client sees it.

mod append_only;
mod differential;
mod errors;
mod expiry;
mod numbers;
mod redis;
mod scan;
mod server;
mod streams;

pub(crate) use numbers::Numbers;

use crate::{Clock, Database, Limits, Next, Session};

/// A clock that stands still until it is moved.
pub(crate) struct TestClock {
    pub(crate) monotonic_ns: u64,
    pub(crate) wall_ns: u64,
    /// How often it was asked.
    pub(crate) asked: u32,
}

impl TestClock {
    fn new() -> Self {
        Self {
            monotonic_ns: 5_000_000_000,
            wall_ns: 1_700_000_000_123_456_789,
            asked: 0,
        }
    }

    fn pass_ms(&mut self, ms: u64) {
        self.monotonic_ns += ms * 1_000_000;
        self.wall_ns += ms * 1_000_000;
    }
}

impl Clock for TestClock {
    fn monotonic_ns(&mut self) -> u64 {
        self.asked += 1;
        self.monotonic_ns
    }

    fn wall_ns(&mut self) -> u64 {
        self.asked += 1;
        self.wall_ns
    }
}

/// A database with one client and a clock.
pub(crate) struct Server {
    pub(crate) database: Database,
    pub(crate) session: Session,
    pub(crate) clock: TestClock,
}

impl Server {
    pub(crate) fn new() -> Self {
        Self::with_memory(64 << 20)
    }

    pub(crate) fn with_memory(memory_bytes_max: usize) -> Self {
        let limits = Limits {
            memory_bytes_max,
            clients_max: 64,
        };
        Self {
            database: Database::new(limits),
            session: Session::new(7),
            clock: TestClock::new(),
        }
    }

    /// Sends bytes, until all that is complete is done.
    pub(crate) fn send(&mut self, input: &[u8]) -> (Vec<u8>, Next) {
        let mut replies = Vec::new();
        let mut next = self
            .session
            .receive(&mut self.database, &mut self.clock, input, &mut replies);
        while self.session.has_pending() {
            let mut more = Vec::new();
            next = self
                .session
                .receive(&mut self.database, &mut self.clock, b"", &mut more);
            replies.append(&mut more);
        }
        (replies, next)
    }

    /// Sends a line, gives the reply with its line ends as `|`.
    pub(crate) fn line(&mut self, line: &str) -> String {
        let (reply, _) = self.send(format!("{line}\r\n").as_bytes());
        String::from_utf8_lossy(&reply).trim_end().replace("\r\n", "|")
    }
}

/// A request as clients send it.
pub(crate) fn request(words: &[&[u8]]) -> Vec<u8> {
    let mut bytes = format!("*{}\r\n", words.len()).into_bytes();
    for word in words {
        bytes.extend_from_slice(format!("${}\r\n", word.len()).as_bytes());
        bytes.extend_from_slice(word);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes
}
