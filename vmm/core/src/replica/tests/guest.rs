//! A guest small enough for thousands of runs: what it does is written down, and its state is a
//! digest of everything it was told and of where it was told. So whatever reaches it differently
//! shows in what it says.

use super::parts::machine;
use super::*;
use crate::machine::common::{self, CommonPoints, Still};
use crate::machine::devices::saved::SavedDevice;
use crate::machine::door::Door;
use crate::machine::gathering::Shares;
use crate::machine::page_set::PageSet;
use crate::machine::saved::pages::PAGE_BYTES;
use crate::machine::saved::{Page, SavedMachine};
use lockstep_logging_channel::Digest;

/// Pages of its memory, each with a digest at its beginning.
const PAGES: usize = 6;

/// Action of a guest at an exit.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Does {
    Ask(Question),
    Say(OutputTarget),
    Digests,
    Halt,
    Nothing,
}

/// A guest and, where it runs live with a clock, the instructions after each exit at which kicks
/// find it.
#[derive(Clone, Debug)]
pub struct Script {
    pub does: Vec<Does>,
    pub kicks: Vec<Vec<u64>>,
    /// Steps behind each exit in which it computes: kicks find it between them, where nothing can
    /// be counted.
    pub steps: Vec<u64>,
}

/// The guest in its run.
pub struct Guest<'a> {
    script: &'a Script,
    state: Digest,
    /// Of everything it was told: what its devices remember.
    heard: Digest,
    /// Steps that are left of this stretch.
    steps: u64,
    memory: [Digest; PAGES],
    written: PageSet,
    common_points: CommonPoints,
    point: ExecutionPoint,
    /// Everything it was told, in order.
    pub told: Vec<(ExecutionPoint, Body)>,
}

impl<'a> Guest<'a> {
    pub fn new(script: &'a Script) -> Self {
        Self {
            script,
            state: Digest::default(),
            heard: Digest::default(),
            steps: 0,
            memory: [Digest::default(); PAGES],
            written: PageSet::default(),
            common_points: CommonPoints::default(),
            point: ExecutionPoint::default(),
            told: Vec::new(),
        }
    }

    /// Runs to the end of the script.
    pub fn run(&mut self, door: &mut dyn Door) -> Result<(), DoorError> {
        for index in 0..self.script.does.len() {
            self.go_to(self.point.exits + 1, 0);
            self.exit(&self.script.does[index], door)?;
            self.arrivals(self.script.does[index] == Does::Halt, door)?;
            self.steps = self.script.steps[index];
            self.run_on(&self.script.kicks[index], door)?;
        }
        self.go_to(self.point.exits + 1, 0);
        let end = End {
            reason: EndReason::PoweredOff(0),
            parts: vec![self.part("memory")],
        };
        door.end(self.point, end)
    }

    fn go_to(&mut self, exits: u64, instructions: u64) {
        let [low, ..] = self.state.0;
        self.point = ExecutionPoint {
            exits,
            instructions,
            rip: 0x1000 | u64::from(low),
        };
    }

    fn exit(&mut self, does: &Does, door: &mut dyn Door) -> Result<(), DoorError> {
        match does {
            Does::Ask(question) => {
                let value = door.answer(self.point, *question)?;
                self.hear(Body::Value(value));
            }
            Does::Say(target) => door.output(self.point, *target, self.state.0.to_vec())?,
            Does::Digests => door.digests(self.point, vec![self.part("registers"), self.part("clock")])?,
            Does::Halt | Does::Nothing => {}
        }
        Ok(())
    }

    fn part(&self, name: &str) -> PartDigest {
        PartDigest {
            part: name.to_owned(),
            digest: self.state,
        }
    }

    fn arrivals(&mut self, halted: bool, door: &mut dyn Door) -> Result<(), DoorError> {
        let mut idle = halted;
        while let Some(event) = door.arrival(self.point, ready(idle))? {
            idle = false;
            self.hear(Body::Event(event));
        }
        Ok(())
    }

