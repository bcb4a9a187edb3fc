//! The machine with a scripted vCPU and a scripted door: what enters where, and what is asked and
//! said at which point.

mod common;
mod disks;
mod execution;
mod following;
mod interrupts;
mod kernel;
mod refused;
mod restarting;
mod saved;
mod trapped;

use super::Machine;
use super::cpu::Exit;
use super::cpu::fake::{FakeCpu, Turn};
use super::devices::board::small;
use super::devices::saved::SavedDevice;
use super::devices::{Board, Devices};
use super::disk::Request;
use super::door::{Door, DoorError, Followed, Horizon, Kick, Kicked, Met, Question, Readiness, Taker, Takes};
use super::image::Sites;
use super::memory;
use super::page_set::PageSet;
use super::run::{Ended, MachineError, Policy};
use super::saved::{Page, SavedMachine};
use lockstep_logging_channel::{
    DeviceId, End, EndReason, Event, EventKind, ExecutionPoint, OutputTarget, PartDigest, Value,
};
use std::collections::VecDeque;

/// Exits, and instructions since the last one.
pub type Position = (u64, u64);

pub const TICKS: u64 = 0x1122_3344_5566_7788;
pub const MONOTONIC_NS: u64 = 0x0000_0005_0000_0007;
pub const WALL_NS: u64 = 0x0000_0009_0000_000b;

pub const CONSOLE: OutputTarget = OutputTarget::console(small::CONSOLE);

/// Readiness as a machine has said it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ready {
    pub closed: bool,
    pub idle: bool,
    pub takers: Vec<Taker>,
}

impl Ready {
    /// True where the interval timer has expired at that point.
    pub fn timer_entered(&self) -> bool {
        let entered = |taker: &Taker| matches!(taker.takes, Takes::Expiry { entered: true, .. });
        self.takers.iter().any(entered)
    }
}

/// A door that gives what it was told, and remembers everything.
#[derive(Debug, Default, PartialEq)]
pub struct FakeDoor {
    /// Events that enter, each with its position.
    pub arrivals: VecDeque<(Position, Event)>,
    /// Answer to every question; none where each is answered with what it asks for.
    pub answers_with: Option<Value>,
    /// Stops the machine there.
    pub stops_at: Option<Position>,
    /// A kick stops the machine.
    pub stops_when_kicked: bool,
    /// Every kick leads to a common point, and somebody follows it.
    pub makes_common_points: bool,
    pub is_followed: bool,
    /// Who follows does not run; a common point is due at each of these positions.
    pub has_epochs: bool,
    pub due_at: Vec<Position>,
    /// A kick's place counts as an exit.
    pub counts_kicks: bool,
    /// For each, that it could take an interrupt, and that it had one.
    pub kicks: Vec<(bool, bool)>,
    pub parts: Vec<(Position, Vec<u64>)>,
    pub common: Vec<(Position, SavedMachine)>,
    /// Common points that come next there.
    pub meets: VecDeque<(Position, Met)>,
    /// Devices that the machine had where it met them.
    pub met_with: Vec<Vec<SavedDevice>>,
    pub asked: Vec<(Position, Question)>,
    pub ready: Vec<(Position, Ready)>,
    pub outputs: Vec<(Position, OutputTarget, Vec<u8>)>,
    pub requests: Vec<(Position, DeviceId, Request)>,
    /// Numbers of requests that disks have done.
    pub done: Vec<u64>,
    /// Common points that it meets which follows without running, and then it is live.
    pub follows: VecDeque<Met>,
    pub follows_live: bool,
    pub digests: Vec<(Position, Vec<String>)>,
    pub end: Option<(ExecutionPoint, End)>,
}

impl FakeDoor {
    pub fn with(arrivals: impl IntoIterator<Item = (Position, EventKind)>) -> Self {
        let event = |(position, kind)| {
            (
                position,
                Event {
                    device: device_of(&kind),
                    monotonic_ns: MONOTONIC_NS,
                    kind,
                },
            )
        };
        Self {
            arrivals: arrivals.into_iter().map(event).collect(),
            ..Self::default()
        }
    }

    /// True where the machine reported at `position` that nothing may enter.
    pub fn was_closed_at(&self, position: Position) -> bool {
        self.ready
            .iter()
            .any(|(at, readiness)| *at == position && readiness.closed)
    }
}

impl Door for FakeDoor {
    fn answer(&mut self, point: ExecutionPoint, question: Question) -> Result<Value, DoorError> {
        self.asked.push((point.position(), question));
        if let Some(answer) = &self.answers_with {
            return Ok(answer.clone());
        }
        Ok(match question {
            Question::Tsc => Value::Tsc(TICKS),
            Question::Monotonic => Value::Monotonic(MONOTONIC_NS),
            Question::Wall => Value::Wall(WALL_NS),
            Question::Random { length_bytes } => Value::Random((1..=length_bytes as u8).collect()),
        })
    }

    fn arrival(
        &mut self,
        point: ExecutionPoint,
        readiness: Readiness<'_>,
    ) -> Result<Option<Event>, DoorError> {
        let ready = Ready {
            closed: readiness.closed,
            idle: readiness.idle,
            takers: readiness.takers.to_vec(),
        };
        self.ready.push((point.position(), ready));
        if self.stops_at == Some(point.position()) {
            return Err(DoorError::Stopped);
        }
        match self
            .arrivals
            .pop_front_if(|(position, _)| *position == point.position())
        {
            Some((_, event)) => Ok(Some(event)),
            // Nothing will ever wake it.
            None if readiness.idle => Err(DoorError::Stopped),
            None => Ok(None),
        }
    }

