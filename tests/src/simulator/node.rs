//! One replica process: the real role machine and what it owns.

use std::collections::VecDeque;

use lockstep_core::machine::door::Door;
use lockstep_core::replica::cpu::{Carried, FromCpu, Payload};
use lockstep_core::replica::driving::{Carrying, Standing};
use lockstep_core::replica::recorder::Start;
use lockstep_core::replica::role::{Config, Halt, Input, KEPT_BYTES_MAX, Replica};
use lockstep_logging_channel::{EndReason, Generation, Sequence};

use super::check::Checker;
use super::clock::Clock;
use super::cpu::{Cpu, Shared, live_door, standby_door, waits};
use super::guest::{Guest, Progress};
use super::inbox::Inbox;
use super::network::Decoder;
use super::plan::{Plan, Side};
use super::points::Step;
use super::store::Half;
use super::witness::Watch;

/// Exits a virtual CPU makes in one turn.
const EXITS_A_TURN: u32 = 8;

/// Time an exit takes.
const EXIT_NS: u64 = 2_000;

/// Whether a process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Life {
    /// It runs.
    Running,
    /// It stands still.
    Stopped,
    /// It is gone.
    Dead,
}

/// A replica process.
pub struct Node {
    /// Which.
    pub side: Side,
    /// Its clock.
    pub clock: Clock,
    /// Whether it runs.
    pub life: Life,
    /// The role machine.
    pub replica: Replica<Carried, Payload>,
    /// Its virtual CPU's thread.
    pub cpu: Shared,
    /// Its guest.
    pub guest: Guest,
    door: Box<dyn Door>,
    /// What waits to be read.
    pub inbox: Inbox,
    /// The time has come that it asked for.
    pub woken: bool,
    /// What was read and waits to be stepped with.
    pub told: VecDeque<FromCpu>,
    /// What waits to be carried out.
    pub carrying: Carrying,
    /// Where it stands.
    pub standing: Standing,
    /// How many actions were carried out.
    pub actions_done: u64,
    /// How many of each kind were begun.
    pub steps: [u64; Step::ALL.len()],
    /// Halves of claims that wait for the process to go on.
    pub claims_then: Vec<(Generation, Half)>,
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
    /// The newest entry handed to the replay.
    pub stored: Sequence,
    /// The guest has ended, or its replay has gone wrong.
    pub guest_over: bool,
    /// The virtual CPU is so many times slower, until then.
    pub slow: (u64, u64),
    /// What it knows of its witness.
    pub watch: Watch,
    /// It was stopped while its peer's mail arrived.
    pub stopped_since_ns: u64,
}

/// The role machine's settings.
fn config(plan: &Plan, side: Side) -> Config {
    Config {
        generation: Generation(1),
        common: Sequence(0),
        timeout_ns: plan.timeout_ns,
        window_bytes_max: plan.window_bytes_max,
        held_bytes_max: plan.held_bytes_max,
        lag_ns_max: plan.timeout_ns,
        kept_bytes_max: KEPT_BYTES_MAX,
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
        let cpu = Cpu::new(start_ns, seed, live);
        let first = Start {
            generation: Generation(1),
            sequence: Sequence(1),
        };
        let (replica, door) = match side {
            Side::Primary => (
                Replica::primary(config(plan, side), start_ns),
                live_door(&cpu, first),
            ),
            Side::Backup => (Replica::backup(config(plan, side), start_ns), standby_door(&cpu)),
        };
        #[expect(
            clippy::expect_used,
            reason = "a plan that no pair can have is a defect of the simulator"
        )]
        let replica = replica.expect("the plan's settings");
        Self {
            side,
            clock,
            life: Life::Running,
            replica,
            cpu,
            guest: Guest::default(),
            door,
            inbox: Inbox::default(),
            woken: true,
            told: VecDeque::new(),
            carrying: Carrying::default(),
            standing: Standing::new(live),
            actions_done: 0,
            steps: [0; Step::ALL.len()],
            claims_then: Vec::new(),
            half_sent: None,
            decoder: Decoder::default(),
            connected: true,
            claims: 0,
            halted: None,
            act_due: false,
            cpu_at_ns: None,
            cpu_busy_until_ns: 0,
            wake_at_ns: None,
            stored: Sequence(0),
            guest_over: false,
            slow: (1, 0),
            watch: Watch::default(),
            stopped_since_ns: 0,
        }
    }

    /// Whether it can still do anything.
    #[must_use]
    pub fn is_up(&self) -> bool {
        self.life != Life::Dead && self.halted.is_none()
    }

    /// Whether it ended with its guest.
    #[must_use]
    pub fn has_ended(&self) -> bool {
        matches!(self.halted, Some(Halt::Ended { .. }))
    }

    /// Whether the process has something to do.
    #[must_use]
    pub fn is_busy(&self) -> bool {
        let idle = self.inbox.is_empty() && self.told.is_empty() && self.carrying.is_done();
        !idle || self.woken || self.standing.closing
    }

    /// Whether the virtual CPU would use a turn.
    #[must_use]
    pub fn cpu_runs(&self) -> bool {
        self.life == Life::Running && self.halted.is_none() && !self.guest_over
    }

    /// Lets the virtual CPU run for a turn.
    pub fn run(&mut self, now_ns: u64, checker: &mut Checker) -> Turn {
        self.cpu.borrow_mut().clock_ns = self.clock.read(now_ns);
        let mut exits = 0;
        let turn = loop {
            if exits == EXITS_A_TURN {
                break Turn::Again { after_ns: 0 };
            }
            match self.guest.step(&mut *self.door) {
                Ok(Progress::Between) => (),
                Ok(Progress::Exit) => {
                    exits += 1;
                    let replaying = !self.cpu.borrow().live;
                    checker.exit(self.side, replaying, &self.guest);
                }
                Ok(Progress::Ended) => {
                    self.guest_over = true;
                    let reason = EndReason::PoweredOff(0);
                    self.inbox.put(Input::GuestEnded { reason });
                    break Turn::Waits;
                }
                Err(why) if waits(&why) => break self.wait(),
                Err(why) => {
                    self.guest_over = true;
                    checker.fail(|| format!("the guest of the {:?} was refused: {why}", self.side));
                    break Turn::Waits;
                }
            }
        };
        let slow = if now_ns < self.slow.1 { self.slow.0 } else { 1 };
        self.cpu_busy_until_ns = now_ns + u64::from(exits) * EXIT_NS * slow;
        let told = std::mem::take(&mut self.cpu.borrow_mut().told);
        told.into_iter().for_each(|told| self.inbox.put(told));
        turn
    }

    /// A live guest that idles has a timer; a replaying one has only its log, and a throttled one waits for its loop.
    fn wait(&self) -> Turn {
        let cpu = self.cpu.borrow();
        if !cpu.live || cpu.throttled {
            return Turn::Waits;
        }
        let due_ns = cpu.clock_when(self.guest.timer_at_ns());
        Turn::Again {
            after_ns: due_ns.saturating_sub(cpu.clock_ns).max(EXIT_NS),
        }
    }
}
