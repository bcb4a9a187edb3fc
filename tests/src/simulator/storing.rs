//! Claims on their way to the store and back, in halves: between these a process can die, stand
//! still, or be beaten.

use lockstep_core::replica::role::{Input, Outcome};
use lockstep_shared_disk::Verdict;

use super::agenda::Happening;
use super::marks::Mark;
use super::node::{Claim, Life};
use super::plan::{MS, US};
use super::points::{Moment, Step};
use super::store::{Half, Work};
use super::world::World;

impl World {
    /// A half of a claim has come to the store, unless its process is no longer there to make it.
    /// The second half may be on its way already: then it is done whatever has become of the
    /// process.
    pub(super) fn store_work(&mut self, claim: Claim, half: Half) {
        let Claim {
            side,
            process,
            generation,
        } = claim;
        let on_its_way = half == Half::Set && self.rng.once_in(2);
        match self.life_of(claim) {
            Life::Dead if !on_its_way => {
                if half == Half::Set {
                    self.marks.reach(Mark::DiedBetweenHalves);
                }
                return;
            }
            Life::Stopped if !on_its_way => {
                self.nodes[side.index()].claims_then.push((claim, half));
                return;
            }
            _ => (),
        }
        let work = match half {
            Half::Test => self.store.test(self.now_ns, generation.0, process),
            Half::Set => self.store.set(self.now_ns, generation.0, process),
        };
        let answer = match work {
            Work::WaitsUntil(until_ns) => {
                self.marks.reach(Mark::StoreHung);
                self.agenda.at(until_ns, Happening::StoreWork(claim, half));
                return;
            }
            Work::Swallowed => {
                self.marks.reach(Mark::StoreSwallowed);
                return;
            }
            Work::Free => return self.between_halves(claim),
            Work::Verdict(verdict) => self.verdict(claim, half, &verdict),
            Work::Fails { done, full } => {
                self.marks.reach(match (done, full) {
                    (true, _) => Mark::StoreFailedAfterWork,
                    (false, true) => Mark::StoreFull,
                    (false, false) => Mark::StoreUnreachable,
                });
                Outcome::Unreachable {
                    why: "it failed".to_owned(),
                }
            }
        };
        self.trace.say(self.now_ns, || {
            format!("store: {side:?} (process {process}) claims {generation:?}: {answer:?}")
        });
        let after_ns = (100 * US + self.rng.below(MS)) * self.slowness();
        self.agenda
            .at(self.now_ns + after_ns, Happening::StoreAnswer(claim, answer));
    }

    fn verdict(&mut self, claim: Claim, half: Half, verdict: &Verdict) -> Outcome {
        let won = *verdict == Verdict::Won;
        if half == Half::Set && !won {
            self.marks.reach(Mark::BeatenBetweenHalves);
        }
        if half == Half::Set && won && self.life_of(claim) == Life::Dead {
            self.marks.reach(Mark::ClaimedByTheDead);
        }
        if won { Outcome::Won } else { Outcome::Lost }
    }

    /// A side has found its generation free.
    fn between_halves(&mut self, claim: Claim) {
        let after_ns = (20 * US + self.rng.below(300 * US)) * self.slowness();
        self.agenda
            .at(self.now_ns + after_ns, Happening::StoreWork(claim, Half::Set));
        if self.life_of(claim) == Life::Dead {
            return;
        }
        let side = claim.side;
        let nth = self.nodes[side.index()].claims;
        if let Some(blow) = self.blow_at(side, Step::Claim, nth, Moment::Halfway) {
            self.strike(blow);
        }
    }

    /// Returns the `Life` of the process that makes this claim.
    fn life_of(&self, claim: Claim) -> Life {
        let node = &self.nodes[claim.side.index()];
        if node.process == claim.process {
            node.life
        } else {
            Life::Dead
        }
    }

    /// The store's answer comes to the process that has asked, if it is still there.
    pub(super) fn store_answer(&mut self, claim: Claim, outcome: Outcome) {
        let Claim {
            side,
            process,
            generation,
        } = claim;
        if self.nodes[side.index()].process == process {
            self.tell(side, Input::Claimed { generation, outcome });
        }
    }

    fn slowness(&mut self) -> u64 {
        let slowness = self.store.slowness(self.now_ns);
        if slowness > 100 {
            self.marks.reach(Mark::StoreSlow);
        }
        slowness
    }
}
