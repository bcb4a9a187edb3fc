//! Witnesses: each side asks one that is among the clients, and reaches it as long as it reaches
//! them. A side that is cut off from its peer and from clients at once must leave the machine to
//! the other.

use lockstep_core::replica::cpu::{Carried, FromCpu, Payload};
use lockstep_core::replica::role::{Action, Config, Input, Report};

use super::agenda::Happening;
use super::marks::Mark;
use super::node::{Life, Node};
use super::plan::{Fault, Plan, Planned, Side};
use super::rng::{Rng, mix};
use super::world::World;

/// Makes the draws of this file others than those of the rest of the plan, which stays as it is for
/// every seed without a witness.
const DRAWS: u64 = 0x7769_746e_6573_7365;

/// One seed in so many has witnesses.
const SEEDS_A_WITNESS: u64 = 8;

/// What a plan is certain to lead to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// This side goes on.
    pub winner: Side,
    /// And acts alone within two timeouts from here.
    pub from_ns: u64,
}

/// What a process knows of its witness.
#[derive(Clone, Copy, Debug, Default)]
pub struct Watch {
    /// It waits before it claims, since then on its clock.
    waits_since_ns: Option<u64>,
    /// It has waited before it claimed.
    has_waited: bool,
    /// When it acted alone first, in virtual time.
    alone_at_ns: Option<u64>,
}

/// The network between the sides and the clients, and the witness in it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Uplinks {
    /// Nothing passes between the clients and this side before.
    pub cut_until_ns: [u64; 2],
    /// The witness is gone for ever.
    pub witness_is_dead: bool,
}

impl Uplinks {
    /// Whether a side is cut off from the clients.
    #[must_use]
    pub fn is_cut(&self, side: Side, now_ns: u64) -> bool {
        now_ns < self.cut_until_ns[side.index()]
    }
}

impl Plan {
    /// Gives some seeds witnesses, and something for them to decide.
    pub(super) fn draw_witnesses(&mut self, seed: u64) {
        let mut rng = Rng::new(mix(seed ^ DRAWS));
        // A channel that is only narrow has nothing else the matter.
        if !rng.once_in(SEEDS_A_WITNESS) || self.only_narrow || self.only_crowded || self.heals {
            return;
        }
        self.witnesses = [true; 2];
        let timeout_ns = self.timeout_ns;
        let side = Side::BOTH[rng.below(2) as usize];
        let at_ns = timeout_ns + rng.below(2 * timeout_ns);
        match rng.below(8) {
            0..=3 => self.draw_isolation(&mut rng, side, at_ns),
            4 => {
                self.begin_anew(at_ns);
                let for_ns = rng.within(1, 6 * timeout_ns);
                self.plan_at(at_ns, Fault::CutBoth { for_ns });
                for side in Side::BOTH {
                    self.plan_at(at_ns, Fault::CutUplink { side, for_ns });
                }
            }
            5 => self.plan_at(rng.below(self.calm_at_ns), Fault::WitnessDies),
            6 => {
                let for_ns = rng.within(1, 4 * timeout_ns);
                self.plan_at(rng.below(self.calm_at_ns), Fault::Isolate { side, for_ns });
            }
            _ => {
                self.begin_anew(at_ns);
                let for_ns = rng.within(1, 3 * timeout_ns);
                self.plan_at(at_ns, Fault::CutUplink { side, for_ns });
                let reset = rng.once_in(2);
                let crash = Fault::Crash {
                    side: side.other(),
                    reset,
                };
                self.plan_at(at_ns + rng.below(2 * timeout_ns), crash);
            }
        }
        self.faults.sort_by_key(|planned| planned.at_ns);
    }

    /// A side loses the channel and the clients at once, or the clients first; the other one goes
    /// on.
    fn draw_isolation(&mut self, rng: &mut Rng, side: Side, at_ns: u64) {
        let timeout_ns = self.timeout_ns;
        self.begin_anew(at_ns + 2 * timeout_ns);
        if rng.once_in(3) {
            // A side without a witness never waits, and this one need not.
            self.witnesses[side.other().index()] = false;
        }
        let for_ns = self.calm_at_ns;
        let (uplink_at_ns, channel_at_ns) = match rng.below(3) {
            0 => (at_ns, at_ns),
            1 => (at_ns, at_ns + rng.below(2 * timeout_ns)),
            _ => (at_ns + rng.below(timeout_ns / 8), at_ns),
        };
        self.plan_at(uplink_at_ns, Fault::CutUplink { side, for_ns });
        self.plan_at(channel_at_ns, Fault::CutBoth { for_ns });
        self.expected = Some(Expected {
            winner: side.other(),
            from_ns: channel_at_ns,
        });
    }

    /// Plans nothing but what is planned from now on, until long after `at_ns`.
    fn begin_anew(&mut self, at_ns: u64) {
        self.faults.clear();
        self.skew_ns %= self.timeout_ns / 4;
        self.calm_at_ns = at_ns + 6 * self.timeout_ns;
    }

    fn plan_at(&mut self, at_ns: u64, fault: Fault) {
        self.faults.push(Planned { at_ns, fault });
    }
}

fn config(plan: &Plan) -> Config {
    Config {
        timeout_ns: plan.timeout_ns,
        ..Config::default()
    }
}

