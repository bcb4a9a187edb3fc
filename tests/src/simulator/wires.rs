//! What lies between a virtual CPU and its replica: frames and entries towards it, and what it says to the role
//! machine. The doors on it are the real recorder, replayer and standby.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use lockstep::machine::door::{Door, DoorError, Horizon, Question, Readiness};
use lockstep::replica::Batcher;
use lockstep::replica::recorder::{Journal, Outside, Recorder, Start};
use lockstep::replica::replayer::{Fed, Feed, Replayer, TimeFloor};
use lockstep::replica::role::{Batch, Input, Output};
use lockstep::replica::standby::{Standby, TakenOver};
use lockstep_logging_channel::{
    Entry, Event, EventKind, ExecutionPoint, Generation, OutputTarget, Sequence, Value,
};

use super::rng::Rng;

/// Frames that wait for the guest; more are lost, as on a network card.
const FRAMES_MAX: usize = 32;

/// What wall clocks show in the beginning, at least.
const WALL_NS: u64 = 10_000_000_000;

/// How far wall clocks of two hosts are apart, at most.
const WALL_APART_NS: u64 = 1_000_000_000;

/// What the door refuses with where a real one would wait.
const WAITS: &str = "moment: the simulated thread waits";

fn must_wait() -> DoorError {
    DoorError::Host {
        what: WAITS,
        why: String::new(),
    }
}

/// Whether the door would have waited.
#[must_use]
pub fn waits(error: &DoorError) -> bool {
    matches!(error, DoorError::Host { what: WAITS, .. })
}

/// Log entries as a replica has them: encoded where they were made, decoded where they were received.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Entries {
    /// To be sent.
    pub encoded: Vec<u8>,
    /// To be replayed.
    pub decoded: Vec<Entry>,
}

/// What a replica is told.
pub type Told = Input<Entries, Vec<u8>>;

/// One side's wires.
#[derive(Debug)]
pub struct Wires {
    /// The side's clock, in nanoseconds.
    pub clock_ns: u64,
    /// The virtual CPU is live.
    pub live: bool,
    frames: VecDeque<Vec<u8>>,
    floor: TimeFloor,
    live_since_ns: u64,
    /// What the wall clock is ahead of the other, in nanoseconds.
    wall_ahead_ns: u64,
    /// The wall clock was behind what the guest had been told.
    pub wall_went_back: bool,
    rng: Rng,
    batcher: Batcher<Vec<u8>>,
    /// Outputs of the replay.
    outputs: Vec<Output<Vec<u8>>>,
    /// Batches that were cut, since they were looked at last.
    pub cuts: u64,
    passed: Option<u64>,
    feed: VecDeque<Entry>,
    passed_exits: Option<u64>,
    go_live: Option<Generation>,
    replayed: Option<(Sequence, u64)>,
    said: VecDeque<Told>,
    /// Every output that the guest here has made: its entry, and its bytes.
    pub history: Vec<(Sequence, Vec<u8>)>,
}

/// Shared by the virtual CPU and its replica, which are threads of one process.
pub type Shared = Rc<RefCell<Wires>>;

impl Wires {
    /// Wires of a side whose clock shows `clock_ns`.
    #[must_use]
    pub fn new(clock_ns: u64, seed: u64, live: bool) -> Shared {
        let mut rng = Rng::new(seed);
        Rc::new(RefCell::new(Self {
            clock_ns,
            live,
            wall_ahead_ns: WALL_NS + rng.below(WALL_APART_NS),
            wall_went_back: false,
            frames: VecDeque::new(),
            floor: TimeFloor::default(),
            live_since_ns: clock_ns,
            rng,
            batcher: Batcher::default(),
            outputs: Vec::new(),
            cuts: 0,
            passed: None,
            feed: VecDeque::new(),
            passed_exits: None,
            go_live: None,
            replayed: None,
            said: VecDeque::new(),
            history: Vec::new(),
        }))
    }

    /// A frame arrives. False where it is lost.
    pub fn frame(&mut self, frame: Vec<u8>) -> bool {
        let fits = self.frames.len() < FRAMES_MAX;
        if fits {
            self.frames.push_back(frame);
        }
        fits
    }

