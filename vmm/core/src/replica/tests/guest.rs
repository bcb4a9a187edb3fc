//! A guest small enough for thousands of runs: what it does is written down, and its state is a
//! digest of everything it was told and of where it was told. So whatever reaches it differently
//! shows in what it says.

use super::*;
use crate::machine::door::Door;
use lockstep_logging_channel::Digest;

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
}

/// The guest in its run.
pub struct Guest<'a> {
    script: &'a Script,
    state: Digest,
    point: ExecutionPoint,
    /// Everything it was told, in order.
    pub told: Vec<(ExecutionPoint, Body)>,
}

impl<'a> Guest<'a> {
    pub fn new(script: &'a Script) -> Self {
        Self {
            script,
            state: Digest::default(),
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
                Horizon::CommonPoint => unreachable!("its recordings have none"),
                Horizon::Instructions(instructions) => Some(instructions),
                Horizon::Kick => kicks
                    .iter()
                    .find(|kick| **kick > self.point.instructions)
                    .copied(),
            };
            let Some(instructions) = stop else { return Ok(()) };
            self.go_to(self.point.exits, instructions);
            self.arrivals(false, door)?;
        }
    }

    fn hear(&mut self, body: Body) {
        let said = format!("{:?} {:?} {body:?}", self.state, self.point.position());
        self.state = Digest::of(said.as_bytes());
        self.told.push((self.point, body));
    }
}
