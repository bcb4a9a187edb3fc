//! The model guest: a deterministic machine behind the real door, whose outputs tell what has
//! entered it.
//!
//! It keeps a log of what clients wrote, answers each with the place in that log, and folds
//! everything that enters (events, answers, in their order and at their exits) into one word that
//! every answer carries. An input that was lost, invented, repeated or moved shows in every later
//! output.
//!
//! A use of the door may have to wait: it then refuses, the machine has not moved, and the step is
//! made again.

use std::collections::VecDeque;

use lockstep_core::machine::disk;
use lockstep_core::machine::door::{Door, DoorError, Question, Readiness, Taker, Takes};
use lockstep_logging_channel::{
    DeviceId, Digest, End, EndReason, Event, EventKind, ExecutionPoint, OutputTarget, PartDigest, Value,
};

use super::computing::{Memory, STEPS_MAX};
use super::disk_guest::{DISK, GuestDisk};
use super::requests::{Reply, Request};
use super::rng::mix;
pub use super::work::{Phase, Progress, Work};

/// Its timer.
const TIMER: DeviceId = DeviceId(0);

/// Its consoles: two, so that one can be taken for the other.
pub const CONSOLES: [DeviceId; 2] = [DeviceId(1), DeviceId(2)];

/// Its network device.
pub const NETWORK: DeviceId = DeviceId(3);

/// Most clients.
pub const CLIENTS_MAX: usize = 4;

/// Frames the guest takes before it has answered them.
const FRAMES_MAX: usize = 16;

/// Time between the guest's own timer interrupts.
const TIMER_NS: u64 = 7_000_000;

/// Entries of its log in a page.
pub const PAGE_ENTRIES: usize = 4;

/// Exits between digests.
const DIGEST_EXITS: u64 = 64;

/// The guest.
#[derive(Clone, Debug)]
pub struct Guest {
    pub(super) exits: u64,
    pub(super) phase: Phase,
    pub(super) frames: VecDeque<Vec<u8>>,
    pub(super) work: VecDeque<Work>,
    pub(super) chain: u64,
    /// Steps of its stretch that are left.
    pub(super) steps: u64,
    pub(super) memory: Memory,
    /// It computes without exits at times.
    stretches: bool,
    pub(super) time_ns: u64,
    pub(super) tsc: u64,
    pub(super) wall_ns: u64,
    pub(super) timer_at_ns: u64,
    /// What was written: client and number.
    pub(super) log: Vec<(u8, u32)>,
    /// Each client's newest request, and the place of what it wrote.
    pub(super) newest: [(u32, u32); CLIENTS_MAX],
    /// It has a disk.
    has_disk: bool,
    /// What it knows of that.
    pub(super) disk: GuestDisk,
    /// What a correct host never lets happen.
    pub(super) wrong: Option<&'static str>,
}

impl Guest {
    /// A guest at its beginning, which computes without exits at times, or never.
    #[must_use]
    pub fn new(stretches: bool) -> Self {
        Self {
            exits: 0,
            phase: Phase::Arrivals { entered: false },
            frames: VecDeque::new(),
            work: VecDeque::new(),
            chain: 0,
            steps: 0,
            memory: Memory::default(),
            stretches,
            time_ns: 0,
            tsc: 0,
            wall_ns: 0,
            timer_at_ns: TIMER_NS,
            log: Vec::new(),
            newest: [(0, 0); CLIENTS_MAX],
            has_disk: false,
            disk: GuestDisk::default(),
            wrong: None,
        }
    }

    /// The same guest, which has a disk or none.
    #[must_use]
    pub fn with_disk(self, has_disk: bool) -> Self {
        Self { has_disk, ..self }
    }

    /// Exits so far.
    #[must_use]
    pub fn exits(&self) -> u64 {
        self.exits
    }

    /// The whole state as one word.
    #[must_use]
    pub fn state(&self) -> u64 {
        mix(self.chain ^ mix(self.time_ns ^ mix(self.log.len() as u64)))
    }

