//! What clients did and saw: each operation with the times between which it took effect.

use serde_json::{Value, json};
use std::fmt;

/// What a client asked of one key. Every key holds a number, 0 where it is absent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Reads it.
    Read,
    /// Writes this.
    Write(u64),
    /// Writes this, and is told what was there.
    Swap(u64),
    /// Adds one, and is told the sum.
    Increment,
}

impl fmt::Display for Operation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Read => formatter.write_str("GET"),
            Self::Write(value) => write!(formatter, "SET {value}"),
            Self::Swap(value) => write!(formatter, "GETSET {value}"),
            Self::Increment => formatter.write_str("INCR"),
        }
    }
}

/// The answer that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// When, on the host's monotonic clock.
    pub at_ns: u64,
    /// What was read, or the sum; 0 for a write, which is told nothing.
    pub value: u64,
}

/// One operation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Who.
    pub client: usize,
    /// On what.
    pub key: String,
    /// What.
    pub operation: Operation,
    /// When it was sent, on the host's monotonic clock.
    pub invoked_ns: u64,
    /// What came of it; nothing where the pair was gone before.
    pub answer: Option<Answer>,
}

impl Record {
    /// As a line of the history that a failed round keeps.
    #[must_use]
    pub fn to_json(&self) -> Value {
        json!({
            "client": self.client,
            "key": self.key,
            "operation": self.operation.to_string(),
            "invoked_ns": self.invoked_ns,
            "answered_ns": self.answer.map(|answer| answer.at_ns),
            "answer": self.answer.map(|answer| answer.value),
        })
    }
}

impl fmt::Display for Record {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            formatter,
            "client {} {} {}",
            self.client, self.key, self.operation
        )?;
        match self.answer {
            Some(answer) => write!(
                formatter,
                " -> {} ({} to {} ns)",
                answer.value, self.invoked_ns, answer.at_ns
            ),
            None => write!(formatter, " unanswered (from {} ns)", self.invoked_ns),
        }
    }
}
