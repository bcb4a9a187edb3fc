//! The replayer: the door of a backup, and of offline replay. It takes answers and arrivals from
//! the log at the same execution points, and compares what leaves.
//!
//! Between the last entry it has and the next one it does not know whether something enters: it
//! waits, unless it was told that the recording side has passed that exit.

mod disks;
mod feed;
mod matching;

use super::common::Staged;
use super::history::History;
use super::mutant::{self, Mutant};
use super::recorder::output_digest;
pub use super::time_floor::TimeFloor;
use crate::machine::devices::saved::SavedDevice;
use crate::machine::divergence::Divergence;
use crate::machine::door::{DoorError, Horizon, Met, NotFollowed, Question, Readiness};
pub use disks::DISK_PART;
pub use feed::{Fed, Feed, OwnRead};
use lockstep_logging_channel::view::{described, described_end};
use lockstep_logging_channel::{
    Body, End, EndReason, Entry, Event, EventKind, ExecutionPoint, OutputTarget, PartDigest, Sequence, Value,
};
use matching::{answers, as_recorded, asked, names};

/// Description of a guest that only an event can wake.
const IDLE: &str = "the guest is idle";

/// Function that describes what the guest does, should the words be needed.
type Doing<'a> = &'a dyn Fn() -> String;

/// Why the replayer does not serve.
#[derive(Debug)]
pub enum ReplayStop {
    /// The log ends before this use of the door.
    Exhausted,
    /// The door refuses.
    Refused(DoorError),
}

impl From<DoorError> for ReplayStop {
    fn from(error: DoorError) -> Self {
        Self::Refused(error)
    }
}

/// The replaying side of the door.
pub struct Replayer<F> {
    feed: F,
    next: Option<Entry>,
    /// No entry is to come at exits up to this one; before the first word of it, there may be one
    /// at exit 0.
    passed_exits: Option<u64>,
    history: History,
    floor: TimeFloor,
    last: Sequence,
    counts_instructions: bool,
    /// Parts of the common point that comes next.
    staged: Staged,
    /// The replay was told to stop: its end is nobody's business.
    stopped: bool,
}

impl<F: Feed> Replayer<F> {
    /// A replayer whose next entry is the one after the environment. `counts_instructions`: the
    /// recording has events between exits.
    pub fn new(feed: F, counts_instructions: bool) -> Self {
        Self {
            feed,
            next: None,
            passed_exits: None,
            history: History::default(),
            floor: TimeFloor::default(),
            last: Sequence::default(),
            counts_instructions,
            staged: Staged::default(),
            stopped: false,
        }
    }

    /// The same, for a machine with `memory_bytes` bytes of memory: no common point has more.
    #[must_use]
    pub fn of_memory(self, memory_bytes: u64) -> Self {
        Self {
            staged: Staged::of_memory(memory_bytes),
            ..self
        }
    }

    /// A replayer of a machine that was captured: its next entry is the one after `last`, and guest
    /// times go on from `floor`.
    pub fn from_capture(feed: F, counts_instructions: bool, last: Sequence, floor: TimeFloor) -> Self {
        Self {
            last,
            floor,
            ..Self::new(feed, counts_instructions)
        }
    }

    /// Number of the last entry met.
    #[must_use]
    pub fn last(&self) -> Sequence {
        self.last
    }

    /// The latest guest times in the log so far.
    #[must_use]
    pub fn floor(&self) -> TimeFloor {
        self.floor
    }

    /// The feed, when the replay is over.
    pub fn into_feed(self) -> F {
        self.feed
    }

    /// A kick.
    ///
    /// # Errors
    /// [`DoorError::Stopped`] or [`DoorError::Fenced`].
    pub fn kicked(&mut self) -> Result<(), DoorError> {
        let outcome = self.feed.kicked();
        self.stopped |= matches!(outcome, Err(DoorError::Stopped));
        outcome
    }

