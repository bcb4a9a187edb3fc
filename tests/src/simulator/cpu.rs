//! The virtual CPU's thread, and what it shares with the replica loop. The journal, the feed, the
//! choice among arrivals, guest time, and the doors on them are the real ones; what they need of a
//! host is here.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::rc::Rc;

use lockstep_core::machine::disk::Request;
use lockstep_core::machine::door::{DoorError, Horizon, Kick, Kicked, Question, Readiness, Takes};
use lockstep_core::replica::batcher::OUTPUT_BYTES_MIN;
use lockstep_core::replica::cpu::{
    BatchingJournal, FromCpu, GuestTime, Items, Proposals, QueuedFeed, Taking,
};
use lockstep_core::replica::epochs::EPOCH_OUTPUT_BYTES_MAX;
use lockstep_core::replica::following::Following;
use lockstep_core::replica::recorder::{LiveDoor, Outside, Recorder, SavedAt, Start, disk_number_bytes};
use lockstep_core::replica::replayer::{Replayer, TimeFloor};
use lockstep_core::replica::standby::{Standby, TakenOver};
use lockstep_logging_channel::{
    Body, Completion, DeviceId, Entry, Event, EventKind, ExecutionPoint, Generation, Sequence, Value,
};

use super::computing::MEMORY_BYTES;
use super::disk::Disk;
use super::disk_guest::DISK;
use super::disks::SHAPE;
use super::ends::End;
use super::guest::{CONSOLES, NETWORK};
use super::marks::{Mark, Marks};
use super::rng::Rng;
use super::watched::Watched;

/// Frames that wait for the guest; more are lost, as on a network card.
const FRAMES_MAX: usize = 32;

/// Somebody types a byte with one frame in so many.
const TYPED_ONCE_IN: u64 = 4;

/// Typed bytes that wait; more are lost.
const TYPED_MAX: usize = 32;

/// Frames that may enter before a typed byte does: one that is taken when it comes, and one whose
/// turn it is.
const OVERTAKEN_MAX: u32 = 2;

/// Time after which a guest that makes no exit is given a common point for what waits.
const EVENT_LATENCY_NS: u64 = 500_000;

/// Lowest time that wall clocks show in the beginning.
const WALL_NS: u64 = 10_000_000_000;

/// Largest difference between the wall clocks of two hosts.
const WALL_APART_NS: u64 = 1_000_000_000;

/// Refusal of the door where a real one would wait.
const WAITS: &str = "moment: the simulated thread waits";

pub(super) fn must_wait() -> DoorError {
    DoorError::Host {
        what: WAITS,
        why: String::new(),
    }
}

/// True if the door would have waited.
#[must_use]
pub fn waits(error: &DoorError) -> bool {
    matches!(error, DoorError::Host { what: WAITS, .. })
}

/// State of a virtual CPU that both its thread and its replica loop see.
#[derive(Debug)]
pub struct Cpu {
    /// The side's clock, in nanoseconds.
    pub clock_ns: u64,
    /// The virtual CPU is live.
    pub live: bool,
    /// It has to wait.
    pub throttled: bool,
    /// It is to stand at its next pause.
    pub stand: bool,
    /// It stands.
    pub stands: bool,
    /// There is no peer: entries need no encoding.
    pub alone: bool,
    /// Its state is wanted, at the next pause.
    pub capture: bool,
    /// The generation to go live in.
    pub won: Generation,
    /// From the loop to the replay.
    pub items: Items,
    /// To the loop.
    pub told: VecDeque<FromCpu>,
    /// Exits passed, with every entry up to them in `told` or taken from it.
    pub passed_exits: u64,
    /// Every output that the guest here has made: its entry, and its bytes.
    pub history: Vec<(Sequence, Vec<u8>)>,
    /// The wall clock was behind what the guest had been told.
    pub wall_went_back: bool,
    /// Paths taken.
    pub marks: Marks,
    /// The log ends with parts of a common point.
    pub(super) has_parts: bool,
    /// Time that an epoch lasts, where the backup does not run.
    pub(super) epoch_ns: Option<u64>,
    /// Time at which the one that runs ends.
    pub(super) epoch_ends_ns: Option<u64>,
    /// Outputs that the log has and that wait for a common point.
    pub(super) held: VecDeque<Vec<u8>>,
    /// Its disk, if it has one.
    pub(super) disk: Option<Disk>,
    /// Description of something that this host did and a host must not do.
    pub wrong: Option<String>,
    frames: VecDeque<Vec<u8>>,
    /// Typed bytes that wait, each with its console.
    typed: VecDeque<(DeviceId, Vec<u8>)>,
    /// Frames that entered while typed bytes waited and could have.
    overtook: u32,
    /// The newest entry appended, and the newest handed over.
    pub(super) appended: Sequence,
    pub(super) handed: Sequence,
    time: GuestTime,
    /// Wall time that the guest was told last.
    wall_ns: u64,
    /// Lead of the wall clock over the other, in nanoseconds.
    wall_ahead_ns: u64,
    rng: Rng,
}

