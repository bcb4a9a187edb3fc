//! Clients: each asks, waits for the answer, asks again where none comes, and remembers what it was told.

use super::requests::{Reply, Request};

/// What a client wants next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Waiting {
    /// It thinks until then.
    Thinking { until_ns: u64 },
    /// It waits for an answer, and asks again then.
    Asked { again_at_ns: u64 },
    /// It has asked its last question.
    Done,
}

/// A client.
#[derive(Debug)]
pub struct Client {
    id: u8,
    number: u32,
    waiting: Waiting,
    /// Guest time of the last answer.
    time_ns: u64,
    /// What it saw acknowledged: its request, and the place in the guest's log.
    pub acknowledged: Vec<(u8, u32, u32)>,
}

/// What an answer is to a client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Heard {
    /// The one it waits for.
    Answer,
    /// One it has had.
    Repeated,
    /// One that cannot be.
    Wrong(String),
}

impl Client {
    /// A client that asks first at `start_ns`.
    #[must_use]
    pub fn new(id: u8, start_ns: u64) -> Self {
        let waiting = Waiting::Thinking { until_ns: start_ns };
        Self {
            id,
            number: 1,
            waiting,
            time_ns: 0,
            acknowledged: Vec::new(),
        }
    }

    /// When it does something next.
    #[must_use]
    pub fn due_ns(&self) -> Option<u64> {
        match self.waiting {
            Waiting::Thinking { until_ns } => Some(until_ns),
            Waiting::Asked { again_at_ns } => Some(again_at_ns),
            Waiting::Done => None,
        }
    }

    /// The request it makes at `now_ns`, and whether it has made it before.
    pub fn ask(&mut self, now_ns: u64, patience_ns: u64) -> Option<(Request, bool)> {
        let again = matches!(self.waiting, Waiting::Asked { .. });
        if self.due_ns()? > now_ns {
            return None;
        }
        self.waiting = Waiting::Asked {
            again_at_ns: now_ns + patience_ns,
        };
        Some((
            Request {
                client: self.id,
                number: self.number,
                power_off: false,
            },
            again,
        ))
    }

    /// Takes an answer. The next request is made at `next_ns`, if there is one.
    pub fn hear(&mut self, reply: Reply, next_ns: Option<u64>) -> Heard {
        if reply.number < self.number {
            return Heard::Repeated;
        }
        if reply.number > self.number || !matches!(self.waiting, Waiting::Asked { .. }) {
            return Heard::Wrong(format!("client {} was answered {reply:?}, unasked", self.id));
        }
        if reply.time_ns < self.time_ns {
            return Heard::Wrong(format!("client {} saw guest time run backwards", self.id));
        }
        let previous = self.acknowledged.last().map(|(_, _, index)| *index);
        if previous >= Some(reply.index) {
            return Heard::Wrong(format!("client {} saw its writes change places", self.id));
        }
        self.acknowledged.push((self.id, reply.number, reply.index));
        self.time_ns = reply.time_ns;
        self.number += 1;
        self.waiting = next_ns.map_or(Waiting::Done, |until_ns| Waiting::Thinking { until_ns });
        Heard::Answer
    }

    /// Whether it has asked its last question and been answered.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.waiting == Waiting::Done
    }
}