    /// Takes what the feed has next.
    fn fetch(&mut self, exits: u64) -> Result<(), ReplayStop> {
        let fed = self.feed.next(exits);
        self.stopped |= matches!(fed, Err(DoorError::Stopped));
        match fed? {
            Fed::Entry(entry) => match &entry.body {
                // It changes nothing before the common point comes.
                Body::Part(part) => {
                    let sequence = entry.sequence;
                    let taken = self.staged.take(entry.generation, sequence, part);
                    taken.map_err(|why| DoorError::Part { sequence, why })?;
                    self.last = sequence;
                    self.feed.replayed(sequence, entry.point.exits)?;
                }
                _ => self.next = Some(*entry),
            },
            Fed::Passed(passed) => self.passed_exits = self.passed_exits.max(Some(passed)),
            Fed::Exhausted => return Err(ReplayStop::Exhausted),
        }
        Ok(())
    }

    /// Fills `next`, waiting for it as long as something may still come at exits up to `exits`.
    fn look(&mut self, exits: u64) -> Result<Option<&Entry>, ReplayStop> {
        while self.next.is_none() && self.passed_exits < Some(exits) {
            self.fetch(exits)?;
        }
        Ok(self.next.as_ref())
    }

    /// Fills `next`, waiting for it however long: the guest is `doing` what the log has to know. A
    /// recording that has passed this exit without an entry did not do it.
    fn wait_for_entry(&mut self, point: ExecutionPoint, doing: Doing<'_>) -> Result<(), ReplayStop> {
        while self.next.is_none() {
            if self.passed_exits > Some(point.exits) {
                return Err(self.passed_by(point, doing()));
            }
            self.fetch(u64::MAX)?;
        }
        Ok(())
    }

    /// The entry that must be met now.
    fn expect(&mut self, point: ExecutionPoint, doing: Doing<'_>) -> Result<Entry, ReplayStop> {
        self.wait_for_entry(point, doing)?;
        self.next.take().ok_or(ReplayStop::Exhausted)
    }

    fn passed_by(&self, point: ExecutionPoint, found: String) -> ReplayStop {
        ReplayStop::Refused(DoorError::Diverged(Box::new(Divergence {
            sequence: self.last.next(),
            recorded_at: ExecutionPoint {
                exits: self.passed_exits.unwrap_or(0),
                ..ExecutionPoint::default()
            },
            found_at: point,
            part: "execution point".to_owned(),
            device: None,
            devices: Vec::new(),
            expected: format!("no entry up to exit {}", self.passed_exits.unwrap_or(0)),
            found,
            before: self.history.entries(),
        })))
    }

    fn met(&mut self, entry: Entry) -> Result<(), DoorError> {
        self.last = entry.sequence;
        self.floor.raise(&entry.body);
        let (sequence, exits) = (entry.sequence, entry.point.exits);
        self.history.push(entry);
        self.feed.replayed(sequence, exits)
    }

    fn diverged(
        &self,
        entry: &Entry,
        at: ExecutionPoint,
        part: &str,
        expected: String,
        found: String,
    ) -> ReplayStop {
        ReplayStop::Refused(DoorError::Diverged(Box::new(Divergence {
            sequence: entry.sequence,
            recorded_at: entry.point,
            found_at: at,
            part: part.to_owned(),
            device: entry.body.device(),
            devices: Vec::new(),
            expected,
            found,
            before: self.history.entries(),
        })))
    }

    /// The next entry must be at `point`, to the instruction, with the same instruction pointer
    /// where both know it.
    fn check_point(&self, entry: &Entry, point: ExecutionPoint, doing: Doing<'_>) -> Result<(), ReplayStop> {
        if entry.point.position() != point.position() {
            let expected = described(&entry.body);
            return Err(self.diverged(entry, point, "execution point", expected, doing()));
        }
        if entry.point.rip != 0 && point.rip != 0 && entry.point.rip != point.rip {
            let text = |rip: u64| format!("rip {rip:#x}");
            return Err(self.diverged(entry, point, "registers", text(entry.point.rip), text(point.rip)));
        }
        Ok(())
    }

