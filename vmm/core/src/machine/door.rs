//! The one door between the deterministic machine and everything that is not a function of its
//! state.
//!
//! A recorder stands in it on a live machine, a replayer on a backup; the machine cannot tell
//! which.

use super::devices::saved::SavedDevice;
use super::divergence::Divergence;
use super::saved::{Page, SavedError, SavedMachine};
use lockstep_logging_channel::{
    DeviceId, End, Event, EventKind, ExecutionPoint, OutputTarget, PartDigest, Sequence, Value,
};

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

/// Limit up to which the machine may run before it must ask for arrivals again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Horizon {
    /// To the next exit.
    Exit,
    /// To the next exit, or to wherever a kick finds it stoppable at an exact instruction.
    Kick,
    /// To this many instructions after the last exit, or the next exit if that comes first.
    Instructions(u64),
    /// Nowhere: a common point comes next, and is met with [`Door::meet`].
    CommonPoint,
}

/// Description of a guest that a kick has found between two execution points.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kick<'a> {
    /// An interrupt could be delivered right there.
    pub interruptible: bool,
    /// An interrupt waits to be delivered.
    pub interrupt_pending: bool,
    /// State of the machine as it would be reported if something could enter there.
    pub readiness: Readiness<'a>,
}

/// Consequence of a kick.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kicked {
    /// The guest runs on.
    RunsOn,
    /// A common point is to be made there.
    CommonPoint,
}

/// Content of a common point.
#[derive(Clone, Debug)]
pub struct Met {
    /// Memory pages that may be other than here.
    pub pages: Vec<Page>,
    /// The machine without its memory.
    pub machine: Box<SavedMachine>,
}

/// Arrivals that a device takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Takes {
    /// Frames.
    Frames {
        /// Receive buffers that it has.
        max: usize,
    },
    /// Typed bytes.
    ConsoleInput {
        /// Bytes that it has room for.
        bytes_max: usize,
    },
    /// The expiry of its timer.
    Expiry {
        /// Guest monotonic time of the next, in nanoseconds.
        deadline_ns: Option<u64>,
        /// It has expired at this execution point already: it may not again before the guest runs
        /// on, however short its period is.
        entered: bool,
    },
}

impl Takes {
    /// True if this is a thing that the device takes, whether or not it has room for it now.
    #[must_use]
    pub fn fits(self, kind: &EventKind) -> bool {
        matches!(
            (self, kind),
            (Self::Frames { .. }, EventKind::Frame(_))
                | (Self::ConsoleInput { .. }, EventKind::ConsoleInput(_))
                | (Self::Expiry { .. }, EventKind::Timer)
        )
    }
}

/// A device that takes arrivals, and what it takes now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Taker {
    /// The device.
    pub device: DeviceId,
    /// Its arrivals.
    pub takes: Takes,
}

/// Readiness of the machine to take arrivals, reported when it asks what has arrived.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Readiness<'a> {
    /// Between exits, and the guest cannot take an interrupt here: nothing may enter.
    pub closed: bool,
    /// The guest is halted and only an event can wake it: the door waits.
    pub idle: bool,
    /// Every device of the board that takes arrivals, by their numbers.
    pub takers: &'a [Taker],
}

impl Readiness<'_> {
    /// Timers: guest time at which each expires next, and whether it may at this execution point.
    fn expiries(self) -> impl Iterator<Item = (u64, bool)> {
        self.takers.iter().filter_map(|taker| match taker.takes {
            Takes::Expiry {
                deadline_ns: Some(deadline_ns),
                entered,
            } => Some((deadline_ns, !entered)),
            _ => None,
        })
    }

    /// Guest time at which the next timer expires, in nanoseconds.
    #[must_use]
    pub fn next_deadline_ns(self) -> Option<u64> {
        self.expiries().map(|(deadline_ns, _)| deadline_ns).min()
    }

    /// Guest time at which the next timer may expire that has not at this execution point.
    #[must_use]
    pub fn waits_until_ns(self) -> Option<u64> {
        let open = self.expiries().filter(|(_, may)| *may);
        open.map(|(deadline_ns, _)| deadline_ns).min()
    }

    /// True if the event is of a sort that its device takes.
    #[must_use]
    pub fn fits(self, event: &Event) -> bool {
        let mut takers = self.takers.iter();
        takers.any(|taker| taker.device == event.device && taker.takes.fits(&event.kind))
    }
}

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

/// Refusal of a door that has announced no common point, and wants none.
#[derive(Clone, Copy, Debug)]
pub struct NotFollowed;

impl From<NotFollowed> for DoorError {
    fn from(NotFollowed: NotFollowed) -> Self {
        Self::Host {
            what: "common point",
            why: "none was announced".to_owned(),
        }
    }
}

/// The door. Every use is at an execution point at which the machine is whole: no access is half
/// done.
///
/// # Errors
/// Every use may refuse with [`DoorError`]; the machine then stops where it is.
#[allow(clippy::missing_errors_doc, reason = "said once for all uses, above")]
pub trait Door {
    /// Answers a question of the guest.
    fn answer(&mut self, point: ExecutionPoint, question: Question) -> Result<Value, DoorError>;

    /// The next event that enters at `point`, or none. Waits where `readiness.idle`.
    fn arrival(
        &mut self,
        point: ExecutionPoint,
        readiness: Readiness<'_>,
    ) -> Result<Option<Event>, DoorError>;

    /// Limit up to which the machine may run from `point`.
    fn horizon(&mut self, point: ExecutionPoint) -> Result<Horizon, DoorError>;

    /// A kick found the guest where it cannot be stopped exactly: refuses if the run is to end.
    fn kicked(&mut self, kick: Kick<'_>) -> Result<Kicked, DoorError>;

    /// True where somebody follows this machine, so that common points have to say where it is.
    fn is_followed(&self) -> bool {
        false
    }

    /// Takes pages for the next common point, [`PAGES_PER_PART`](super::saved::pages::PAGES_PER_PART)
    /// at most, as they are now. `point` is the last execution point.
    fn part(&mut self, _point: ExecutionPoint, _pages: Vec<Page>) -> Result<(), DoorError> {
        Err(NotFollowed.into())
    }

    /// Takes a common point.
    fn common_point(&mut self, _point: ExecutionPoint, _machine: SavedMachine) -> Result<(), DoorError> {
        Err(NotFollowed.into())
    }

    /// Gives the common point that comes next, where the machine at `point` has `devices`.
    fn meet(&mut self, _point: ExecutionPoint, _devices: &[SavedDevice]) -> Result<Met, DoorError> {
        Err(NotFollowed.into())
    }

    /// Takes what leaves the guest.
    fn output(
        &mut self,
        point: ExecutionPoint,
        target: OutputTarget,
        bytes: Vec<u8>,
    ) -> Result<(), DoorError>;

    /// Takes digests of the machine's parts, at every interval.
    fn digests(&mut self, point: ExecutionPoint, parts: Vec<PartDigest>) -> Result<(), DoorError>;

    /// Takes the end of the run.
    fn end(&mut self, point: ExecutionPoint, end: End) -> Result<(), DoorError>;
}
