//! Questions through the door, and reasons for which they are not served.

use crate::machine::divergence::Divergence;
use crate::machine::saved::SavedError;
use lockstep_logging_channel::{DeviceId, Sequence, Value};

/// A question of the guest to the outside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Question {
    /// The time-stamp counter.
    Tsc,
    /// Guest monotonic time.
    Monotonic,
    /// Wall time.
    Wall,
    /// This many random bytes.
    Random {
        /// Bytes wanted, at most [`RANDOM_BYTES_MAX`].
        length_bytes: u32,
    },
}

/// The most random bytes one question may ask for.
pub const RANDOM_BYTES_MAX: u32 = 64;

/// Why the door could not serve: the machine stops with it.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// The replayed run differs from the recorded one; the report is the text.
    #[error("divergence: {0}")]
    Diverged(Box<Divergence>),
    /// Stopped from outside, in good order.
    #[error("stopped from outside")]
    Stopped,
    /// The log ends before the run does, and nothing may go live here.
    #[error("the log ends before the run it describes: it was cut short")]
    Exhausted,
    /// Another machine has won the right to go on.
    #[error("fenced: another machine of this pair has gone on alone")]
    Fenced,
    /// The host cannot give what the guest asked for.
    #[error("the host gives no {what}: {why}")]
    Host {
        /// The thing that was asked for.
        what: &'static str,
        /// The host's answer.
        why: String,
    },
    /// An answer that is not one to the question.
    #[error("{question:?} was answered with {answer:?}, which is not an answer to it")]
    WrongAnswer {
        /// The question.
        question: Question,
        /// The answer.
        answer: Value,
    },
    /// A part of a common point, or what parts add up to, is not what the log says.
    #[error("the log's entry {sequence} cannot be taken: {why}", sequence = sequence.0)]
    Part {
        /// Number of the entry.
        sequence: Sequence,
        /// Description of the defect.
        why: SavedError,
    },
    /// The log could not be written or read.
    #[error(transparent)]
    Log(#[from] lockstep_logging_channel::LogError),
}

impl DoorError {
    /// Nothing is behind this disk.
    #[must_use]
    pub fn no_disk(device: DeviceId) -> Self {
        Self::Host {
            what: "disk",
            why: format!("nothing is behind {device}"),
        }
    }
}

/// Function through which a device asks the outside.
pub type Ask<'a> = &'a mut dyn FnMut(Question) -> Result<Value, DoorError>;

/// Guest monotonic time.
///
/// # Errors
/// The door's, or [`DoorError::WrongAnswer`].
pub fn monotonic(ask: Ask<'_>) -> Result<u64, DoorError> {
    let question = Question::Monotonic;
    match ask(question)? {
        Value::Monotonic(time_ns) => Ok(time_ns),
        answer => Err(DoorError::WrongAnswer { question, answer }),
    }
}

/// Wall time.
///
/// # Errors
/// As [`monotonic`].
pub fn wall(ask: Ask<'_>) -> Result<u64, DoorError> {
    let question = Question::Wall;
    match ask(question)? {
        Value::Wall(time_ns) => Ok(time_ns),
        answer => Err(DoorError::WrongAnswer { question, answer }),
    }
}

/// Time-stamp counter.
///
/// # Errors
/// As [`monotonic`].
pub fn tsc(ask: Ask<'_>) -> Result<u64, DoorError> {
    let question = Question::Tsc;
    match ask(question)? {
        Value::Tsc(ticks) => Ok(ticks),
        answer => Err(DoorError::WrongAnswer { question, answer }),
    }
}

/// So many random bytes.
///
/// # Errors
/// As [`monotonic`].
pub fn random(ask: Ask<'_>, length_bytes: u32) -> Result<Vec<u8>, DoorError> {
    let question = Question::Random { length_bytes };
    match ask(question)? {
        Value::Random(bytes) if bytes.len() == length_bytes as usize => Ok(bytes),
        answer => Err(DoorError::WrongAnswer { question, answer }),
    }
}