/// Both ends have it: they are threads of one process.
pub type Shared = Rc<RefCell<Cpu>>;

impl Cpu {
    /// A virtual CPU of a side whose clock shows `clock_ns`.
    #[must_use]
    pub fn new(clock_ns: u64, seed: u64, live: bool, epoch_ns: Option<u64>) -> Shared {
        let mut rng = Rng::new(seed);
        Rc::new(RefCell::new(Self {
            clock_ns,
            live,
            throttled: false,
            stand: false,
            stands: false,
            alone: false,
            capture: false,
            won: Generation::default(),
            items: Items::default(),
            told: VecDeque::new(),
            passed_exits: 0,
            history: Vec::new(),
            wall_went_back: false,
            marks: Marks::default(),
            has_parts: false,
            epoch_ns,
            epoch_ends_ns: None,
            held: VecDeque::new(),
            disk: None,
            wrong: None,
            frames: VecDeque::new(),
            typed: VecDeque::new(),
            overtook: 0,
            appended: Sequence(0),
            handed: Sequence(0),
            time: GuestTime::starting_at(TimeFloor::default(), clock_ns),
            wall_ns: 0,
            wall_ahead_ns: WALL_NS + rng.below(WALL_APART_NS),
            rng,
        }))
    }

    /// A frame arrives, and at times somebody types. False where the frame is lost.
    pub fn frame(&mut self, frame: Vec<u8>) -> bool {
        if self.rng.once_in(TYPED_ONCE_IN) && self.typed.len() < TYPED_MAX {
            let console = CONSOLES[self.rng.below(CONSOLES.len() as u64) as usize];
            self.typed.push_back((console, vec![frame.len() as u8]));
        }
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

    /// Returns the time that the clock shows when guest time is `guest_ns`, on a live side.
    #[must_use]
    pub fn clock_when(&self, guest_ns: u64) -> u64 {
        self.time.host_ns(guest_ns)
    }

    /// Frames keep no typed byte out.
    fn judge_turn(&mut self, typed_waits: bool, kind: &EventKind) {
        match kind {
            EventKind::Frame(_) if typed_waits => self.overtook += 1,
            EventKind::ConsoleInput(_) => self.overtook = 0,
            _ => (),
        }
        if self.overtook > OVERTAKEN_MAX {
            self.wrong = Some(format!("{} frames have overtaken a typed byte", self.overtook));
        }
    }

    /// An entry is logged, or comes from the log.
    pub(super) fn see(&mut self, entry: &Entry, common_point: Mark) {
        match &entry.body {
            Body::Part(_) => self.has_parts = true,
            Body::CommonPoint(_) => {
                let held_bytes = self
                    .held
                    .iter()
                    .map(|bytes| OUTPUT_BYTES_MIN + bytes.len() as u64);
                if held_bytes.sum::<u64>() >= EPOCH_OUTPUT_BYTES_MAX {
                    self.marks.reach(Mark::EpochEndedEarly);
                }
                self.marks.reach(common_point);
                self.has_parts = false;
            }
            Body::HeldOutput(output) => self.held.push_back(output.bytes.clone()),
            Body::DiskWrite(write) if self.epoch_ns.is_some() => {
                self.held.push_back(disk_number_bytes(write.number));
            }
            _ => (),
        }
    }

    /// An output leaves the log for the gate: in the order in which they were held.
    pub(super) fn judge_held(&mut self, bytes: &[u8]) {
        if let Some(held) = self.held.pop_front()
            && held != bytes
        {
            self.wrong = Some("an output that was held is lost".to_owned());
        }
    }

    /// An idle guest's log is with its loop.
    fn judge_idle(&mut self) {
        if self.appended > self.handed {
            self.wrong = Some(format!(
                "the guest idles, and entry {} is kept back",
                self.appended.0
            ));
        }
    }

    fn is_epoch_over(&self) -> bool {
        self.epoch_ends_ns.is_some_and(|ends_ns| ends_ns <= self.clock_ns)
    }

    fn host_wall_ns(&mut self) -> u64 {
        let host_ns = self.clock_ns + self.wall_ahead_ns;
        self.wall_went_back |= host_ns < self.wall_ns;
        host_ns
    }
}

impl Proposals for Cpu {
    fn monotonic_ns(&self) -> u64 {
        self.time.monotonic_ns(self.clock_ns)
    }

