//! The door of a backup: a replayer until its log is exhausted and it has won the right to go on,
//! then a recorder.
//!
//! ```text
//!   replaying --(the log is exhausted, and the feed said so only after the test-and-set was won)--> live
//! ```
//!
//! The change happens inside one use of the door: the machine cannot tell. Without a way to go live
//! (offline replay), a log that is over before the run is [`DoorError::Exhausted`].

use super::mutant::{self, Mutant};
use super::recorder::{CaptureJournal, Journal, LiveDoor, Outside, Recorder, SavedAt, Start};
use super::replayer::{Feed, ReplayStop, Replayer, TimeFloor};
use super::role::Input;
use crate::machine::devices::saved::SavedDevice;
use crate::machine::door::{Door, DoorError, Horizon, Kick, Kicked, Met, NotFollowed, Question, Readiness};
use crate::machine::saved::{Page, SavedMachine};
use lockstep_logging_channel::{
    End, Event, ExecutionPoint, Generation, OutputTarget, PartDigest, Sequence, Value,
};

/// Point at which a replay left off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TakenOver {
    /// Number of the next entry.
    pub sequence: Sequence,
    /// Guest times must not be earlier.
    pub floor: TimeFloor,
    /// The machine's execution point.
    pub point: ExecutionPoint,
}

impl TakenOver {
    /// Input that reports it to the role machine.
    #[must_use]
    pub fn live_at<E, O>(&self) -> Input<E, O> {
        Input::LiveAt {
            sequence: Sequence(self.sequence.0.saturating_sub(1)),
            exits: self.point.exits,
        }
    }

    /// Start of the recording that goes on from it.
    #[must_use]
    pub fn start(&self, generation: Generation) -> Start {
        Start {
            generation,
            sequence: self.sequence,
        }
    }
}

/// Function that turns a replay into a live machine: makes its recorder.
pub type GoLive<O, J> = Box<dyn FnOnce(TakenOver) -> Result<Recorder<O, J>, DoorError>>;

enum Stage<F, O, J> {
    Replaying(Replayer<F>),
    Live(Recorder<O, J>),
}

/// The door of a backup.
pub struct Standby<F, O, J> {
    stage: Stage<F, O, J>,
    go_live: Option<GoLive<O, J>>,
}

impl<F: Feed, O: Outside, J: Journal> Standby<F, O, J> {
    /// A backup that replays first.
    pub fn new(replayer: Replayer<F>, go_live: Option<GoLive<O, J>>) -> Self {
        Self {
            stage: Stage::Replaying(replayer),
            go_live,
        }
    }

    /// The recorder: only a live machine makes common points.
    fn live(&mut self) -> Result<&mut Recorder<O, J>, DoorError> {
        match &mut self.stage {
            Stage::Live(recorder) => Ok(recorder),
            Stage::Replaying(_) => Err(NotFollowed.into()),
        }
    }

    /// Serves one use of the door from the log, or live when the log is exhausted.
    fn serve<T>(
        &mut self,
        point: ExecutionPoint,
        replay: impl Fn(&mut Replayer<F>) -> Result<T, ReplayStop>,
        live: impl FnOnce(&mut Recorder<O, J>) -> Result<T, DoorError>,
    ) -> Result<T, DoorError> {
        if let Stage::Replaying(replayer) = &mut self.stage {
            match replay(replayer) {
                Ok(served) => return Ok(served),
                Err(ReplayStop::Refused(error)) => return Err(error),
                Err(ReplayStop::Exhausted) => {
                    let go_live = self.go_live.take().ok_or(DoorError::Exhausted)?;
                    let sequence = replayer.last().next();
                    let floor = if mutant::is(Mutant::ForgetTime) {
                        TimeFloor::default()
                    } else {
                        replayer.floor()
                    };
                    let taken_over = TakenOver {
                        sequence,
                        floor,
                        point,
                    };
                    self.stage = Stage::Live(go_live(taken_over)?.after(floor));
                }
            }
        }
        match &mut self.stage {
            Stage::Live(recorder) => live(recorder),
            Stage::Replaying(_) => Err(DoorError::Exhausted),
        }
    }
}

impl<F: Feed, O: Outside, J: CaptureJournal> LiveDoor for Standby<F, O, J> {
    fn saved_at(&mut self, exits: u64) -> Result<Option<SavedAt>, DoorError> {
        match &mut self.stage {
            Stage::Replaying(_) => Ok(None),
            Stage::Live(recorder) => recorder.saved_at(exits),
        }
    }
}

impl<F: Feed, O: Outside, J: Journal> Door for Standby<F, O, J> {
    fn answer(&mut self, point: ExecutionPoint, question: Question) -> Result<Value, DoorError> {
        self.serve(
            point,
            |replayer| replayer.answer(point, question),
            |recorder| recorder.answer(point, question),
        )
    }

    fn arrival(
        &mut self,
        point: ExecutionPoint,
        readiness: Readiness<'_>,
    ) -> Result<Option<Event>, DoorError> {
        self.serve(
            point,
            |replayer| replayer.arrival(point, readiness),
            |recorder| recorder.arrival(point, readiness),
        )
    }

    fn horizon(&mut self, point: ExecutionPoint) -> Result<Horizon, DoorError> {
        self.serve(
            point,
            |replayer| replayer.horizon(point),
            |recorder| recorder.horizon(point),
        )
    }

    fn kicked(&mut self, kick: Kick<'_>) -> Result<Kicked, DoorError> {
        match &mut self.stage {
            Stage::Replaying(replayer) => replayer.kicked().map(|()| Kicked::RunsOn),
            Stage::Live(recorder) => recorder.kicked(kick),
        }
    }

    fn is_followed(&self) -> bool {
        match &self.stage {
            Stage::Replaying(_) => false,
            Stage::Live(recorder) => recorder.is_followed(),
        }
    }

    fn part(&mut self, point: ExecutionPoint, pages: Vec<Page>) -> Result<(), DoorError> {
        self.live()?.part(point, pages)
    }

    fn common_point(&mut self, point: ExecutionPoint, machine: SavedMachine) -> Result<(), DoorError> {
        self.live()?.common_point(point, machine)
    }

    fn meet(&mut self, point: ExecutionPoint, devices: &[SavedDevice]) -> Result<Met, DoorError> {
        match &mut self.stage {
            Stage::Replaying(replayer) => match replayer.meet(point, devices) {
                Ok(met) => Ok(met),
                Err(ReplayStop::Refused(error)) => Err(error),
                Err(ReplayStop::Exhausted) => Err(NotFollowed.into()),
            },
            Stage::Live(_) => Err(NotFollowed.into()),
        }
    }

    fn output(
        &mut self,
        point: ExecutionPoint,
        target: OutputTarget,
        bytes: Vec<u8>,
    ) -> Result<(), DoorError> {
        self.serve(
            point,
            |replayer| replayer.output(point, target, bytes.clone()),
            |recorder| recorder.output(point, target, bytes.clone()),
        )
    }

    fn digests(&mut self, point: ExecutionPoint, parts: Vec<PartDigest>) -> Result<(), DoorError> {
        self.serve(
            point,
            |replayer| replayer.digests(point, &parts),
            |recorder| recorder.digests(point, parts.clone()),
        )
    }

    fn end(&mut self, point: ExecutionPoint, end: End) -> Result<(), DoorError> {
        self.serve(
            point,
            |replayer| replayer.end(point, &end),
            |recorder| recorder.end(point, end.clone()),
        )
    }
}
