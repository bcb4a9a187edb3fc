//! Checkpoint mode: pairs whose backup does not run. It is put where the live guest was at each
//! common point, and runs from the last of them when it goes live.

use lockstep_core::machine::cpu::SavedCpu;
use lockstep_core::machine::door::{Door, DoorError, Met};
use lockstep_core::machine::following::{self, Follower, follow};
use lockstep_logging_channel::ExecutionPoint;

use super::check::Checker;
use super::guest::{Guest, Phase, Progress};
use super::marks::Mark;
use super::node::Node;
use super::plan::{Fault, Plan, Planned, Side};
use super::points::{Blow, Moment, Point, Step};
use super::rng::{Rng, mix};

/// Makes the draws of this file others than those of the rest of the plan, which stays as it is for
/// every seed in the other mode.
const DRAWS: u64 = 0x6368_6563_6b70_6f69;

/// One seed in so many is in checkpoint mode.
const SEEDS_A_CHECKPOINT: u64 = 8;

/// Of those, one seed in so many loses its primary in the middle of what that sends.
const SEEDS_A_CUT_EPOCH: u64 = 4;

/// Parts of the timeout that an epoch lasts.
const PARTS: [u64; 4] = [50, 20, 8, 3];

/// State of a guest that follows without running.
#[derive(Clone, Debug, Default)]
pub struct Following {
    newest: Option<SavedCpu>,
}

impl Plan {
    /// Puts the pairs of some seeds into checkpoint mode.
    pub(super) fn draw_checkpoints(&mut self, seed: u64) {
        let mut rng = Rng::new(mix(seed ^ DRAWS));
        // Who does not run does not diverge. A jump, and a connection that breaks, are rare, and
        // show what nothing else does: a guest that answers later shows less of it.
        let is_other = |planned: &Planned| match planned.fault {
            Fault::Diverge { .. } | Fault::Jump { .. } => true,
            Fault::Break { .. } => !self.heals,
            _ => false,
        };
        let is_other = self.faults.iter().any(is_other) || self.only_narrow || self.only_crowded;
        let part = PARTS[rng.below(PARTS.len() as u64) as usize];
        if !rng.once_in(SEEDS_A_CHECKPOINT) || is_other {
            return;
        }
        self.epoch_ns = Some(self.timeout_ns / part);
        if rng.once_in(SEEDS_A_CUT_EPOCH) && self.expected.is_none() {
            self.draw_cut_epoch(&mut rng);
        }
    }

    /// The primary dies when half of what it sends has left: often that is an epoch.
    fn draw_cut_epoch(&mut self, rng: &mut Rng) {
        let point = Point {
            blow: Blow::Dies,
            step: Step::SendEntries,
            moment: Moment::Halfway,
        };
        let fault = Fault::Strike {
            side: Side::Primary,
            point,
            nth: rng.within(1, 40),
            for_ns: 0,
            reset: false,
        };
        let at_ns = rng.below(self.calm_at_ns / 2);
        self.faults.push(Planned { at_ns, fault });
        self.faults.sort_by_key(|planned| planned.at_ns);
    }
}

impl Following {
    /// Takes a step, and gives what it came to and the guest as it would run from here.
    ///
    /// # Errors
    /// The door's.
    pub fn step(
        &mut self,
        guest: &mut Guest,
        door: &mut dyn Door,
    ) -> Result<(following::Step, Guest), DoorError> {
        let step = follow(guest, &mut self.newest, door)?;
        let mut run_on = guest.clone();
        if let Some(cpu) = &self.newest {
            run_on.load_cpu(cpu)?;
        }
        Ok((step, run_on))
    }
}

impl Node {
    /// A guest that follows without running takes its next step.
    pub(super) fn follow(&mut self, checker: &mut Checker) -> Result<Progress, DoorError> {
        let Some(following) = &mut self.following else {
            return Ok(Progress::Between);
        };
        let (step, run_on) = following.step(&mut self.guest, &mut *self.door)?;
        let mark = |mark| self.cpu.borrow_mut().marks.reach(mark);
        Ok(match step {
            following::Step::Put => {
                checker.put(self.leader, &run_on);
                self.judge_disk_of_follower(checker);
                self.was_put = true;
                Progress::Put
            }
            following::Step::Live => {
                if self.was_put {
                    checker.put(self.leader, &self.guest);
                    mark(Mark::LiveFromPoint);
                } else {
                    mark(Mark::LiveFromStart);
                }
                self.following = None;
                self.judge_disk_of_follower(checker);
                self.ask_disk_again()?;
                Progress::Between
            }
            following::Step::Runs => Progress::Between,
            following::Step::Ended(..) => {
                mark(Mark::EndFollowed);
                Progress::Ended
            }
        })
    }

    /// The guest has passed an exit, or made a common point.
    pub(super) fn judge_exit(&self, checker: &mut Checker, at_point: bool) {
        let cpu = &mut *self.cpu.borrow_mut();
        let leader = self.leader.filter(|_| !cpu.live);
        checker.exit(self.process, leader, &self.guest);
        if at_point && cpu.epoch_ns.is_some() {
            if self.guest.has_nothing_to_do() {
                cpu.marks.reach(Mark::IdleEpochEnded);
            }
            checker.point(self.process, &self.guest);
        }
    }
}

impl Guest {
    /// All that it is, as one word.
    #[must_use]
    pub fn whole(&self) -> u64 {
        let mut word = mix(self.state() ^ mix(self.steps));
        let mut fold = |part: u64| word = mix(word ^ part);
        self.memory.words().into_iter().for_each(&mut fold);
        for (client, number) in self.log() {
            fold(u64::from(*number) << 8 | u64::from(*client));
        }
        for device in self.saved_devices() {
            let (words, _) = device.state.as_chunks::<8>();
            words.iter().for_each(|word| fold(u64::from_le_bytes(*word)));
        }
        word
    }
}

impl Follower for Guest {
    type Error = DoorError;

    fn followed_to(&self) -> ExecutionPoint {
        self.point()
    }

    fn be_put(&mut self, met: Met) -> Result<SavedCpu, DoorError> {
        if self.restore_devices(&met.machine.devices).is_none() {
            self.wrong = Some("devices that it does not have");
        }
        for page in &met.pages {
            self.put_page(page);
        }
        self.exits = met.machine.position.exits;
        self.phase = Phase::Arrivals { entered: false };
        Ok(met.machine.cpu)
    }

    fn load_cpu(&mut self, cpu: &SavedCpu) -> Result<(), DoorError> {
        (self.chain, self.steps) = (cpu.registers.rax, cpu.registers.rcx);
        Ok(())
    }
}