    fn horizon(&mut self, point: ExecutionPoint) -> Result<Horizon, DoorError> {
        let next = self.meets.front();
        Ok(if next.is_some_and(|(at, _)| *at == point.position()) {
            Horizon::CommonPoint
        } else {
            Horizon::Kick
        })
    }

    fn meet(&mut self, _: ExecutionPoint, devices: &[SavedDevice]) -> Result<Met, DoorError> {
        self.met_with.push(devices.to_vec());
        Ok(self.meets.pop_front().unwrap().1)
    }

    fn kicked(&mut self, kick: Kick<'_>) -> Result<Kicked, DoorError> {
        if self.stops_when_kicked {
            return Err(DoorError::Stopped);
        }
        self.kicks.push((kick.interruptible, kick.interrupt_pending));
        Ok(if self.makes_common_points {
            Kicked::CommonPoint
        } else if self.counts_kicks {
            Kicked::Exit
        } else {
            Kicked::RunsOn
        })
    }

    fn is_followed(&self) -> bool {
        self.is_followed
    }

    fn has_epochs(&self) -> bool {
        self.has_epochs
    }

    fn is_common_point_due(&mut self, point: ExecutionPoint) -> Result<bool, DoorError> {
        let due = self.due_at.iter().position(|at| *at == point.position());
        Ok(due.map(|due| self.due_at.remove(due)).is_some())
    }

    fn part(&mut self, point: ExecutionPoint, pages: Vec<Page>) -> Result<(), DoorError> {
        let indices = pages.iter().map(|page| page.index).collect();
        self.parts.push((point.position(), indices));
        Ok(())
    }

    fn common_point(&mut self, point: ExecutionPoint, machine: SavedMachine) -> Result<(), DoorError> {
        self.common.push((point.position(), machine));
        Ok(())
    }

    fn output(
        &mut self,
        point: ExecutionPoint,
        target: OutputTarget,
        bytes: Vec<u8>,
    ) -> Result<(), DoorError> {
        self.outputs.push((point.position(), target, bytes));
        Ok(())
    }

    fn disk_request(
        &mut self,
        point: ExecutionPoint,
        device: DeviceId,
        request: Request,
    ) -> Result<(), DoorError> {
        self.requests.push((point.position(), device, request));
        Ok(())
    }

    fn disk_done(&mut self, _: ExecutionPoint, _: DeviceId, request: Request) -> Result<(), DoorError> {
        self.done.push(request.number);
        Ok(())
    }

    fn follow(&mut self, _: ExecutionPoint) -> Result<Followed, DoorError> {
        Ok(match self.follows.pop_front() {
            Some(met) => Followed::Met(met),
            None if std::mem::take(&mut self.follows_live) => Followed::Live,
            None => Followed::Runs,
        })
    }

    fn digests(&mut self, point: ExecutionPoint, parts: Vec<PartDigest>) -> Result<(), DoorError> {
        self.digests.push((
            point.position(),
            parts.into_iter().map(|part| part.part).collect(),
        ));
        Ok(())
    }

    fn end(&mut self, point: ExecutionPoint, end: End) -> Result<(), DoorError> {
        self.end = Some((point, end));
        Ok(())
    }
}

pub const NEVER: Policy = Policy {
    digest_interval_exits: 0,
    window_exits: false,
};

/// Runs a machine without rewritten instructions.
pub fn run(cpu: &mut FakeCpu, door: &mut FakeDoor) -> Result<Ended, MachineError> {
    run_with(cpu, door, Sites::default(), NEVER)
}

pub fn run_with(
    cpu: &mut FakeCpu,
    door: &mut FakeDoor,
    sites: Sites,
    policy: Policy,
) -> Result<Ended, MachineError> {
    let memory = memory::allocate(memory::MEMORY_BYTES_MIN).unwrap();
    Machine::new(cpu, memory, devices(), sites, policy).run(door)
}

/// The device of the small board that takes it.
pub fn device_of(kind: &EventKind) -> DeviceId {
    match kind {
        EventKind::Frame(_) => small::NETWORK,
        EventKind::Timer => small::TIMER,
        EventKind::ConsoleInput(_) => small::CONSOLE,
        EventKind::Completion(_) => DeviceId(6),
    }
}

/// The board of every test that says nothing else.
pub fn board() -> Board {
    Board::small([2, 0, 0, 0, 0, 1]).unwrap()
}

pub fn devices() -> Devices {
    Devices::new(&board()).unwrap()
}

pub fn write(port: u16, value: u32) -> Turn {
    Turn::new(Exit::PortWrite {
        port,
        size_bytes: 1,
        value,
    })
}

pub fn read(port: u16, size_bytes: u8) -> Turn {
    Turn::new(Exit::PortRead { port, size_bytes })
}

pub fn power_off(status: u32) -> Turn {
    write(0xf4, status)
}

/// Exits that [`console_interrupts`] takes.
pub const SET_UP_EXITS: u64 = 5;
/// The vector on which typed bytes interrupt after it.
pub const CONSOLE_VECTOR: u8 = 0x24;

/// A guest that sets itself up to be interrupted by the console on [`CONSOLE_VECTOR`], and then
/// does `rest`.
pub fn console_interrupts(rest: impl IntoIterator<Item = Turn>) -> FakeCpu {
    let set_up = [(0x20, 0x11), (0x21, 0x20), (0x21, 4), (0x21, 1), (0x3f9, 1)];
    let set_up = set_up.map(|(port, value)| {
        Turn::closed(Exit::PortWrite {
            port,
            size_bytes: 1,
            value,
        })
    });
    FakeCpu::new(set_up.into_iter().chain(rest))
}

pub fn typed() -> EventKind {
    EventKind::ConsoleInput(b"k".to_vec())
}

pub fn reason(ended: Result<Ended, MachineError>) -> EndReason {
    ended.unwrap().reason
}
