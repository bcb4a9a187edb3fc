//! Recorder, replayer and going live, with an outside, a journal and a feed that are values in
//! memory.

mod addressed;
mod common_points;
mod disks;
mod epochs;
mod guest;
mod parts;
mod properties;
mod recording;
mod replaying;

use super::recorder::{CaptureJournal, Journal, Outside, Recorder, Start};
use super::replayer::{Fed, Feed, Replayer, TimeFloor};
use super::standby::{GoLive, Standby};
use crate::machine::devices::board::small;
use crate::machine::divergence::Divergence;
use crate::machine::door::{DoorError, Horizon, Kick, Kicked, Question, Readiness, Taker, Takes};
use lockstep_logging_channel::{
    Body, DeviceId, End, EndReason, Entry, Event, EventKind, ExecutionPoint, Generation, OutputTarget,
    PartDigest, Sequence, Value,
};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;

pub const CONSOLE: OutputTarget = OutputTarget::console(small::CONSOLE);
pub const NETWORK: OutputTarget = OutputTarget::network(small::NETWORK);

/// Devices of the small board that take arrivals, with room for one.
const TAKERS: &[Taker] = &[
    Taker {
        device: small::TIMER,
        takes: Takes::Expiry {
            deadline_ns: None,
            entered: false,
        },
    },
    Taker {
        device: small::CONSOLE,
        takes: Takes::ConsoleInput {
            bytes_max: 1,
            listens: true,
        },
    },
    Taker {
        device: small::NETWORK,
        takes: Takes::Frames { max: 1 },
    },
];

/// The device of the small board that takes it.
pub fn device_of(kind: &EventKind) -> DeviceId {
    let mut takers = TAKERS.iter();
    takers.find(|taker| taker.takes.fits(kind)).unwrap().device
}

/// A world in which time passes by one at every question, and what arrives was written down before.
#[derive(Clone, Debug, Default)]
pub struct FakeOutside {
    pub now: u64,
    /// Results of the questions for arrivals, in order. An idle guest waits for the next that is
    /// something; at the end, for the timer.
    pub arrivals: VecDeque<Option<EventKind>>,
    /// Arrivals may interrupt between exits.
    pub kicks: bool,
    /// Answers to kicks, true for a common point; at the end there is none.
    pub common_points: VecDeque<bool>,
    /// An epoch runs; and its time is over.
    pub epoch: Rc<Cell<(bool, bool)>>,
}

impl FakeOutside {
    fn tick(&mut self) -> u64 {
        self.now += 1;
        self.now
    }
}

impl Outside for FakeOutside {
    fn answer(&mut self, question: Question) -> Result<Value, DoorError> {
        let now = self.tick();
        Ok(match question {
            Question::Tsc => Value::Tsc(now),
            Question::Monotonic => Value::Monotonic(now),
            Question::Wall => Value::Wall(now),
            Question::Random { length_bytes } => Value::Random(vec![now as u8; length_bytes as usize]),
        })
    }

    fn arrival(&mut self, readiness: Readiness<'_>) -> Result<Option<Event>, DoorError> {
        let monotonic_ns = self.tick();
        let mut kind = if readiness.closed {
            None
        } else {
            self.arrivals.pop_front().flatten()
        };
        while readiness.idle && kind.is_none() {
            kind = self.arrivals.pop_front().unwrap_or(Some(EventKind::Timer));
        }
        Ok(kind.map(|kind| Event {
            device: device_of(&kind),
            monotonic_ns,
            kind,
        }))
    }

    fn horizon(&mut self, _point: ExecutionPoint) -> Horizon {
        if self.kicks { Horizon::Kick } else { Horizon::Exit }
    }

    fn kicked(&mut self, _: Kick<'_>) -> Result<Kicked, DoorError> {
        let makes = self.common_points.pop_front().unwrap_or(false);
        Ok(if makes {
            Kicked::CommonPoint
        } else {
            Kicked::RunsOn
        })
    }

    fn begin_epoch(&mut self) {
        self.epoch.set((true, self.epoch.get().1));
    }

    fn end_epoch(&mut self) {
        self.epoch.set((false, false));
    }

    fn epoch_is_over(&mut self) -> bool {
        self.epoch.get() == (true, true)
    }
}

/// Data that a journal was given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Written {
    pub entries: Vec<Entry>,
    pub outputs: Vec<(OutputTarget, Vec<u8>)>,
    /// Exits said to be passed, and whether the guest was idle.
    pub passed: Vec<(u64, bool)>,
    /// Outputs that were held, each with the entry that lets it go.
    pub held: Vec<(Sequence, Vec<u8>)>,
    pub finished: bool,
    pub acts_alone: bool,
}

