//! One replica process: the real role machine and what it owns.

use std::collections::VecDeque;
use std::convert::Infallible;

use lockstep_core::machine::door::DoorError;
use lockstep_core::replica::cpu::{Carried, FromCpu, Payload};
use lockstep_core::replica::driving::{Carrying, Hearing, Standing};
use lockstep_core::replica::recorder::{LiveDoor, SavedAt, Start};
use lockstep_core::replica::role::{Config, Halt, Input, Protection, Replica};
use lockstep_logging_channel::{EndReason, Generation, Sequence};

use super::check::{Checker, Place};
use super::clock::Clock;
use super::cpu::{Cpu, Shared, live_door, standby_door, waits};
use super::epochs::Following;
use super::guest::{Guest, Progress};
use super::inbox::Inbox;
use super::joining::Image;
use super::marks::Mark;
use super::network::Decoder;
use super::plan::{Plan, Side};
use super::points::Step;
use super::store::Half;
use super::witness::Watch;

/// Exits a virtual CPU makes in one turn.
const EXITS_A_TURN: u32 = 8;

/// Time an exit takes.
const EXIT_NS: u64 = 2_000;

/// Time from one kick of a guest that computes to the next, however slow its processor is.
const STEP_NS: u64 = 100_000;

/// State of a process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It runs.
    Running,
    /// It stands still.
    Stopped,
    /// It is gone.
    Dead,
}

/// A claim, and who makes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// On which side.
    pub side: Side,
    /// Which process.
    pub process: u32,
    /// For which generation.
    pub generation: Generation,
}

/// A replica process.
pub struct Node {
    /// On which side it runs.
    pub side: Side,
    /// Its number among all processes of the run.
    pub process: u32,
    /// The process whose log it replays.
    pub leader: Option<u32>,
    /// It has been a backup from the start, or was armed, or is live.
    pub armed: bool,
    /// It has handed the machine over.
    pub handed_over: bool,
    /// A state is under way from here to one that wants to join.
    pub sends_state: bool,
    /// True if it acted alone when it let out the outputs of this step.
    pub alone_in_step: bool,
    /// Since when the virtual CPU has to wait.
    pub throttled_since_ns: u64,
    /// Its clock.
    pub clock: Clock,
    /// State of its process.
    pub life: Life,
    /// The role machine.
    pub replica: Replica<Carried, Payload>,
    /// Its virtual CPU's thread.
    pub cpu: Shared,
    /// Its guest.
    pub guest: Guest,
    pub(super) door: Box<dyn LiveDoor>,
    /// It follows without running.
    pub(super) following: Option<Following>,
    /// It has met a common point in that way.
    pub(super) was_put: bool,
    /// The state that was saved, until it is sent.
    pub image: Option<Image>,
    /// What waits to be read.
    pub inbox: Inbox,
    /// The time has come that it asked for.
    pub woken: bool,
    /// What was read and waits to be stepped with.
    pub told: VecDeque<FromCpu>,
    /// What waits to be carried out.
    pub carrying: Carrying,
    /// State of its connection to the peer and of its vCPU, as its loop sees them.
    pub standing: Standing,
    /// How many actions were carried out.
    pub actions_done: u64,
    /// How many of each kind were begun.
    pub steps: [u64; Step::ALL.len()],
    /// Halves of claims that wait for the process to go on.
    pub claims_then: Vec<(Claim, Half)>,
    /// The second half of what was being sent, likewise.
    pub half_sent: Option<Vec<u8>>,
    /// Bytes from the peer become records here.
    pub decoder: Decoder,
    /// Its end of the connection is open.
    pub connected: bool,
    /// How often it has asked the store.
    pub claims: u64,
    /// How it halted.
    pub halted: Option<Halt>,
    /// Its turn is on the agenda.
    pub act_due: bool,
    /// When its virtual CPU takes its next turn.
    pub cpu_at_ns: Option<u64>,
    /// It takes none before: the last one lasts until then.
    pub cpu_busy_until_ns: u64,
    /// When its clock shows this it wants to be stepped.
    pub wake_at_ns: Option<u64>,
    /// Place of the output that left last.
    newest_out: Option<Place>,
    /// The newest entry handed to the replay.
    pub stored: Sequence,
    /// The guest has ended, or its replay has gone wrong.
    pub guest_over: bool,
    /// Frames for nobody come without end, until then.
    pub crowded_until_ns: u64,
    /// The virtual CPU is so many times slower, until then.
    pub slow: (u64, u64),
    /// What it knows of its witness.
    pub watch: Watch,
    /// Who leaves because its replay differs joins again.
    pub(super) heals: bool,
    /// It was stopped while its peer's mail arrived.
    pub stopped_since_ns: u64,
}

