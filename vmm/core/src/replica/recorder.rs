//! The recorder: the door of a live machine. It asks the outside, appends to the log, and hands
//! outputs to the gate.

mod disks;

pub use disks::{disk_number, disk_number_bytes, disk_write};

use super::common::Parts;
use super::epochs::Epoch;
use super::mutant::{self, Mutant};
use super::time_floor::TimeFloor;
use crate::machine::disk::Request;
use crate::machine::door::{Door, DoorError, Horizon, Kick, Kicked, NotFollowed, Question, Readiness};
use crate::machine::saved::{Page, SavedMachine};
use lockstep_logging_channel::{
    Body, DeviceId, Digest, End, Entry, Event, ExecutionPoint, Generation, HeldOutput, OutputDigest,
    OutputTarget, PartDigest, Sequence, Value,
};
use std::collections::BTreeMap;

/// The world as a live machine meets it. The shell's.
pub trait Outside {
    /// Answers a question. Guest times never go back.
    ///
    /// # Errors
    /// [`DoorError::Host`].
    fn answer(&mut self, question: Question) -> Result<Value, DoorError>;

    /// The next thing that has arrived and that the machine is ready for. Waits where it is idle.
    ///
    /// # Errors
    /// [`DoorError::Stopped`] or [`DoorError::Fenced`] when the machine is to stop.
    fn arrival(&mut self, readiness: Readiness<'_>) -> Result<Option<Event>, DoorError>;

    /// Limit of the run: whether arrivals may interrupt between exits.
    fn horizon(&mut self, point: ExecutionPoint) -> Horizon;

    /// A kick that let nothing in: whether what waits is to enter there all the same.
    ///
    /// # Errors
    /// As [`Outside::arrival`].
    fn kicked(&mut self, kick: Kick<'_>) -> Result<Kicked, DoorError>;

    /// Takes what the guest asks of a disk, and does not wait. Where the disk is shared, a request
    /// that leaves ([`Operation::leaves`](crate::machine::disk::Operation::leaves)) is carried out
    /// when its number comes out of the gate.
    ///
    /// # Errors
    /// [`DoorError::Host`].
    fn disk_request(&mut self, device: DeviceId, _request: Request) -> Result<(), DoorError> {
        Err(DoorError::no_disk(device))
    }

    /// True where another machine reaches the same disk.
    fn shares_disk(&self, _device: DeviceId) -> bool {
        false
    }

    /// A common point was made, for which the guest had written so many pages.
    fn made_common_point(&mut self, _pages: u64) {}

    /// An epoch begins, unless one runs. While it does, an idle machine is waited for until it is
    /// over, and [`Outside::arrival`] gives nothing then.
    fn begin_epoch(&mut self) {}

    /// The epoch ends.
    fn end_epoch(&mut self) {}

    /// True where an epoch runs and its time is over.
    fn epoch_is_over(&mut self) -> bool {
        false
    }
}

/// Destination of the log, and of the outputs that wait for it. The shell's.
pub trait Journal {
    /// Appends an entry.
    ///
    /// # Errors
    /// [`DoorError`].
    fn append(&mut self, entry: &Entry) -> Result<(), DoorError>;

    /// Appends the entry of an output, and takes its bytes to release them when the entry is safe.
    ///
    /// # Errors
    /// [`DoorError`].
    fn output(&mut self, entry: &Entry, target: OutputTarget, bytes: Vec<u8>) -> Result<(), DoorError>;

    /// Takes an output that was held until entry `sequence`, which was appended last.
    ///
    /// # Errors
    /// [`DoorError`].
    fn held(&mut self, _sequence: Sequence, _: OutputTarget, _bytes: Vec<u8>) -> Result<(), DoorError> {
        Err(NotFollowed.into())
    }

    /// True where somebody follows by the entries.
    fn is_followed(&self) -> bool {
        true
    }

    /// Everything at exits up to `exits` has been appended. `idle`: the guest waits, nothing
    /// follows soon.
    ///
    /// # Errors
    /// [`DoorError`].
    fn passed(&mut self, exits: u64, idle: bool) -> Result<(), DoorError>;

    /// Nothing follows any more.
    ///
    /// # Errors
    /// [`DoorError`].
    fn finish(&mut self) -> Result<(), DoorError>;
}

/// A journal that says where a machine was captured.
pub trait CaptureJournal: Journal {
    /// The machine is captured behind entry `sequence`, at exit `exits`: hands over everything that
    /// was appended, then says so, before anything else is appended.
    ///
    /// # Errors
    /// [`DoorError`].
    fn saved_at(&mut self, sequence: Sequence, exits: u64) -> Result<(), DoorError>;
}

/// Position of a live machine in its log.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct SavedAt {
    /// Number of the last entry.
    pub sequence: Sequence,
    /// The latest guest times up to there.
    pub floor: TimeFloor,
}

/// A door behind which a machine can be captured while it runs live.
pub trait LiveDoor: Door {
    /// Position in its log of the machine that is paused at exit `exits`; the journal has reported
    /// it by then. None where the machine is not live.
    ///
    /// # Errors
    /// [`DoorError`].
    fn saved_at(&mut self, exits: u64) -> Result<Option<SavedAt>, DoorError>;