impl World {
    /// Lets the sides that have a witness begin to ask.
    pub(super) fn begin_probing(&mut self) {
        for side in Side::BOTH {
            if self.plan.witnesses[side.index()] {
                self.agenda.at(0, Happening::Probe(side));
            }
        }
    }

    /// A side asks its witness, if it runs.
    pub(super) fn probe(&mut self, side: Side) {
        let node = &self.nodes[side.index()];
        if !node.is_up() {
            return;
        }
        let (asked_at_ns, runs) = (node.clock.read(self.now_ns), node.life == Life::Running);
        let next_ns = self.now_ns + config(&self.plan).witness_interval_ns();
        self.agenda.at(next_ns, Happening::Probe(side));
        let lost = self.plan.loss != u64::MAX && self.rng.once_in(self.plan.loss);
        if runs && !lost && self.witness_is_reached(side) {
            let after_ns = 2 * self.plan.latency_ns + self.rng.below(2 * self.plan.latency_ns);
            self.agenda
                .at(self.now_ns + after_ns, Happening::Witnessed(side, asked_at_ns));
        }
    }

    /// The answer arrives, also at a process that stands still.
    pub(super) fn witnessed(&mut self, side: Side, asked_at_ns: u64) {
        if self.witness_is_reached(side) {
            self.tell(
                side,
                Input::Witnessed {
                    witness: 0,
                    asked_at_ns,
                },
            );
        }
    }

    fn witness_is_reached(&self, side: Side) -> bool {
        !self.uplinks.is_cut(side, self.now_ns) && !self.uplinks.witness_is_dead
    }

    /// Judges a step in which a side was told something: who waits for a witness, and hears of it,
    /// claims.
    pub(super) fn check_wait(
        &mut self,
        side: Side,
        asked_at_ns: Option<u64>,
        actions: &[Action<Carried, Payload>],
    ) {
        let node = &mut self.nodes[side.index()];
        let now_ns = node.clock.read(self.now_ns);
        if node.replica.acts_alone() {
            node.watch.alone_at_ns.get_or_insert(self.now_ns);
        }
        let halts = |action: &Action<_, _>| matches!(action, Action::Halt(_));
        if actions.iter().any(halts) {
            // A side that was asked to stop waits for nobody.
            node.watch.waits_since_ns = None;
        }
        let Some(asked_at_ns) = asked_at_ns else { return };
        let fresh = now_ns.saturating_sub(asked_at_ns) <= config(&self.plan).witness_fresh_ns();
        let claims = |action: &Action<_, _>| matches!(action, Action::Claim { .. });
        let waits = node.watch.waits_since_ns.is_some();
        if !fresh {
            self.marks.reach(Mark::OldAnswer);
        } else if waits && !actions.iter().any(claims) {
            self.checker
                .fail(|| format!("the {side:?} waits, and its witness has just answered"));
        }
    }

    /// Marks what a replica reports of its waiting.
    pub(super) fn mark_wait(&mut self, side: Side, report: &Report) {
        let node = &mut self.nodes[side.index()];
        match report {
            Report::WaitingForWitness { .. } => {
                node.watch.waits_since_ns = Some(node.clock.read(self.now_ns));
                node.watch.has_waited = true;
            }
            Report::Claiming { .. } => {
                let since_ns = node.watch.waits_since_ns.take();
                let waited_ns = since_ns.map(|since_ns| node.clock.read(self.now_ns) - since_ns);
                if waited_ns.is_some_and(|ns| ns < config(&self.plan).witness_wait_ns()) {
                    self.marks.reach(Mark::WitnessCameBack);
                }
            }
            Report::Won { .. } if node.watch.has_waited => self.marks.reach(Mark::WaitedAndWon),
            Report::Lost { .. } if node.watch.has_waited => self.marks.reach(Mark::WaitedAndLost),
            _ => {}
        }
    }

    /// Judges whether the side that clients reach went on, and in time.
    pub(super) fn check_expected(&mut self) {
        let Some(Expected { winner, from_ns }) = self.plan.expected else {
            return;
        };
        let newest = self.store.claims.newest();
        let found = Side::BOTH
            .into_iter()
            .find(|side| newest.is_some_and(|(_, process)| process == self.nodes[side.index()].process));
        if found != Some(winner) {
            self.checker
                .fail(|| format!("clients reach only the {winner:?}, and {found:?} has gone on"));
        }
        let node: &Node = &self.nodes[winner.index()];
        let took_ns = node
            .watch
            .alone_at_ns
            .map(|alone_at_ns| alone_at_ns.saturating_sub(from_ns));
        let bound_ns = 2 * self.plan.timeout_ns;
        if took_ns.is_none_or(|took_ns| took_ns > bound_ns) {
            self.checker.fail(|| {
                format!(
                    "clients reach only the {winner:?}, and it took {took_ns:?} ns to go on, of {bound_ns}"
                )
            });
        }
    }
}

/// When the witness was asked whose answer this is.
#[must_use]
pub fn asked_at_ns(told: &FromCpu) -> Option<u64> {
    match told {
        Input::Witnessed { asked_at_ns, .. } => Some(*asked_at_ns),
        _ => None,
    }
}