/// The role machine's settings.
fn config(plan: &Plan, side: Side, generation: Generation, common: Sequence) -> Config {
    Config {
        generation,
        common,
        timeout_ns: plan.timeout_ns,
        window_bytes_max: plan.window_bytes_max,
        held_bytes_max: plan.held_bytes_max,
        lag_ns_max: plan.timeout_ns,
        kept_bytes_max: plan.kept_bytes_max,
        witnesses: usize::from(plan.witnesses[side.index()]),
    }
}

/// What a virtual CPU's turn came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It takes its next turn after this long.
    Again { after_ns: u64 },
    /// It waits for something.
    Waits,
}

impl Node {
    /// A process that is about to start.
    ///
    /// # Panics
    /// If the plan's settings are none that a pair can have.
    #[must_use]
    pub fn new(side: Side, plan: &Plan, seed: u64) -> Self {
        let start_ns = 1_000_000_000 * (1 + side.index() as u64);
        let clock = Clock::new(plan.clock_ppm[side.index()], start_ns);
        let live = side == Side::Primary;
        let cpu = Cpu::new(start_ns, seed, live, plan.epoch_ns);
        let first = Start {
            generation: Generation(1),
            sequence: Sequence(1),
        };
        let config = config(plan, side, first.generation, Sequence(0));
        let (replica, door) = match side {
            Side::Primary if plan.alone => {
                cpu.borrow_mut().alone = true;
                (Replica::alone(config, start_ns), live_door(&cpu, first))
            }
            Side::Primary => (Replica::primary(config, start_ns), live_door(&cpu, first)),
            Side::Backup => (
                Replica::backup(config, start_ns),
                standby_door(&cpu, SavedAt::default()),
            ),
        };
        let standing = if live && plan.alone {
            Standing::alone()
        } else {
            Standing::new(live)
        };
        #[expect(
            clippy::expect_used,
            reason = "a plan that no pair can have is a defect of the simulator"
        )]
        let replica = replica.expect("the plan's settings");
        Self {
            side,
            process: side as u32,
            leader: (!live).then_some(Side::Primary as u32),
            armed: true,
            handed_over: false,
            sends_state: false,
            alone_in_step: false,
            throttled_since_ns: 0,
            clock,
            life: Life::Running,
            replica,
            cpu,
            guest: Guest::new(plan.stretches).with_disk(plan.disk.is_some()),
            door,
            was_put: false,
            following: plan.epoch_ns.filter(|_| !live).map(|_| Following::default()),
            image: None,
            inbox: Inbox::default(),
            woken: true,
            told: VecDeque::new(),
            carrying: Carrying::default(),
            standing,
            actions_done: 0,
            steps: [0; Step::ALL.len()],
            claims_then: Vec::new(),
            half_sent: None,
            decoder: Decoder::default(),
            connected: standing.connected,
            claims: 0,
            halted: None,
            act_due: false,
            cpu_at_ns: None,
            cpu_busy_until_ns: 0,
            wake_at_ns: None,
            newest_out: None,
            stored: Sequence(0),
            guest_over: false,
            crowded_until_ns: 0,
            slow: (1, 0),
            watch: Watch::default(),
            heals: plan.heals,
            stopped_since_ns: 0,
        }
    }

    /// A process that has loaded a machine's state and has said so.
    ///
    /// # Panics
    /// As [`Node::new`].
    #[must_use]
    pub fn newcomer(before: &Self, plan: &Plan, process: u32, image: Image, now_ns: u64, seed: u64) -> Self {
        let Image {
            guest,
            saved_at,
            history,
            leader,
            generation,
            disk,
            ..
        } = image;
        let clock_ns = before.clock.read(now_ns);
        let cpu = Cpu::new(clock_ns, seed, false, plan.epoch_ns);
        cpu.borrow_mut().history = history;
        let config = config(plan, before.side, generation, saved_at.sequence);
        #[expect(
            clippy::expect_used,
            reason = "a plan that no pair can have is a defect of the simulator"
        )]
        let replica = Replica::newcomer(config, clock_ns).expect("the plan's settings");
        Self {
            process,
            leader: Some(leader),
            armed: false,
            clock: before.clock,
            replica,
            door: standby_door(&cpu, saved_at),
            cpu,
            guest,
            stored: saved_at.sequence,
            slow: before.slow,
            ..Self::new(Side::Backup, plan, seed).on(before.side)
        }
        .with_disk(disk, plan, seed)
    }

    fn on(self, side: Side) -> Self {
        Self { side, ..self }
    }

    /// True if it acts alone, and no newcomer is with it.
    #[must_use]
    pub fn takes_a_newcomer(&self) -> bool {
        let alone = self.replica.statistics().protection == Protection::Alone;
        let live = self.standing.live && self.replica.acts_alone();
        self.is_up() && alone && live && !self.sends_state && !self.guest_over
    }

    /// True if it can still do anything.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.life != Life::Dead && self.halted.is_none()
    }

    /// True if it ended with its guest.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        matches!(self.halted, Some(Halt::Ended { .. }))
    }

    /// True if the process has something to do.
    #[must_use]
    pub fn is_busy(&self, now_ns: u64) -> bool {
        let idle = self.inbox.is_empty() && self.told.is_empty() && self.carrying.is_done();
        !idle || now_ns < self.crowded_until_ns || self.woken || self.standing.closing
    }

    /// True if the virtual CPU would use a turn.
    #[must_use]
    pub fn cpu_runs(&self) -> bool {
        self.life == Life::Running && self.halted.is_none() && !self.guest_over
    }

    /// Lets the virtual CPU run for a turn.
    pub fn run(&mut self, now_ns: u64, checker: &mut Checker) -> Turn {
        {
            let cpu = &mut *self.cpu.borrow_mut();
            cpu.clock_ns = self.clock.read(now_ns);
            cpu.advance_disk();
        }
        let throttled = self.cpu.borrow().throttled;
        let mut exits = 0;
        let mut computing_ns = 0;
        let was_live = self.cpu.borrow().live;
        let turn = loop {
            if exits == EXITS_A_TURN {
                break Turn::Again { after_ns: 0 };
            }
            match self.stand_still(checker) {
                Ok(true) => break Turn::Waits,
                Ok(false) => (),
                Err(why) => checker.fail(|| format!("the {:?} does not stand: {why}", self.side)),
            }
            if let Err(why) = self.capture() {
                checker.fail(|| format!("the {:?} was not captured: {why}", self.side));
            }
            let progress = if self.following.is_some() {
                self.follow(checker)
            } else {
                self.guest.step(&mut *self.door)
            };
            match progress {
                Ok(Progress::Between) => (),
                Ok(Progress::Put) => exits += 1,
                Ok(progress @ (Progress::Exit | Progress::CommonPoint)) => {
                    exits += 1;
                    self.judge_exit(checker, progress == Progress::CommonPoint);
                }
                Ok(Progress::Step) => {
                    self.mark_stretch(was_live);
                    computing_ns = STEP_NS;
                    break Turn::Again { after_ns: STEP_NS };
                }
                Ok(Progress::Ended) => {
                    self.guest_over = true;
                    let reason = EndReason::PoweredOff(0);
                    self.inbox.put(Input::GuestEnded { reason });
                    break Turn::Waits;
                }
                Err(why) if waits(&why) => break self.wait(),
                Err(DoorError::Diverged(report)) if self.is_misread(&report) => break Turn::Waits,
                Err(why) => {
                    self.guest_over = true;
                    checker.fail(|| format!("the guest of the {:?} was refused: {why}", self.side));
                    break Turn::Waits;
                }
            }
        };
        let slow = if now_ns < self.slow.1 { self.slow.0 } else { 1 };
        self.cpu_busy_until_ns = now_ns + u64::from(exits) * EXIT_NS * slow + computing_ns;
        if throttled && exits > 1 {
            checker.fail(|| format!("the guest of the {:?} ran on when it was told to wait", self.side));
        }
        if let Some(wrong) = self.cpu.borrow().wrong.clone() {
            checker.fail(|| format!("at the {:?} {wrong}", self.side));
        }
        let told = std::mem::take(&mut self.cpu.borrow_mut().told);
        told.into_iter().for_each(|told| self.inbox.put(told));
        turn
    }

    /// Place of an output of entry `sequence` that leaves next, or would.
    pub fn place_of_next(&mut self, sequence: Sequence) -> Place {
        let nth = match self.newest_out {
            Some((newest, nth)) if newest == sequence => nth + 1,
            _ => 0,
        };
        *self.newest_out.insert((sequence, nth))
    }

    fn mark_stretch(&self, was_live: bool) {
        let cpu = &mut *self.cpu.borrow_mut();
        if cpu.live && !was_live {
            cpu.marks.reach(Mark::LiveInStretch);
        }
        if self.guest.runs_between_parts() {
            cpu.marks.reach(Mark::RanBetweenParts);
        }
    }

    /// True where the guest is to stand, and is at a pause: it says so once.
    fn stand_still(&mut self, checker: &mut Checker) -> Result<bool, DoorError> {
        let (stand, stands) = (self.cpu.borrow().stand, self.cpu.borrow().stands);
        if !stand || !self.guest.is_at_a_pause() {
            return Ok(false);
        }
        if !stands && self.guest.bring_along(&mut *self.door)? {
            self.cpu.borrow_mut().marks.reach(Mark::BroughtAlong);
            self.judge_exit(checker, true);
        }
        if !stands && let Some(saved_at) = self.door.saved_at(self.guest.exits())? {
            let cpu = &mut *self.cpu.borrow_mut();
            cpu.stands = true;
            let sequence = saved_at.sequence;
            cpu.told.push_back(Input::Stands { sequence });
        }
        Ok(self.cpu.borrow().stands)
    }

    /// Saves the state, where it is wanted and the guest is at a pause.
    fn capture(&mut self) -> Result<(), DoorError> {
        let wanted = self.cpu.borrow().capture && self.image.is_none();
        if !wanted || !self.guest.is_at_a_pause() {
            return Ok(());
        }
        let is_alone = !self.door.is_followed();
        let Some(saved_at) = self.door.saved_at(self.guest.exits())? else {
            return Ok(());
        };
        self.guest.was_captured(&*self.door, is_alone)?;
        let cpu = &mut *self.cpu.borrow_mut();
        // Entries that are logged from here on are for somebody.
        (cpu.capture, cpu.alone) = (false, false);
        if self.guest.is_in_a_stretch() {
            cpu.marks.reach(Mark::CapturedInStretch);
        }
        self.image = Some(Image {
            guest: self.guest.captured(),
            saved_at,
            history: cpu.history.clone(),
            leader: self.process,
            generation: self.replica.generation(),
            disk: (cpu.disk.as_mut()).map(|disk| disk.captured(self.guest.disk.outstanding())),
            damaged: false,
        });
        Ok(())
    }

    /// A live guest that idles has a timer, and its epoch an end; a replaying one has only its log,
    /// and a throttled one waits for its loop. A disk works on beside each.
    fn wait(&self) -> Turn {
        let cpu = self.cpu.borrow();
        let is_woken = cpu.live && !cpu.throttled;
        let timer_ns = is_woken.then(|| cpu.clock_when(self.guest.timer_at_ns()));
        let ends_ns = cpu.epoch_ends_ns.filter(|_| is_woken);
        let due_ns = [timer_ns, ends_ns, cpu.disk_due_ns()];
        let Some(due_ns) = due_ns.into_iter().flatten().min() else {
            return Turn::Waits;
        };
        Turn::Again {
            after_ns: due_ns.saturating_sub(cpu.clock_ns).max(EXIT_NS),
        }
    }
}

impl Hearing for Node {
    type Error = Infallible;

    fn waiting(&mut self) -> Option<FromCpu> {
        self.inbox.take_from_cpu()
    }

    fn passed_exits(&self) -> Option<u64> {
        self.standing.live.then(|| self.cpu.borrow().passed_exits)
    }

    fn tell(&mut self, told: FromCpu) -> Result<(), Infallible> {
        self.told.push_back(told);
        Ok(())
    }
}