    /// Whoever follows from the next capture on does not run, and is told states. Nobody follows
    /// now.
    fn begin_epochs(&mut self);
}

/// Position at which a recording starts: at its beginning, or where a replay left off.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Start {
    /// The regime.
    pub generation: Generation,
    /// Number of the first entry to be appended.
    pub sequence: Sequence,
}

/// The door of a live machine.
pub struct Recorder<O, J> {
    outside: O,
    journal: J,
    generation: Generation,
    sequence: Sequence,
    floor: TimeFloor,
    parts: Parts,
    /// Who follows does not run, and has to be told states instead of what leads to them.
    epoch: Option<Epoch>,
    /// Where the machine was captured: the first request of each disk since then.
    since_capture: Option<BTreeMap<DeviceId, u64>>,
}

impl<O: Outside, J: Journal> Recorder<O, J> {
    /// A recorder that appends from `start` on.
    pub fn new(outside: O, journal: J, start: Start) -> Self {
        Self {
            outside,
            journal,
            generation: start.generation,
            sequence: start.sequence,
            floor: TimeFloor::default(),
            parts: Parts::default(),
            epoch: None,
            since_capture: None,
        }
    }

    /// The same for a machine whose backup does not run.
    #[must_use]
    pub fn in_epochs(self) -> Self {
        let epoch = Some(Epoch::default());
        Self { epoch, ..self }
    }

    /// The same, where the log before has told of guest times up to `floor`.
    #[must_use]
    pub fn after(self, floor: TimeFloor) -> Self {
        Self { floor, ..self }
    }

    fn entry(&mut self, point: ExecutionPoint, body: Body) -> Entry {
        let sequence = self.sequence;
        self.sequence = sequence.next();
        self.floor.raise(&body);
        Entry {
            generation: self.generation,
            sequence,
            point,
            body,
        }
    }

    fn append(&mut self, point: ExecutionPoint, body: Body) -> Result<(), DoorError> {
        let entry = self.entry(point, body);
        self.journal.append(&entry)
    }

    /// The epoch, where somebody follows.
    fn followed_epoch(&mut self) -> Option<&mut Epoch> {
        let followed = self.journal.is_followed();
        self.epoch.as_mut().filter(|_| followed)
    }

    /// Appends what enters the guest, where who follows needs it.
    fn enters(&mut self, point: ExecutionPoint, body: Body) -> Result<(), DoorError> {
        if self.changes() {
            self.floor.raise(&body);
            return Ok(());
        }
        self.append(point, body)
    }

    /// The machine changes. False where this is not counted.
    fn changes(&mut self) -> bool {
        let Some(epoch) = self.followed_epoch() else {
            return false;
        };
        epoch.runs = true;
        self.outside.begin_epoch();
        true
    }

