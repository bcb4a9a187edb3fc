//! The door of a backup: a replayer until its log is exhausted and it has won the right to go on,
//! then a recorder.
//!
//! ```text
//!   replaying --(the log is exhausted, and the feed said so only after the test-and-set was won)--> live
//! ```
//!
//! The change happens inside one use of the door: the machine cannot tell. Without a way to go live
//! (offline replay), a log that is over before the run is [`DoorError::Exhausted`].

use super::following::Following;
use super::mutant::{self, Mutant};
use super::recorder::{CaptureJournal, Journal, LiveDoor, Outside, Recorder, SavedAt, Start};
use super::replayer::{Feed, ReplayStop, Replayer, TimeFloor};
use super::role::Input;
use crate::machine::devices::saved::SavedDevice;
use crate::machine::disk::Request;
use crate::machine::door::{
    Door, DoorError, Followed, Horizon, Kick, Kicked, Met, NotFollowed, Question, Readiness,
};
use crate::machine::saved::{Page, SavedMachine};
use lockstep_logging_channel::{
    DeviceId, End, Event, ExecutionPoint, Generation, OutputTarget, PartDigest, Sequence, Value,
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
    Following(Following<F>),
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

    /// A backup that follows without running first.
    pub fn following(following: Following<F>, go_live: GoLive<O, J>) -> Self {
        Self {
            stage: Stage::Following(following),
            go_live: Some(go_live),
        }
    }

    /// Takes over behind entry `last`, with the machine at `point`.
    fn go_live(&mut self, last: Sequence, floor: TimeFloor, point: ExecutionPoint) -> Result<(), DoorError> {
        let go_live = self.go_live.take().ok_or(DoorError::Exhausted)?;
        let floor = if mutant::is(Mutant::ForgetTime) {
            TimeFloor::default()
        } else {
            floor
        };
        let taken_over = TakenOver {
            sequence: last.next(),
            floor,
            point,
        };
        self.stage = Stage::Live(go_live(taken_over)?.after(floor));
        Ok(())
    }

    /// The recorder: only a live machine makes common points.
    fn live(&mut self) -> Result<&mut Recorder<O, J>, DoorError> {
        match &mut self.stage {
            Stage::Live(recorder) => Ok(recorder),
            Stage::Replaying(_) | Stage::Following(_) => Err(NotFollowed.into()),
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
                    let (last, floor) = (replayer.last(), replayer.floor());
                    self.go_live(last, floor, point)?;
                }
            }
        }
        match &mut self.stage {
            Stage::Live(recorder) => live(recorder),
            Stage::Replaying(_) | Stage::Following(_) => Err(DoorError::Exhausted),
        }
    }
}

impl<F: Feed, O: Outside, J: CaptureJournal> LiveDoor for Standby<F, O, J> {
    fn saved_at(&mut self, exits: u64) -> Result<Option<SavedAt>, DoorError> {
        match &mut self.stage {
            Stage::Replaying(_) | Stage::Following(_) => Ok(None),
            Stage::Live(recorder) => recorder.saved_at(exits),
        }
    }

    fn begin_epochs(&mut self) {
        if let Stage::Live(recorder) = &mut self.stage {
            recorder.begin_epochs();
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
            Stage::Following(_) => Err(NotFollowed.into()),
            Stage::Live(recorder) => recorder.kicked(kick),
        }
    }

    fn is_followed(&self) -> bool {
        match &self.stage {
            Stage::Replaying(_) | Stage::Following(_) => false,
            Stage::Live(recorder) => recorder.is_followed(),
        }
    }

    fn has_epochs(&self) -> bool {
        match &self.stage {
            Stage::Replaying(_) | Stage::Following(_) => false,
            Stage::Live(recorder) => recorder.has_epochs(),
        }
    }

    fn is_common_point_due(&mut self, point: ExecutionPoint) -> Result<bool, DoorError> {
        match &mut self.stage {
            Stage::Replaying(_) | Stage::Following(_) => Ok(false),
            Stage::Live(recorder) => recorder.is_common_point_due(point),
        }
    }

    fn follow(&mut self, point: ExecutionPoint) -> Result<Followed, DoorError> {
        let Stage::Following(following) = &mut self.stage else {
            return Ok(Followed::Runs);
        };
        match following.next_common_point() {
            Ok(followed) => Ok(followed),
            Err(ReplayStop::Refused(error)) => Err(error),
            Err(ReplayStop::Exhausted) => {
                let (last, floor) = (following.last(), following.floor());
                self.go_live(last, floor, point)?;
                Ok(Followed::Live)
            }
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
            Stage::Following(_) | Stage::Live(_) => Err(NotFollowed.into()),
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

    fn disk_request(
        &mut self,
        point: ExecutionPoint,
        device: DeviceId,
        request: Request,
    ) -> Result<(), DoorError> {
        self.serve(
            point,
            |replayer| replayer.disk_request(point, device, &request),
            |recorder| recorder.disk_request(point, device, request.clone()),
        )
    }

    fn disk_done(
        &mut self,
        point: ExecutionPoint,
        device: DeviceId,
        request: Request,
    ) -> Result<(), DoorError> {
        match &mut self.stage {
            // Its own disk has done it too.
            Stage::Replaying(_) | Stage::Following(_) => Ok(()),
            Stage::Live(recorder) => recorder.disk_done(point, device, request),
        }
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