    fn run_on(&mut self, kicks: &[u64], door: &mut dyn Door) -> Result<(), DoorError> {
        loop {
            let stop = match door.horizon(self.point)? {
                Horizon::Exit => None,
                Horizon::CommonPoint => {
                    let mut points = std::mem::take(&mut self.common_points);
                    common::meet(self, &mut points, door)?;
                    self.common_points = points;
                    self.arrivals(false, door)?;
                    continue;
                }
                Horizon::Instructions(instructions) => Some(instructions),
                Horizon::Kick => kicks
                    .iter()
                    .find(|kick| **kick > self.point.instructions)
                    .copied(),
            };
            let Some(instructions) = stop else {
                if self.step(door)? {
                    continue;
                }
                return Ok(());
            };
            self.go_to(self.point.exits, instructions);
            self.arrivals(false, door)?;
        }
    }

    fn hear(&mut self, body: Body) {
        let said = format!("{:?} {:?} {body:?}", self.state, self.point.position());
        self.state = Digest::of(said.as_bytes());
        self.heard = Digest::of(format!("{:?} {body:?}", self.heard).as_bytes());
        self.told.push((self.point, body));
    }

    /// Makes a step, or a common point; whether there was any.
    fn step(&mut self, door: &mut dyn Door) -> Result<bool, DoorError> {
        let stands = self.common_points.stands();
        if !stands {
            if self.steps == 0 {
                return Ok(false);
            }
            self.compute();
            if self.steps == 0 || door.kicked(KICK)? == Kicked::RunsOn {
                return Ok(true);
            }
        }
        let exits = self.point.exits;
        let mut points = std::mem::take(&mut self.common_points);
        common::make(self, &mut points, door)?;
        self.common_points = points;
        if self.point.exits > exits {
            self.arrivals(false, door)?;
        }
        Ok(true)
    }

    fn compute(&mut self) {
        let place = |state: Digest| usize::from(state.0[0]) % PAGES;
        self.steps -= 1;
        let read = self.memory[place(self.state)];
        self.state = Digest::of(&[self.state.0, read.0].concat());
        let place = place(self.state);
        self.memory[place] = self.state;
        self.written.insert(place as u64);
    }
}

impl Still for Guest<'_> {
    type Error = DoorError;

    const SHARES: Shares = Shares {
        pages: 1,
        at_once_max: 2,
    };

    fn point(&mut self) -> ExecutionPoint {
        self.point
    }

    fn log_writes(&mut self, _: bool) -> Result<(), DoorError> {
        self.written = PageSet::default();
        Ok(())
    }

    fn written_pages(&mut self) -> Result<PageSet, DoorError> {
        Ok(std::mem::take(&mut self.written))
    }

    fn given_pages(&self) -> PageSet {
        PageSet::first(PAGES as u64)
    }

    fn page(&self, index: u64) -> Option<Page> {
        let mut bytes = [0; PAGE_BYTES];
        bytes[..16].copy_from_slice(&self.memory.get(index as usize)?.0);
        Some(Page { index, bytes })
    }

    fn pass_exit(&mut self) -> Result<(), DoorError> {
        self.go_to(self.point.exits + 1, 0);
        Ok(())
    }

    fn save(&mut self) -> Result<SavedMachine, DoorError> {
        let mut machine = machine(self.point.exits, 0);
        machine.cpu.vector.xmm[0] = self.state.0;
        machine.cpu.registers.rcx = self.steps;
        machine.devices = self.devices()?;
        Ok(machine)
    }

    fn devices(&self) -> Result<Vec<SavedDevice>, DoorError> {
        Ok(vec![SavedDevice {
            name: "told".to_owned(),
            state: self.heard.0.to_vec(),
        }])
    }

    fn put(&mut self, page: &Page) -> Result<(), DoorError> {
        self.memory[page.index as usize]
            .0
            .copy_from_slice(&page.bytes[..16]);
        Ok(())
    }

    fn load(&mut self, machine: SavedMachine) -> Result<(), DoorError> {
        self.state = Digest(machine.cpu.vector.xmm[0]);
        self.steps = machine.cpu.registers.rcx;
        self.go_to(machine.position.exits, 0);
        Ok(())
    }
}