    /// True if it is between two exits, and nothing has entered since the last.
    #[must_use]
    pub fn is_at_a_pause(&self) -> bool {
        matches!(self.phase, Phase::Arrivals { entered: false }) || self.is_in_a_stretch()
    }

    /// True if a kick has found it between two exits.
    #[must_use]
    pub fn is_in_a_stretch(&self) -> bool {
        matches!(self.phase, Phase::Run { between: true })
    }

    /// The guest as it is built again in another process.
    #[must_use]
    pub fn captured(&self) -> Self {
        let mut captured = self.clone();
        captured.memory.forget_writes();
        captured
    }

    /// The number of the page in which it writes next: its log is its memory.
    #[must_use]
    pub fn page(&self) -> usize {
        self.log.len() / PAGE_ENTRIES
    }

    /// The machine whose pages from `page` on were not moved.
    #[must_use]
    pub fn without_pages(mut self, page: usize) -> Self {
        for entry in self.log.iter_mut().skip(page * PAGE_ENTRIES) {
            *entry = (u8::MAX, 0);
        }
        self
    }

    /// What clients wrote.
    #[must_use]
    pub fn log(&self) -> &[(u8, u32)] {
        &self.log
    }

    /// When its timer interrupts next, in guest time.
    #[must_use]
    pub fn timer_at_ns(&self) -> u64 {
        self.timer_at_ns
    }