    fn take(&mut self, device: DeviceId) -> Option<Vec<u8>> {
        if device == NETWORK {
            return self.frames.pop_front();
        }
        let place = self.typed.iter().position(|(console, _)| *console == device)?;
        self.typed.remove(place).map(|(_, typed)| typed)
    }

    fn completion(&mut self, _: DeviceId) -> Option<Completion> {
        self.disk.as_mut()?.order.completed()
    }
}

/// The world as the live guest meets it.
struct World {
    end: Shared,
    taking: Taking,
    /// Exits so far, and the time at which the guest was first seen to run on from there.
    runs_since: (u64, u64),
}

impl World {
    fn something_waits(&self, readiness: Readiness<'_>) -> bool {
        let cpu = self.end.borrow();
        let typed_for = |device| cpu.typed.iter().any(|(console, _)| *console == device);
        let mut takers = readiness.takers.iter();
        takers.any(|taker| match taker.takes {
            Takes::Frames { max } => max > 0 && !cpu.frames.is_empty(),
            Takes::ConsoleInput { bytes_max, .. } => bytes_max > 0 && typed_for(taker.device),
            Takes::Completions { .. } => {
                let disk = cpu.disk.as_ref();
                disk.is_some_and(|disk| disk.order.has_completed())
            }
            Takes::Expiry { deadline_ns, .. } => deadline_ns.is_some_and(|at_ns| at_ns <= cpu.monotonic_ns()),
        })
    }
}

impl Outside for World {
    fn answer(&mut self, question: Question) -> Result<Value, DoorError> {
        let cpu = &mut *self.end.borrow_mut();
        let clock_ns = cpu.clock_ns;
        Ok(match question {
            Question::Random { length_bytes } => {
                Value::Random((0..length_bytes).map(|_| cpu.rng.next_u64() as u8).collect())
            }
            Question::Tsc => Value::Tsc(cpu.time.tsc(clock_ns)),
            Question::Monotonic => Value::Monotonic(cpu.time.monotonic_ns(clock_ns)),
            Question::Wall => {
                let host_ns = cpu.host_wall_ns();
                cpu.wall_ns = cpu.time.wall_ns(clock_ns, host_ns);
                Value::Wall(cpu.wall_ns)
            }
        })
    }

    fn arrival(&mut self, readiness: Readiness<'_>) -> Result<Option<Event>, DoorError> {
        let cpu = &mut *self.end.borrow_mut();
        let monotonic_ns = cpu.monotonic_ns();
        let typed_waits = !cpu.typed.is_empty();
        match self.taking.next(readiness, cpu) {
            Some((device, kind)) => {
                cpu.judge_turn(typed_waits, &kind);
                Ok(Some(Event {
                    device,
                    monotonic_ns,
                    kind,
                }))
            }
            None if readiness.idle => {
                cpu.judge_idle();
                Err(must_wait())
            }
            None => Ok(None),
        }
    }