/// A journal in memory, which its test still reads when the recorder has it.
#[derive(Clone, Debug, Default)]
pub struct FakeJournal {
    pub written: Rc<RefCell<Written>>,
    /// Takes so many entries and refuses the next.
    pub entries_max: Option<usize>,
}

impl Journal for FakeJournal {
    fn append(&mut self, entry: &Entry) -> Result<(), DoorError> {
        let mut written = self.written.borrow_mut();
        if self.entries_max == Some(written.entries.len()) {
            return Err(DoorError::Host {
                what: "log",
                why: "the disk is full".to_owned(),
            });
        }
        written.entries.push(entry.clone());
        Ok(())
    }

    fn output(&mut self, entry: &Entry, target: OutputTarget, bytes: Vec<u8>) -> Result<(), DoorError> {
        self.append(entry)?;
        self.written.borrow_mut().outputs.push((target, bytes));
        Ok(())
    }

    fn held(&mut self, sequence: Sequence, _: OutputTarget, bytes: Vec<u8>) -> Result<(), DoorError> {
        self.written.borrow_mut().held.push((sequence, bytes));
        Ok(())
    }

    fn is_followed(&self) -> bool {
        !self.written.borrow().acts_alone
    }

    fn passed(&mut self, exits: u64, idle: bool) -> Result<(), DoorError> {
        self.written.borrow_mut().passed.push((exits, idle));
        Ok(())
    }

    fn finish(&mut self) -> Result<(), DoorError> {
        self.written.borrow_mut().finished = true;
        Ok(())
    }
}

impl CaptureJournal for FakeJournal {
    fn saved_at(&mut self, _: Sequence, _exits: u64) -> Result<(), DoorError> {
        Ok(())
    }
}

/// Reports on the replay that a feed was given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Told {
    pub replayed: Vec<(Sequence, u64)>,
    pub outputs: Vec<(Sequence, OutputTarget, Vec<u8>)>,
}

/// A feed from memory: these items, and then no more for ever.
#[derive(Debug, Default)]
pub struct FakeFeed {
    pub items: VecDeque<Result<Fed, DoorError>>,
    pub told: Rc<RefCell<Told>>,
}

impl FakeFeed {
    pub fn of(entries: &[Entry]) -> Self {
        let items = entries
            .iter()
            .map(|entry| Ok(Fed::Entry(Box::new(entry.clone()))))
            .collect();
        Self {
            items,
            ..Self::default()
        }
    }
}

impl Feed for FakeFeed {
    fn next(&mut self, _exits: u64) -> Result<Fed, DoorError> {
        self.items.pop_front().unwrap_or(Ok(Fed::Exhausted))
    }

    fn replayed(&mut self, sequence: Sequence, exits: u64) -> Result<(), DoorError> {
        self.told.borrow_mut().replayed.push((sequence, exits));
        Ok(())
    }

    fn output(&mut self, sequence: Sequence, target: OutputTarget, bytes: Vec<u8>) -> Result<(), DoorError> {
        self.told.borrow_mut().outputs.push((sequence, target, bytes));
        Ok(())
    }

    fn finish(&mut self) -> Result<(), DoorError> {
        Ok(())
    }

    fn kicked(&mut self) -> Result<(), DoorError> {
        match self.items.pop_front_if(|item| item.is_err()) {
            Some(Err(order)) => Err(order),
            _ => Ok(()),
        }
    }
}

/// A guest that could take an interrupt, and has none.
pub const KICK: Kick<'_> = Kick {
    interruptible: true,
    interrupt_pending: false,
    readiness: Readiness {
        closed: false,
        idle: false,
        takers: &[],
    },
};

pub type FakeStandby = Standby<FakeFeed, FakeOutside, FakeJournal>;

pub fn point(exits: u64, instructions: u64) -> ExecutionPoint {
    ExecutionPoint {
        exits,
        instructions,
        rip: 0,
    }
}

pub fn entry(sequence: u64, point: ExecutionPoint, body: Body) -> Entry {
    Entry {
        generation: Generation(1),
        sequence: Sequence(sequence),
        point,
        body,
    }
}

pub fn event(kind: EventKind) -> Body {
    Body::Event(Event {
        device: device_of(&kind),
        monotonic_ns: 5,
        kind,
    })
}

pub fn ready(idle: bool) -> Readiness<'static> {
    Readiness {
        closed: false,
        idle,
        takers: TAKERS,
    }
}

/// The report of a refusal that is a divergence.
pub fn diverged<T: std::fmt::Debug>(outcome: Result<T, DoorError>) -> Divergence {
    match outcome {
        Err(DoorError::Diverged(report)) => *report,
        other => panic!("no divergence: {other:?}"),
    }
}
