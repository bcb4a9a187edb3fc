//! The one door between the deterministic machine and everything that is not a function of its
//! state.
//!
//! A recorder stands in it on a live machine, a replayer on a backup; the machine cannot tell
//! which.

pub mod asking;
mod readiness;

pub use super::horizon::Horizon;
pub use asking::{Ask, DoorError, Question, RANDOM_BYTES_MAX, monotonic, random, tsc, wall};
pub use readiness::{Readiness, Taker, Takes};

use super::devices::saved::SavedDevice;
use super::disk::Request;
use super::saved::{Page, SavedMachine};
use lockstep_logging_channel::{
    DeviceId, End, EndReason, Event, ExecutionPoint, OutputTarget, PartDigest, Value,
};

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
    /// The place counts as an exit: nobody has to find it again.
    Exit,
    /// A common point is to be made there.
    CommonPoint,
}

/// Content of a common point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Met {
    /// Memory pages that may be other than here.
    pub pages: Vec<Page>,
    /// The machine without its memory.
    pub machine: Box<SavedMachine>,
}

/// Next thing that a machine meets which follows another one without running.
#[derive(Clone, Debug)]
pub enum Followed {
    /// A common point.
    Met(Met),
    /// Nothing any more: it runs live from where it is.
    Live,
    /// Nothing: it does not follow in this way, and runs.
    Runs,
    /// The end of the machine that it follows, and its execution point.
    Ended(EndReason, ExecutionPoint),
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

    /// True where the machine that follows does not run: each common point then has everything that
    /// was written since the last, and is made at once.
    fn has_epochs(&self) -> bool {
        false
    }

    /// True where a common point is due at `point`, wherever the guest stands.
    fn is_common_point_due(&mut self, _point: ExecutionPoint) -> Result<bool, DoorError> {
        Ok(false)
    }

    /// Gives what comes next where the machine at `point` follows without running. Waits for it.
    fn follow(&mut self, _point: ExecutionPoint) -> Result<Followed, DoorError> {
        Ok(Followed::Runs)
    }

    /// Takes pages for the next common point,
    /// [`PAGES_PER_PART`](super::saved::pages::PAGES_PER_PART) at most, as they are now. `point` is
    /// the last execution point.
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

    /// Takes what the guest asks of a disk. That it is done enters as an event, which gives the
    /// bytes of a read.
    fn disk_request(
        &mut self,
        _point: ExecutionPoint,
        device: DeviceId,
        _request: Request,
    ) -> Result<(), DoorError> {
        Err(DoorError::no_disk(device))
    }

    /// A disk has changed what it has, or made it durable, as it was asked to: that has entered. At
    /// the end of a machine with epochs also what it was asked for and has yet to do.
    fn disk_done(&mut self, _point: ExecutionPoint, _: DeviceId, _: Request) -> Result<(), DoorError> {
        Ok(())
    }

    /// Takes digests of the machine's parts, at every interval.
    fn digests(&mut self, point: ExecutionPoint, parts: Vec<PartDigest>) -> Result<(), DoorError>;

    /// Takes the end of the run.
    fn end(&mut self, point: ExecutionPoint, end: End) -> Result<(), DoorError>;
}