    fn horizon(&mut self, point: ExecutionPoint) -> Horizon {
        if self.runs_since.0 != point.exits {
            self.runs_since = (point.exits, self.end.borrow().clock_ns);
        }
        Horizon::Exit
    }

    fn kicked(&mut self, kick: Kick<'_>) -> Result<Kicked, DoorError> {
        let ran_ns = self.end.borrow().clock_ns.saturating_sub(self.runs_since.1);
        if ran_ns < EVENT_LATENCY_NS || !self.something_waits(kick.readiness) {
            return Ok(Kicked::RunsOn);
        }
        let mut cpu = self.end.borrow_mut();
        if cpu.alone {
            cpu.marks.reach(Mark::CommonPointAlone);
        }
        Ok(Kicked::CommonPoint)
    }

    fn disk_request(&mut self, _: DeviceId, request: Request) -> Result<(), DoorError> {
        self.end.borrow_mut().ask_disk(request)
    }

    fn shares_disk(&self, _: DeviceId) -> bool {
        self.end.borrow().shares_disk()
    }

    fn begin_epoch(&mut self) {
        let cpu = &mut *self.end.borrow_mut();
        let ends_ns = cpu.epoch_ns.map(|epoch_ns| cpu.clock_ns + epoch_ns);
        cpu.epoch_ends_ns = cpu.epoch_ends_ns.or(ends_ns);
    }

    fn end_epoch(&mut self) {
        self.end.borrow_mut().epoch_ends_ns = None;
    }

    fn epoch_is_over(&mut self) -> bool {
        self.end.borrow().is_epoch_over()
    }
}

type Live = Recorder<World, Watched<BatchingJournal<End>>>;

fn recorder(end: &Shared, start: Start, epochs: bool) -> Live {
    let outside = World {
        end: end.clone(),
        taking: Taking::default(),
        runs_since: (u64::MAX, 0),
    };
    let journal = Watched::new(BatchingJournal::new(End(end.clone())), end);
    let recorder = Recorder::new(outside, journal, start);
    if epochs { recorder.in_epochs() } else { recorder }
}

/// The door of a guest that is live from the start.
#[must_use]
pub fn live_door(cpu: &Shared, start: Start) -> Box<dyn LiveDoor> {
    let epochs = cpu.borrow().epoch_ns.is_some();
    Box::new(recorder(cpu, start, epochs))
}

/// The door of a guest that replays from there on, or follows without running, and may go live.
#[must_use]
pub fn standby_door(cpu: &Shared, from: SavedAt) -> Box<dyn LiveDoor> {
    let feed = Watched::new(QueuedFeed::new(End(cpu.clone())), cpu);
    let end = cpu.clone();
    let go_live = move |taken_over| Ok(take_over(&end, taken_over));
    let SavedAt { sequence, floor } = from;
    if cpu.borrow().epoch_ns.is_some() {
        let following = Following::new(feed, MEMORY_BYTES, sequence, floor);
        let following = following.with_disks([(DISK, SHAPE)].into());
        return Box::new(Standby::following(following, Box::new(go_live)));
    }
    let replayer = Replayer::from_capture(feed, false, sequence, floor).of_memory(MEMORY_BYTES);
    Box::new(Standby::new(replayer, Some(Box::new(go_live))))
}

fn take_over(end: &Shared, taken_over: TakenOver) -> Live {
    let cpu = &mut *end.borrow_mut();
    cpu.told.push_back(taken_over.live_at());
    let epochs = cpu.epoch_ns.is_some();
    if std::mem::take(&mut cpu.has_parts) {
        cpu.marks.reach(if epochs {
            Mark::LiveAmongParts
        } else {
            Mark::LiveBehindParts
        });
    }
    if !cpu.held.is_empty() {
        cpu.marks.reach(Mark::UnfinishedDropped);
        cpu.held.clear();
    }
    cpu.live = true;
    cpu.disk_goes_live();
    cpu.time = GuestTime::starting_at(taken_over.floor, cpu.clock_ns);
    cpu.wall_ns = taken_over.floor.wall_ns;
    recorder(end, taken_over.start(cpu.won), epochs)
}