    /// Answers a question from the log.
    ///
    /// # Errors
    /// [`ReplayStop`].
    pub fn answer(&mut self, point: ExecutionPoint, question: Question) -> Result<Value, ReplayStop> {
        let doing = || format!("the guest asks for {}", asked(question));
        let entry = self.expect(point, &doing)?;
        self.check_point(&entry, point, &doing)?;
        let value = match &entry.body {
            Body::Value(value) if answers(value, question) => value.clone(),
            other => {
                let (expected, found) = (described(other), asked(question));
                return Err(self.diverged(&entry, point, "question", expected, found));
            }
        };
        self.met(entry)?;
        Ok(value)
    }

    /// The next event, if it enters at `point`.
    ///
    /// # Errors
    /// [`ReplayStop`].
    pub fn arrival(
        &mut self,
        point: ExecutionPoint,
        readiness: Readiness<'_>,
    ) -> Result<Option<Event>, ReplayStop> {
        if readiness.idle {
            self.wait_for_entry(point, &|| IDLE.to_owned())?;
        }
        let Some(next) = self.look(point.exits)? else {
            return Ok(None);
        };
        let is_here = next.point.position() == point.position();
        match &next.body {
            Body::Event(_) if is_here => {}
            Body::End(End {
                reason: EndReason::Stopped,
                ..
            }) if is_here => {
                return Err(ReplayStop::Refused(DoorError::Stopped));
            }
            _ if next.point.position() < point.position() || readiness.idle => {
                let entry = next.clone();
                let found = if readiness.idle {
                    IDLE
                } else {
                    "the guest has run on"
                };
                let expected = described(&entry.body);
                return Err(self.diverged(&entry, point, "execution point", expected, found.to_owned()));
            }
            _ => return Ok(None),
        }
        let doing = || "an event enters".to_owned();
        let entry = self.expect(point, &doing)?;
        self.check_point(&entry, point, &doing)?;
        let Body::Event(mut event) = entry.body.clone() else {
            return Ok(None);
        };
        if !readiness.fits(&event) {
            let found = format!("{} takes no such event", event.device);
            let expected = described(&entry.body);
            return Err(self.diverged(&entry, point, "event", expected, found));
        }
        if let EventKind::Completion(completion) = &mut event.kind
            && let Err(stop) = self.complete(&entry, point, completion)
        {
            self.next = Some(entry);
            return Err(stop);
        }
        let at_common_point = self.history.ends_with_common_point();
        self.met(entry)?;
        if at_common_point && mutant::is(Mutant::EnterOnOneSide) {
            return Ok(None);
        }
        if mutant::is(Mutant::EnterElsewhere) {
            let mut takers = readiness.takers.iter();
            let other = takers.find(|taker| taker.device != event.device && taker.takes.fits(&event.kind));
            event.device = other.map_or(event.device, |taker| taker.device);
        }
        Ok(Some(event))
    }

    /// Limit up to which the machine may run.
    ///
    /// # Errors
    /// [`ReplayStop`].
    pub fn horizon(&mut self, point: ExecutionPoint) -> Result<Horizon, ReplayStop> {
        let counts_instructions = self.counts_instructions;
        // Nothing may run past a common point.
        let known_until = point.exits + u64::from(!mutant::is(Mutant::RunPastUnknown));
        let Some(next) = self.look(known_until)? else {
            return Ok(Horizon::Exit);
        };
        let (body, next) = (&next.body, next.point);
        let is_within = next.exits == point.exits && next.instructions > point.instructions;
        Ok(match body {
            Body::CommonPoint(_)
                if next.exits == point.exits + 1 && !mutant::is(Mutant::RunPastCommonPoint) =>
            {
                Horizon::CommonPoint
            }
            _ if counts_instructions && is_within => Horizon::Instructions(next.instructions),
            _ => Horizon::Exit,
        })
    }