    /// The epoch is over with entry `sequence`, which was appended last.
    fn end_epoch(&mut self, sequence: Sequence) -> Result<(), DoorError> {
        self.outside.end_epoch();
        let Some(epoch) = &mut self.epoch else {
            return Ok(());
        };
        epoch.begin_anew();
        for (target, bytes) in epoch.held.take() {
            self.journal.held(sequence, target, bytes)?;
        }
        Ok(())
    }

    /// Nobody follows any more: what is held waits for nothing.
    fn let_go(&mut self, point: ExecutionPoint) -> Result<(), DoorError> {
        let held = self.epoch.as_mut().map(|epoch| epoch.held.take());
        if mutant::is(Mutant::ForgetHeldAlone) {
            return Ok(());
        }
        for (target, bytes) in held.unwrap_or_default() {
            self.say(point, target, bytes)?;
        }
        Ok(())
    }

    /// Says it at once. Nobody reads the entry of one that was held.
    fn say(&mut self, point: ExecutionPoint, target: OutputTarget, bytes: Vec<u8>) -> Result<(), DoorError> {
        let entry = self.entry(point, Body::Output(output_digest(target, &bytes)));
        self.journal.output(&entry, target, bytes)
    }
}

impl<O: Outside, J: CaptureJournal> LiveDoor for Recorder<O, J> {
    fn saved_at(&mut self, exits: u64) -> Result<Option<SavedAt>, DoorError> {
        if self.followed_epoch().is_none() {
            // Who goes on from here would not have what is held, and nobody else waits for it.
            let point = ExecutionPoint {
                exits,
                ..ExecutionPoint::default()
            };
            self.let_go(point)?;
        }
        if let Some(epoch) = &mut self.epoch {
            epoch.begin_anew();
            epoch.followed = true;
            self.outside.end_epoch();
        }
        // Entry 0 is the environment: there is always one before.
        let sequence = Sequence(self.sequence.0.saturating_sub(1));
        self.journal.saved_at(sequence, exits)?;
        self.since_capture = Some(BTreeMap::new());
        if !mutant::is(Mutant::CountOldParts) {
            self.parts.captured();
        }
        let floor = self.floor;
        Ok(Some(SavedAt { sequence, floor }))
    }

    fn begin_epochs(&mut self) {
        self.epoch.get_or_insert_default();
    }
}

impl<O: Outside, J: Journal> Door for Recorder<O, J> {
    fn answer(&mut self, point: ExecutionPoint, question: Question) -> Result<Value, DoorError> {
        let value = self.outside.answer(question)?;
        self.enters(point, Body::Value(value.clone()))?;
        Ok(value)
    }

    fn arrival(
        &mut self,
        point: ExecutionPoint,
        readiness: Readiness<'_>,
    ) -> Result<Option<Event>, DoorError> {
        if readiness.idle {
            self.journal.passed(point.exits.saturating_sub(1), true)?;
        }
        if self
            .followed_epoch()
            .is_some_and(|epoch| epoch.has_changed_enough())
        {
            return Ok(None);
        }
        let event = self.outside.arrival(readiness)?;
        if let Some(event) = &event {
            let logged = self.logged(event);
            self.enters(point, Body::Event(logged))?;
        }
        Ok(event)
    }

    fn horizon(&mut self, point: ExecutionPoint) -> Result<Horizon, DoorError> {
        self.journal.passed(point.exits, false)?;
        self.changes();
        Ok(self.outside.horizon(point))
    }

    fn kicked(&mut self, kick: Kick<'_>) -> Result<Kicked, DoorError> {
        let kicked = self.outside.kicked(kick)?;
        // Who follows does not come to this place.
        let counts = kicked == Kicked::CommonPoint && self.followed_epoch().is_some();
        Ok(if counts { Kicked::Exit } else { kicked })
    }

    fn has_epochs(&self) -> bool {
        self.epoch.is_some()
    }