    /// The wall clock is set back.
    pub fn set_wall_back(&mut self, by_ns: u64) {
        self.wall_ahead_ns = self.wall_ahead_ns.saturating_sub(by_ns);
    }

    /// Entries to replay.
    pub fn deliver(&mut self, entries: Vec<Entry>) {
        self.feed.extend(entries);
    }

    /// No entry lies before this exit but those delivered.
    pub fn advance(&mut self, exits: u64) {
        self.passed_exits = self.passed_exits.max(Some(exits));
    }

    /// No entry follows but those delivered.
    pub fn go_live(&mut self, generation: Generation, after: Sequence) {
        self.go_live = Some(generation);
        self.feed.retain(|entry| entry.sequence <= after);
    }

    /// What the virtual CPU has said since.
    pub fn take_said(&mut self) -> VecDeque<Told> {
        self.flush();
        std::mem::take(&mut self.said)
    }

    /// The guest has ended; this is the last thing it says.
    pub fn ended(&mut self, reason: lockstep_logging_channel::EndReason) {
        self.flush();
        self.said.push_back(Input::GuestEnded { reason });
    }

    /// Entries that wait to be replayed.
    #[must_use]
    pub fn unreplayed(&self) -> usize {
        self.feed.len()
    }

    fn flush(&mut self) {
        let appended = self.batcher.take();
        if appended.is_some() {
            self.appended(appended);
        } else if let Some((sequence, exits)) = self.replayed.take() {
            let outputs = std::mem::take(&mut self.outputs);
            self.said.push_back(Input::Replayed {
                sequence,
                exits,
                outputs,
            });
        }
        if let Some(exits) = self.passed.take() {
            self.said.push_back(Input::Ran { exits });
        }
    }

    fn appended(&mut self, appended: Option<Input<Vec<u8>, Vec<u8>>>) {
        let Some(Input::Appended { batch, outputs }) = appended else {
            return;
        };
        let batch = Batch {
            first: batch.first,
            last: batch.last,
            exits: batch.exits,
            ends: batch.ends,
            bytes: batch.bytes,
            entries: Entries {
                encoded: batch.entries,
                decoded: Vec::new(),
            },
        };
        self.said.push_back(Input::Appended { batch, outputs });
    }

    fn output(&mut self, sequence: Sequence, payload: Vec<u8>) -> Output<Vec<u8>> {
        self.history.push((sequence, payload.clone()));
        Output {
            sequence,
            bytes: payload.len(),
            payload,
        }
    }

    /// What the clock shows when guest time is `guest_ns`, on a live side.
    #[must_use]
    pub fn clock_when(&self, guest_ns: u64) -> u64 {
        self.live_since_ns + guest_ns.saturating_sub(self.floor.monotonic_ns)
    }

    fn time_ns(&self) -> u64 {
        self.floor.monotonic_ns + (self.clock_ns - self.live_since_ns)
    }

    /// Wall time, not before any that was given.
    fn wall_ns(&mut self) -> u64 {
        let host_ns = self.clock_ns + self.wall_ahead_ns;
        self.wall_went_back |= host_ns < self.floor.wall_ns;
        self.floor.wall_ns = self.floor.wall_ns.max(host_ns);
        self.floor.wall_ns
    }
}

/// A virtual CPU's end of the wires.
#[derive(Clone)]
struct End(Shared);

impl Outside for End {
    fn answer(&mut self, question: Question) -> Result<Value, DoorError> {
        let mut wires = self.0.borrow_mut();
        Ok(match question {
            Question::Random { length_bytes } => {
                Value::Random((0..length_bytes).map(|_| wires.rng.next_u64() as u8).collect())
            }
            Question::Tsc => Value::Tsc(wires.time_ns()),
            Question::Monotonic => Value::Monotonic(wires.time_ns()),
            Question::Wall => Value::Wall(wires.wall_ns()),
        })
    }

