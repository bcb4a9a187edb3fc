//! What a command works with.

use crate::client::Client;
use crate::database::{Clock, Database};
use crate::reply::Reply;
use crate::session::Next;

const NS_PER_MS: u64 = 1_000_000;

/// The time of one call, asked for once and only if needed: asking may cost a machine exit and a log entry.
pub(crate) struct Moment<'a> {
    clock: &'a mut dyn Clock,
    monotonic_ms: Option<u64>,
    wall_ns: Option<u64>,
}

impl<'a> Moment<'a> {
    /// The time this clock will show.
    pub(crate) fn new(clock: &'a mut dyn Clock) -> Self {
        Self {
            clock,
            monotonic_ms: None,
            wall_ns: None,
        }
    }

    /// Milliseconds since the machine started, the same during one call.
    pub(crate) fn monotonic_ms(&mut self) -> u64 {
        match self.monotonic_ms {
            Some(time) => time,
            None => *self.monotonic_ms.insert(self.clock.monotonic_ns() / NS_PER_MS),
        }
    }

    /// Nanoseconds since 1970, now.
    pub(crate) fn wall_ns(&mut self) -> u64 {
        *self.wall_ns.insert(self.clock.wall_ns())
    }

    /// What the last question for the wall clock since the last call of this got.
    pub(crate) fn take_wall_ns(&mut self) -> Option<u64> {
        self.wall_ns.take()
    }

    /// Milliseconds since 1970, now.
    pub(crate) fn wall_ms(&mut self) -> u64 {
        self.wall_ns() / NS_PER_MS
    }
}

/// What a command works with.
pub(crate) struct Context<'a, 'clock> {
    /// The keys, limits and numbers.
    pub(crate) database: &'a mut Database,
    /// Who asked.
    pub(crate) client: &'a mut Client,
    /// When.
    pub(crate) moment: &'a mut Moment<'clock>,
    /// Where the reply goes.
    pub(crate) reply: Reply<'a>,
    /// What becomes of the connection.
    pub(crate) next: Next,
}