    fn is_common_point_due(&mut self, point: ExecutionPoint) -> Result<bool, DoorError> {
        let followed = self.journal.is_followed();
        let Some(epoch) = &mut self.epoch else {
            return Ok(false);
        };
        let was_followed = std::mem::replace(&mut epoch.followed, followed);
        if followed {
            return Ok(epoch.runs && (epoch.is_full() || self.outside.epoch_is_over()));
        }
        if was_followed {
            epoch.begin_anew();
            self.outside.end_epoch();
            self.let_go(point)?;
        }
        // The machine need not see what it writes any more.
        Ok(was_followed)
    }

    fn is_followed(&self) -> bool {
        self.journal.is_followed()
    }

    fn part(&mut self, point: ExecutionPoint, pages: Vec<Page>) -> Result<(), DoorError> {
        let part = self.parts.pages(self.sequence, pages);
        if mutant::is(Mutant::LosePart) {
            return Ok(());
        }
        self.append(point, Body::Part(part))?;
        if self.epoch.is_some() {
            // The guest stands for as long as the backup needs.
            self.journal.passed(point.exits.saturating_sub(1), false)?;
        }
        Ok(())
    }

    fn common_point(&mut self, point: ExecutionPoint, machine: SavedMachine) -> Result<(), DoorError> {
        if self.epoch.is_some() && !mutant::is(Mutant::ForgetEpochTimes) {
            // The log has no others.
            for value in self.floor.values() {
                self.append(point, Body::Value(value))?;
            }
        }
        let (parts, common) = self.parts.last(self.sequence, machine);
        if self.epoch.is_none() {
            self.outside.made_common_point(common.pages);
        }
        for part in parts {
            self.append(point, Body::Part(part))?;
        }
        let entry = self.entry(point, Body::CommonPoint(common));
        self.journal.append(&entry)?;
        let early = u64::from(mutant::is(Mutant::LetGoWithLastPart));
        self.end_epoch(Sequence(entry.sequence.0 - early))
    }

    fn output(
        &mut self,
        point: ExecutionPoint,
        target: OutputTarget,
        bytes: Vec<u8>,
    ) -> Result<(), DoorError> {
        let Some(epoch) = self.followed_epoch() else {
            self.let_go(point)?;
            return self.say(point, target, bytes);
        };
        if mutant::is(Mutant::LetGoWithItsEntry) {
            let held = HeldOutput {
                target,
                bytes: bytes.clone(),
            };
            let entry = self.entry(point, Body::HeldOutput(held));
            return self.journal.output(&entry, target, bytes);
        }
        epoch.held.put(target, bytes.clone());
        self.append(point, Body::HeldOutput(HeldOutput { target, bytes }))
    }

    fn disk_request(
        &mut self,
        point: ExecutionPoint,
        device: DeviceId,
        request: Request,
    ) -> Result<(), DoorError> {
        self.ask_disk(point, device, request)
    }

    fn disk_done(
        &mut self,
        point: ExecutionPoint,
        device: DeviceId,
        request: Request,
    ) -> Result<(), DoorError> {
        self.log_change(point, device, request)
    }

    fn digests(&mut self, point: ExecutionPoint, parts: Vec<PartDigest>) -> Result<(), DoorError> {
        if self.followed_epoch().is_some() {
            return Ok(());
        }
        self.append(point, Body::Digests(parts))
    }

    fn end(&mut self, point: ExecutionPoint, end: End) -> Result<(), DoorError> {
        if self.followed_epoch().is_none() {
            self.let_go(point)?;
        }
        let entry = self.entry(point, Body::End(end));
        self.journal.append(&entry)?;
        self.end_epoch(entry.sequence)?;
        self.journal.finish()
    }
}

/// The log's record of an output.
#[must_use]
pub fn output_digest(target: OutputTarget, bytes: &[u8]) -> OutputDigest {
    OutputDigest {
        target,
        length: bytes.len() as u32,
        digest: Digest::of(bytes),
    }
}