    fn arrival(&mut self, readiness: Readiness) -> Result<Option<Event>, DoorError> {
        let mut wires = self.0.borrow_mut();
        let monotonic_ns = wires.time_ns();
        let due = readiness
            .timer_deadline_ns
            .is_some_and(|deadline_ns| monotonic_ns >= deadline_ns);
        let kind = if due {
            Some(EventKind::Timer)
        } else if readiness.frames_max > 0 {
            wires.frames.pop_front().map(EventKind::Frame)
        } else {
            None
        };
        match kind {
            Some(kind) => Ok(Some(Event { monotonic_ns, kind })),
            None if readiness.idle => Err(must_wait()),
            None => Ok(None),
        }
    }

    fn horizon(&mut self, _: ExecutionPoint) -> Horizon {
        Horizon::Exit
    }

    fn kicked(&mut self) -> Result<(), DoorError> {
        Ok(())
    }
}

impl Journal for End {
    fn append(&mut self, entry: &Entry) -> Result<(), DoorError> {
        let mut wires = self.0.borrow_mut();
        let full = wires.batcher.append(entry, true)?;
        wires.cuts += u64::from(full.is_some());
        wires.appended(full);
        Ok(())
    }

    fn output(&mut self, entry: &Entry, _: OutputTarget, bytes: Vec<u8>) -> Result<(), DoorError> {
        self.append(entry)?;
        let mut wires = self.0.borrow_mut();
        let output = wires.output(entry.sequence, bytes);
        wires.batcher.output(output);
        Ok(())
    }

    fn passed(&mut self, exits: u64, _: bool) -> Result<(), DoorError> {
        self.0.borrow_mut().passed = Some(exits);
        Ok(())
    }

    fn finish(&mut self) -> Result<(), DoorError> {
        Ok(())
    }
}

impl Feed for End {
    fn next(&mut self, exits: u64) -> Result<Fed, DoorError> {
        let mut wires = self.0.borrow_mut();
        if let Some(entry) = wires.feed.pop_front() {
            return Ok(Fed::Entry(Box::new(entry)));
        }
        if wires.go_live.is_some() {
            return Ok(Fed::Exhausted);
        }
        match wires.passed_exits {
            Some(passed) if passed >= exits => Ok(Fed::Passed(passed)),
            _ => Err(must_wait()),
        }
    }

    fn replayed(&mut self, sequence: Sequence, exits: u64) -> Result<(), DoorError> {
        self.0.borrow_mut().replayed = Some((sequence, exits));
        Ok(())
    }

    fn output(&mut self, sequence: Sequence, _: OutputTarget, bytes: Vec<u8>) -> Result<(), DoorError> {
        let mut wires = self.0.borrow_mut();
        let output = wires.output(sequence, bytes);
        wires.outputs.push(output);
        Ok(())
    }

    fn kicked(&mut self) -> Result<(), DoorError> {
        Ok(())
    }
}

/// The door of a guest that is live from the start.
#[must_use]
pub fn live_door(wires: &Shared, start: Start) -> Box<dyn Door> {
    Box::new(Recorder::new(End(wires.clone()), End(wires.clone()), start))
}

/// The door of a guest that replays, and may go live.
#[must_use]
pub fn standby_door(wires: &Shared) -> Box<dyn Door> {
    let replayer = Replayer::new(End(wires.clone()), false);
    let end = End(wires.clone());
    let go_live = move |taken_over| Ok(end.take_over(taken_over));
    Box::new(Standby::<_, End, End>::new(replayer, Some(Box::new(go_live))))
}

impl End {
    fn take_over(self, taken_over: TakenOver) -> Recorder<Self, Self> {
        let mut wires = self.0.borrow_mut();
        wires.flush();
        let sequence = Sequence(taken_over.sequence.0 - 1);
        let exits = taken_over.point.exits;
        wires.said.push_back(Input::LiveAt { sequence, exits });
        wires.live = true;
        wires.floor = taken_over.floor;
        // One time line for both, as on a real host.
        wires.floor.monotonic_ns = wires.floor.monotonic_ns.max(wires.floor.tsc);
        wires.live_since_ns = wires.clock_ns;
        let generation = wires.go_live.unwrap_or_default();
        let start = Start {
            generation,
            sequence: taken_over.sequence,
        };
        drop(wires);
        Recorder::new(self.clone(), self, start)
    }
}