    /// Gives the common point that [`Replayer::horizon`] has announced, and compares the devices:
    /// they have changed at exits only.
    ///
    /// # Errors
    /// [`ReplayStop`].
    pub fn meet(&mut self, point: ExecutionPoint, devices: &[SavedDevice]) -> Result<Met, ReplayStop> {
        let entry = self.expect(point, &|| "a common point is due".to_owned())?;
        let Body::CommonPoint(common) = &entry.body else {
            return Err(DoorError::from(NotFollowed).into());
        };
        let sequence = entry.sequence;
        let met = self.staged.finish(entry.point, common);
        let met = met.map_err(|why| DoorError::Part { sequence, why })?;
        let digests = |devices: &[SavedDevice]| devices.iter().map(SavedDevice::digest).collect::<Vec<_>>();
        let (expected, found) = (digests(&met.machine.devices), digests(devices));
        self.compare_parts(&entry, point, &expected, &found)?;
        self.met(entry)?;
        Ok(met)
    }

    /// Compares an output.
    ///
    /// # Errors
    /// [`ReplayStop`].
    pub fn output(
        &mut self,
        point: ExecutionPoint,
        target: OutputTarget,
        bytes: Vec<u8>,
    ) -> Result<(), ReplayStop> {
        let found = Body::Output(output_digest(target, &bytes));
        let doing = || format!("the guest sends {}", described(&found));
        let entry = self.expect(point, &doing)?;
        self.check_point(&entry, point, &doing)?;
        if entry.body != found {
            let (expected, found) = (described(&entry.body), described(&found));
            return Err(self.diverged(&entry, point, "output", expected, found));
        }
        let sequence = entry.sequence;
        self.met(entry)?;
        Ok(self.feed.output(sequence, target, bytes)?)
    }

    /// Compares digests.
    ///
    /// # Errors
    /// [`ReplayStop`].
    pub fn digests(&mut self, point: ExecutionPoint, parts: &[PartDigest]) -> Result<(), ReplayStop> {
        let doing = || "digests are due".to_owned();
        let entry = self.expect(point, &doing)?;
        self.check_point(&entry, point, &doing)?;
        let Body::Digests(expected) = &entry.body else {
            let expected = described(&entry.body);
            return Err(self.diverged(&entry, point, "execution point", expected, doing()));
        };
        self.compare_parts(&entry, point, expected, parts)?;
        Ok(self.met(entry)?)
    }

    /// Compares the end. A replay that was told to stop has none to compare.
    ///
    /// # Errors
    /// [`ReplayStop`].
    pub fn end(&mut self, point: ExecutionPoint, end: &End) -> Result<(), ReplayStop> {
        if self.stopped {
            return Err(DoorError::Stopped.into());
        }
        let doing = || described_end(&end.reason);
        let entry = self.expect(point, &doing)?;
        let Body::End(expected) = &entry.body else {
            let expected = described(&entry.body);
            return Err(self.diverged(&entry, point, "execution point", expected, doing()));
        };
        if expected.reason != end.reason {
            return Err(self.diverged(&entry, point, "end", described_end(&expected.reason), doing()));
        }
        self.check_point(&entry, point, &doing)?;
        if !expected.parts.is_empty() {
            self.compare_parts(&entry, point, &expected.parts, &end.parts)?;
        }
        self.met(entry)?;
        Ok(self.feed.finish()?)
    }

    fn compare_parts(
        &self,
        entry: &Entry,
        point: ExecutionPoint,
        expected: &[PartDigest],
        found: &[PartDigest],
    ) -> Result<(), ReplayStop> {
        let found = as_recorded(expected, found);
        let (names, others) = (names(expected), names(found));
        if names != others {
            return Err(self.diverged(entry, point, "parts", names, others));
        }
        match expected
            .iter()
            .zip(found)
            .find(|(expected, found)| expected != found)
        {
            Some((expected, found)) => {
                let text = |part: &PartDigest| part.digest.to_string();
                Err(self.diverged(entry, point, &expected.part, text(expected), text(found)))
            }
            None => Ok(()),
        }
    }
}
