//! The recorder: the door of a live machine. It asks the outside, appends to the log, and hands
//! outputs to the gate.

use super::common::Parts;
use super::mutant::{self, Mutant};
use super::time_floor::TimeFloor;
use crate::machine::door::{Door, DoorError, Horizon, Kick, Kicked, Question, Readiness};
use crate::machine::saved::{Page, SavedMachine};
use lockstep_logging_channel::{
    Body, Digest, End, Entry, Event, ExecutionPoint, Generation, OutputDigest, OutputTarget, PartDigest,
    Sequence, Value,
};

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
        }
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
}

impl<O: Outside, J: CaptureJournal> LiveDoor for Recorder<O, J> {
    fn saved_at(&mut self, exits: u64) -> Result<Option<SavedAt>, DoorError> {
        // Entry 0 is the environment: there is always one before.
        let sequence = Sequence(self.sequence.0.saturating_sub(1));
        self.journal.saved_at(sequence, exits)?;
        if !mutant::is(Mutant::CountOldParts) {
            self.parts.captured();
        }
        let floor = self.floor;
        Ok(Some(SavedAt { sequence, floor }))
    }
}

impl<O: Outside, J: Journal> Door for Recorder<O, J> {
    fn answer(&mut self, point: ExecutionPoint, question: Question) -> Result<Value, DoorError> {
        let value = self.outside.answer(question)?;
        self.append(point, Body::Value(value.clone()))?;
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
        let event = self.outside.arrival(readiness)?;
        if let Some(event) = &event {
            self.append(point, Body::Event(event.clone()))?;
        }
        Ok(event)
    }

    fn horizon(&mut self, point: ExecutionPoint) -> Result<Horizon, DoorError> {
        self.journal.passed(point.exits, false)?;
        Ok(self.outside.horizon(point))
    }

    fn kicked(&mut self, kick: Kick<'_>) -> Result<Kicked, DoorError> {
        self.outside.kicked(kick)
    }

    fn is_followed(&self) -> bool {
        self.journal.is_followed()
    }

    fn part(&mut self, point: ExecutionPoint, pages: Vec<Page>) -> Result<(), DoorError> {
        let part = self.parts.pages(self.sequence, pages);
        if mutant::is(Mutant::LosePart) {
            return Ok(());
        }
        self.append(point, Body::Part(part))
    }

    fn common_point(&mut self, point: ExecutionPoint, machine: SavedMachine) -> Result<(), DoorError> {
        let (parts, common) = self.parts.last(self.sequence, machine);
        for part in parts {
            self.append(point, Body::Part(part))?;
        }
        self.append(point, Body::CommonPoint(common))
    }

    fn output(
        &mut self,
        point: ExecutionPoint,
        target: OutputTarget,
        bytes: Vec<u8>,
    ) -> Result<(), DoorError> {
        let entry = self.entry(point, Body::Output(output_digest(target, &bytes)));
        self.journal.output(&entry, target, bytes)
    }

    fn digests(&mut self, point: ExecutionPoint, parts: Vec<PartDigest>) -> Result<(), DoorError> {
        self.append(point, Body::Digests(parts))
    }

    fn end(&mut self, point: ExecutionPoint, end: End) -> Result<(), DoorError> {
        self.append(point, Body::End(end))?;
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
