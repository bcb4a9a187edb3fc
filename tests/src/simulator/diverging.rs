//! Replays that differ from the log: their sides leave, and join again where the machine heals.

use lockstep_core::replica::role::Input;

use super::agenda::Happening;
use super::marks::Mark;
use super::node::Life;
use super::plan::{Fault, Plan, Planned, Side};
use super::rng::{Rng, mix};
use super::world::World;

/// Makes the draws of this file others than those of the rest of the plan.
const DRAWS: u64 = 0x6469_7665_7267_6573;

/// Of those that heal, one seed in so many diverges.
const HEALING_SEEDS_A_DIVERGING: u64 = 3;

/// The same of the others, in which nobody joins again.
const SEEDS_A_DIVERGING: u64 = 40;

/// Most divergences of a run.
const DIVERGENCES_MAX: u64 = 4;

impl Plan {
    /// Makes the replays of some seeds diverge.
    pub(super) fn draw_diverging(&mut self, seed: u64) {
        let mut rng = Rng::new(mix(seed ^ DRAWS));
        let seeds = if self.heals {
            HEALING_SEEDS_A_DIVERGING
        } else {
            SEEDS_A_DIVERGING
        };
        let only = self.only_narrow || self.only_crowded;
        // A jump shows what no other plan does, and an expected end expects nothing else.
        let jumps = |planned: &Planned| matches!(planned.fault, Fault::Jump { .. });
        if !rng.once_in(seeds) || only || self.expected.is_some() || self.faults.iter().any(jumps) {
            return;
        }
        let count = if self.heals {
            rng.within(1, DIVERGENCES_MAX)
        } else {
            1
        };
        for _ in 0..count {
            // Both: which of them replays is not known now.
            let at_ns = rng.within(self.timeout_ns / 4, self.calm_at_ns);
            let faults = Side::BOTH.map(|side| Planned {
                at_ns,
                fault: Fault::Diverge { side },
            });
            self.faults.extend(faults);
        }
        self.faults.sort_by_key(|planned| planned.at_ns);
    }
}

impl World {
    /// The replay of a side differs, if it is one.
    pub(super) fn diverge(&mut self, side: Side) {
        let again = self.plan.heals;
        let node = &mut self.nodes[side.index()];
        let live = node.cpu.borrow().live;
        if !node.is_up() || node.life != Life::Running || node.guest_over || live {
            return;
        }
        node.guest_over = true;
        let sequence = node.stored.next();
        self.tell(
            side,
            Input::Diverged {
                sequence,
                part: "registers".to_owned(),
                again,
            },
        );
    }

    /// A side has left because its replay differs. Gives the mark of that.
    pub(super) fn left_diverged(&mut self, side: Side, again: bool) -> Mark {
        let node = &self.nodes[side.index()];
        let (armed, won) = (node.armed, self.has_won(side));
        if !armed {
            self.marks.reach(Mark::DivergedUnarmed);
        }
        if won {
            self.marks.reach(Mark::DivergedWinner);
        }
        if again && (won || !self.plan.heals) {
            self.checker
                .fail(|| format!("the {side:?} joins again, and may not"));
        }
        if !again {
            return Mark::DivergedForGood;
        }
        let rest_ns = self.plan.timeout_ns / 2;
        self.agenda.at(self.now_ns + rest_ns, Happening::Start(side));
        Mark::DivergedAgain
    }
}