    /// What a correct host never lets happen, if it has.
    #[must_use]
    pub fn wrong(&self) -> Option<&'static str> {
        self.wrong
    }

    pub(super) fn point(&self) -> ExecutionPoint {
        ExecutionPoint {
            exits: self.exits,
            instructions: 0,
            rip: 0,
        }
    }

    fn fold(&mut self, word: u64) {
        self.chain = mix(self.chain ^ mix(word ^ self.exits));
    }

    fn see_time(&mut self, time_ns: u64) {
        if time_ns < self.time_ns.max(self.tsc) {
            self.wrong = Some("guest time ran backwards");
        }
        self.time_ns = time_ns;
        self.fold(time_ns);
    }

    /// Two clocks that run together: the counter is never behind a time that was told before.
    fn see_tsc(&mut self, ticks: u64) {
        if ticks < self.tsc.max(self.time_ns) {
            self.wrong = Some("the time-stamp counter ran backwards");
        }
        self.tsc = ticks;
        self.fold(ticks);
    }

    fn see_wall(&mut self, wall_ns: u64) {
        if wall_ns < self.wall_ns {
            self.wrong = Some("wall time ran backwards");
        }
        self.wall_ns = wall_ns;
        self.fold(wall_ns);
    }

    /// One use of the door.
    ///
    /// # Errors
    /// If the door has to wait ([`super::cpu::waits`]) the step can be made again; anything else is
    /// final.
    pub fn step(&mut self, door: &mut dyn Door) -> Result<Progress, DoorError> {
        if self.is_at_a_pause() && door.is_common_point_due(self.point())? {
            return self.make_common_point(door);
        }
        match self.phase {
            Phase::Arrivals { entered } => self.arrive(door, entered),
            Phase::Run { .. } => self.run(door),
            Phase::Work(work) => self.work(door, work),
            Phase::Digests => {
                if self.exits.is_multiple_of(DIGEST_EXITS) {
                    let digest = Digest::of(&self.state().to_le_bytes());
                    let parts = vec![PartDigest {
                        part: "registers".to_owned(),
                        digest,
                    }];
                    door.digests(self.point(), parts)?;
                }
                self.phase = Phase::Arrivals { entered: false };
                Ok(Progress::Exit)
            }
            Phase::Ended => Ok(Progress::Ended),
        }
    }

    /// Its devices that take arrivals.
    pub(super) fn takers(&self) -> [Taker; 5] {
        let expiry = Takes::Expiry {
            deadline_ns: Some(self.timer_at_ns),
            entered: false,
        };
        let frames = Takes::Frames {
            max: FRAMES_MAX - self.frames.len(),
        };
        let [one, other] = CONSOLES.map(|console| {
            (
                console,
                Takes::ConsoleInput {
                    bytes_max: 1,
                    listens: true,
                },
            )
        });
        let takers = [(TIMER, expiry), one, other, (NETWORK, frames)];
        let [one, two, three, four] = takers.map(|(device, takes)| Taker { device, takes });
        [one, two, three, four, self.disk.taker()]
    }

    /// True if only an event can wake it.
    #[must_use]
    pub fn has_nothing_to_do(&self) -> bool {
        self.steps == 0 && self.work.is_empty() && self.frames.is_empty()
    }

    fn arrive(&mut self, door: &mut dyn Door, entered: bool) -> Result<Progress, DoorError> {
        let readiness = Readiness {
            closed: false,
            idle: !entered && self.has_nothing_to_do(),
            takers: &self.takers(),
        };
        match door.arrival(self.point(), readiness)? {
            Some(event) => {
                self.see_time(event.monotonic_ns);
                if let Some(done) = self.enter(event) {
                    door.disk_done(self.point(), DISK, done)?;
                }
                self.phase = Phase::Arrivals { entered: true };
            }
            None => {
                self.plan_work();
                self.phase = Phase::Run { between: false };
            }
        }
        Ok(Progress::Between)
    }

    /// Takes an event. Gives the request that its disk has done.
    fn enter(&mut self, event: Event) -> Option<disk::Request> {
        self.fold(event.device.0.into());
        match event.kind {
            EventKind::Frame(frame) => {
                self.fold(
                    frame
                        .iter()
                        .take(8)
                        .fold(0, |word, byte| word << 8 | u64::from(*byte)),
                );
                self.frames.push_back(frame);
            }
            EventKind::Timer => {
                self.fold(1);
                self.timer_at_ns = self.time_ns + TIMER_NS;
                self.work.push_back(Work::Tick);
            }
            EventKind::ConsoleInput(typed) => {
                self.fold(typed.iter().fold(2, |word, byte| word << 8 | u64::from(*byte)));
            }
            EventKind::Completion(completion) => match self.disk.done(&completion) {
                Ok((word, done)) => {
                    self.fold(word);
                    return Some(done).filter(|done| done.operation.leaves());
                }
                Err(wrong) => self.wrong = Some(wrong),
            },
        }
        None
    }

    fn plan_work(&mut self) {
        if self.work.is_empty() {
            self.plan_reply();
        }
        if self.steps == 0
            && let Some(Work::Stretch(steps)) = self.work.front()
        {
            self.steps = *steps;
            self.work.pop_front();
        }
    }

    fn plan_reply(&mut self) {
        let Some(frame) = self.frames.pop_front() else {
            return;
        };
        let Some(request) = Request::of_frame(&frame) else {
            self.wrong = Some("a frame that no client sent");
            return;
        };
        self.work.push_back(Work::AskTime);
        if self.stretches && (self.chain >> 12).is_multiple_of(2) {
            let steps = 1 + (self.chain >> 16) % STEPS_MAX;
            self.work.push_back(Work::Stretch(steps));
        }
        let computing = self.chain % 3;
        self.work.extend((0..computing).map(|_| Work::Compute));
        match self.chain % 8 {
            0 | 4 => self.work.push_back(Work::AskRandom),
            1 | 5 => self.work.push_back(Work::AskWall),
            2 => self.work.push_back(Work::AskTsc),
            _ => (),
        }
        if request.power_off {
            self.work.push_back(Work::PowerOff);
            return;
        }
        if self.has_disk {
            let asks = (self.chain >> 40) % 5;
            self.work.extend((0..asks).map(|_| Work::Disk));
        }
        self.work.push_back(Work::Reply(request, frame.len()));
        if (self.chain / 8).is_multiple_of(4) {
            self.work.push_back(Work::Note);
        }
        if matches!(self.chain % 8, 3 | 6) {
            // A while after the clock: who goes on has to know of both.
            self.work.extend((0..12).map(|_| Work::Compute));
            self.work.push_back(Work::AskTsc);
        }
    }

    fn work(&mut self, door: &mut dyn Door, work: Work) -> Result<Progress, DoorError> {
        let point = self.point();
        match work {
            Work::AskTime => match door.answer(point, Question::Monotonic)? {
                Value::Monotonic(time_ns) => self.see_time(time_ns),
                _ => self.wrong = Some("another answer than was asked for"),
            },
            Work::AskTsc => match door.answer(point, Question::Tsc)? {
                Value::Tsc(ticks) => self.see_tsc(ticks),
                _ => self.wrong = Some("another answer than was asked for"),
            },
            Work::AskWall => match door.answer(point, Question::Wall)? {
                Value::Wall(wall_ns) => self.see_wall(wall_ns),
                _ => self.wrong = Some("another answer than was asked for"),
            },
            Work::AskRandom => match door.answer(point, Question::Random { length_bytes: 4 })? {
                Value::Random(bytes) => {
                    self.fold(bytes.iter().fold(0, |word, byte| word << 8 | u64::from(*byte)))
                }
                _ => self.wrong = Some("another answer than was asked for"),
            },
            // It has none left of one that it begins here.
            Work::Stretch(_) | Work::Compute => self.fold(2),
            Work::Reply(request, length) => self.reply(door, request, length)?,
            Work::Tick => {
                let mut bytes = vec![u8::MAX];
                bytes.extend(self.chain.to_le_bytes());
                // It says so on the network, or at its console, or nowhere.
                match self.chain % 4 {
                    0 => (),
                    1 => door.output(point, OutputTarget::network(NETWORK), bytes)?,
                    _ => door.output(point, self.console(), bytes)?,
                }
            }
            Work::Note => {
                let bytes = self.chain.to_le_bytes().to_vec();
                door.output(point, self.console(), bytes)?;
            }
            Work::Disk if self.disk.has_room() => {
                self.disk.ask(door, point, self.chain)?;
                self.fold(3);
            }
            Work::Disk => self.fold(4),
            Work::PowerOff => {
                let end = End {
                    reason: EndReason::PoweredOff(0),
                    parts: Vec::new(),
                };
                if door.has_epochs() {
                    for left in self.disk.outstanding().filter(|left| left.operation.leaves()) {
                        door.disk_done(point, DISK, left.clone())?;
                    }
                }
                door.end(point, end)?;
                self.phase = Phase::Ended;
                return Ok(Progress::Ended);
            }
        }
        self.phase = Phase::Digests;
        Ok(Progress::Between)
    }

    /// The console at which it writes next.
    fn console(&self) -> OutputTarget {
        let [one, other] = CONSOLES;
        OutputTarget::console(if self.chain & 1 << 8 == 0 { one } else { other })
    }

    /// A request that was answered before is answered again and writes nothing.
    fn reply(&mut self, door: &mut dyn Door, request: Request, length: usize) -> Result<(), DoorError> {
        let Request { client, number, .. } = request;
        let Some(&(newest, place)) = self.newest.get(usize::from(client)) else {
            self.wrong = Some("a frame that no client sent");
            return Ok(());
        };
        let is_new = number > newest;
        let index = if is_new { self.log.len() as u32 } else { place };
        let reply = Reply {
            client,
            number,
            index,
            chain: self.chain,
            time_ns: self.time_ns,
        };
        door.output(
            self.point(),
            OutputTarget::network(NETWORK),
            reply.to_bytes(length),
        )?;
        if is_new {
            if number != newest + 1 {
                self.wrong = Some("a write that was acknowledged is gone");
            }
            self.memory.note_entry(self.log.len());
            self.log.push((client, number));
            if let Some(entry) = self.newest.get_mut(usize::from(client)) {
                *entry = (number, index);
            }
        }
        Ok(())
    }
}
