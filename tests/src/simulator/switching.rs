//! Switchovers: when a side is asked, and what goes wrong at a step of one.

use lockstep_core::replica::cpu::FromCpu;
use lockstep_core::replica::role::{Halt, Input};

use super::agenda::Happening;
use super::marks::Mark;
use super::plan::{Fault, Plan, Planned, Side};
use super::points::{Blow, Moment, Point, Step};
use super::rng::{Rng, mix};
use super::world::World;

/// Makes the draws of this file others than those of the rest of the plan, which stays as it is for
/// every seed without a switchover.
const DRAWS: u64 = 0x7377_6974_6368_6f76;

/// One seed in so many has switchovers.
const SEEDS_A_SWITCHOVER: u64 = 8;

/// Steps of a switchover, each with the side that takes it where the primary was the first one.
const STEPS: [(Side, Step); 8] = [
    (Side::Primary, Step::Stand),
    (Side::Primary, Step::Handover),
    (Side::Primary, Step::Claim),
    (Side::Primary, Step::Halt),
    (Side::Backup, Step::Claim),
    (Side::Backup, Step::Disconnect),
    (Side::Backup, Step::Announce),
    (Side::Backup, Step::GoLive),
];

impl Plan {
    /// Makes some seeds switch over.
    pub(super) fn draw_switchovers(&mut self, seed: u64) {
        let mut rng = Rng::new(mix(seed ^ DRAWS));
        let only = self.only_narrow || self.only_crowded || self.expected.is_some();
        if !rng.once_in(SEEDS_A_SWITCHOVER) || only {
            return;
        }
        if !self.heals && rng.once_in(2) {
            // Nothing else goes wrong, or what follows does.
            self.faults.clear();
            self.skew_ns %= self.timeout_ns / 4;
        }
        let requests = if self.heals { rng.within(2, 9) } else { 1 };
        for _ in 0..requests {
            self.draw_switchover(&mut rng);
        }
        self.faults.sort_by_key(|planned| planned.at_ns);
    }

    fn draw_switchover(&mut self, rng: &mut Rng) {
        let at_ns = rng.within(self.timeout_ns / 2, self.calm_at_ns);
        let mut side = Side::Primary;
        if self.heals {
            side = Side::BOTH[rng.below(2) as usize];
        }
        let fault = Fault::SwitchOver { side };
        self.faults.push(Planned { at_ns, fault });
        if rng.once_in(3) {
            return;
        }
        let (of, step) = STEPS[rng.below(STEPS.len() as u64) as usize];
        let moment = [Moment::Before, Moment::Halfway, Moment::After][rng.below(3) as usize];
        let blow = if rng.once_in(2) { Blow::Dies } else { Blow::Stops };
        let point = Point { blow, step, moment };
        if !point.exists() {
            return;
        }
        let fault = Fault::Strike {
            side: if side == Side::Primary { of } else { of.other() },
            point,
            nth: 1,
            for_ns: rng.within(1, 4 * self.timeout_ns),
            reset: rng.once_in(3),
        };
        self.faults.push(Planned { at_ns, fault });
    }
}

impl World {
    /// The virtual CPU of a side is to stand, or may go on.
    pub(super) fn stand(&mut self, side: Side, stand: bool) {
        let node = &self.nodes[side.index()];
        {
            let cpu = &mut *node.cpu.borrow_mut();
            cpu.stand = stand;
            cpu.stands &= stand;
        }
        if !stand && !node.handed_over {
            self.marks.reach(Mark::GuestWentOn);
        }
        self.poke_cpu(side, 0);
    }

    /// A side has handed over: gives its mark.
    pub(super) fn handed_over(&mut self, side: Side) -> Mark {
        self.nodes[side.index()].handed_over = true;
        if side == Side::Backup {
            self.marks.reach(Mark::HandedBack);
        }
        Mark::HandedOver
    }

    /// A state that is saved where nobody joins is for nobody: a guest that stands says that it was
    /// saved, too.
    pub(super) fn saved_for_nobody(&mut self, side: Side, told: &FromCpu) {
        let joins = self.joins(side);
        if matches!(told, Input::SavedAt { .. }) && !joins {
            let why = "it was saved for nobody".to_owned();
            self.nodes[side.index()]
                .told
                .push_front(Input::NewcomerLost { why });
        }
    }

    /// A process that has lost the machine in a switchover begins anew, and joins.
    pub(super) fn joins_after_switchover(&mut self, side: Side, halt: &Halt) {
        if *halt == Halt::SwitchedOver && self.plan.heals {
            let after_ns = self.rng.below(self.plan.timeout_ns);
            self.agenda.at(self.now_ns + after_ns, Happening::Start(side));
        }
    }
}
