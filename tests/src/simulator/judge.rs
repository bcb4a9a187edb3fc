//! When a run is decided, and what is judged then.

use lockstep_core::replica::BATCH_OUTPUT_BYTES_MAX;
use lockstep_core::replica::role::Protection;
use lockstep_logging_channel::Sequence;

use super::marks::Mark;
use super::node::{Life, Node};
use super::plan::Side;
use super::world::World;

impl World {
    fn node(&self, side: Side) -> &Node {
        &self.nodes[side.index()]
    }

    /// True if nothing is left to be decided: nobody is left; or the faults are over, one acts
    /// alone and the other knows, or both are a pair, and clients have what they asked for.
    pub(super) fn is_settled(&self) -> bool {
        if self.nodes.iter().all(|node| !node.is_up()) {
            return true;
        }
        if self.now_ns < self.plan.calm_at_ns || self.power_off {
            return false;
        }
        let served = self.clients.iter().all(super::clients::Client::is_done);
        let protections = Side::BOTH.map(|side| {
            let node = self.node(side);
            node.is_up().then(|| node.replica.statistics().protection)
        });
        let decided = match protections {
            [Some(Protection::Protected), Some(Protection::Protected)] => true,
            [Some(Protection::Alone), None] => self.node(Side::Primary).standing.live,
            [None, Some(Protection::Alone)] => self.node(Side::Backup).standing.live,
            _ => false,
        };
        // Nobody goes on in a generation that is over.
        let newest = self.store.claims.newest().map_or(0, |(generation, _)| generation);
        let overtaken = |node: &Node| node.is_up() && node.replica.generation().0 < newest;
        let over = self.nodes.iter().any(overtaken);
        served && decided && !over && self.joinings.now.is_none()
    }

    /// Whose history survives: that of the newest generation's winner; where nobody claimed the
    /// primary's, or that of a backup that has ended with its guest when the other had not.
    fn survivor(&self) -> Side {
        let newest = self.store.claims.newest().map_or(0, |(_, process)| process);
        let is_newest = |side: &Side| self.node(*side).process == newest;
        let winner = Side::BOTH.into_iter().find(is_newest).unwrap_or(Side::Primary);
        let other_ended = self.node(winner.other()).has_ended() && !self.node(winner).has_ended();
        if other_ended { winner.other() } else { winner }
    }

    /// True if a side has won the generation in which it acts.
    pub(super) fn has_won(&self, side: Side) -> bool {
        let node = self.node(side);
        let claimed = node.replica.generation().0 + u32::from(!node.replica.acts_alone());
        let won = |generation| self.store.claims.winner(generation) == Some(node.process);
        won(claimed) || won(node.replica.generation().0)
    }

    /// The newest output of the surviving history.
    pub(super) fn newest_output(&self) -> Sequence {
        let history = self.node(self.survivor()).cpu.borrow();
        history
            .history
            .last()
            .map_or(Sequence(0), |(sequence, _)| *sequence)
    }

    /// Whether the survivor can still say something.
    fn stands(&self) -> bool {
        let node = self.node(self.survivor());
        node.life == Life::Running && (node.halted.is_none() || node.has_ended())
    }

    /// The first output of the surviving history up to `until` that a survivor that can has not
    /// said.
    pub(super) fn first_unsaid(&self, until: Sequence) -> Option<Sequence> {
        let cpu = self.node(self.survivor()).cpu.borrow();
        let count = cpu.history.partition_point(|(sequence, _)| *sequence <= until);
        let due = cpu.history.get(..count).filter(|_| self.stands())?;
        self.checker.first_unsaid(due, &self.dropped)
    }

    /// A backup keeps no more output than its bound and a batch, whatever the primary tells it of
    /// what has left; in checkpoint mode, its bound and an epoch, which ends behind the output with
    /// which it has as much as a batch may.
    pub(super) fn check_kept(&mut self, side: Side) {
        let kept_bytes = self.node(side).replica.statistics().held_bytes;
        let last = self.plan.epoch_ns.map_or(0, |_| self.plan.payload_bytes as usize);
        let bytes_max = self.plan.held_bytes_max + BATCH_OUTPUT_BYTES_MAX + last;
        if side == Side::Backup && kept_bytes > bytes_max {
            self.checker.fail(|| {
                format!("the backup keeps {kept_bytes} bytes of output, and {bytes_max} is the most")
            });
        }
    }

    /// Judges a run that is decided. Outputs up to `due_until` must have been said by now.
    pub(super) fn judge(&mut self, due_until: Sequence) {
        if self.nodes.iter().any(|node| node.cpu.borrow().wall_went_back) {
            self.marks.reach(Mark::WallWentBack);
        }
        self.check_expected();
        if self.afresh {
            // Another machine has its name.
            return;
        }
        self.judge_disks();
        let survivor = self.survivor();
        let history = self.node(survivor).cpu.borrow().history.clone();
        self.checker.history(&history);
        let stands = self.stands();
        if let Some(Sequence(unsaid)) = self.first_unsaid(due_until) {
            self.checker
                .fail(|| format!("output {unsaid} of the surviving history was never said"));
        }
        let node = &self.nodes[survivor.index()];
        let alone = node.replica.statistics().protection == Protection::Alone;
        if stands && alone && node.is_up() && !node.sends_state && !node.cpu.borrow().held.is_empty() {
            self.checker
                .fail(|| "outputs are held for a common point, and nobody follows".to_owned());
        }
        if !stands && self.nodes.iter().all(|node| !node.is_up()) {
            self.marks.reach(Mark::BothDead);
        }
        // A backup that died on its way has not replayed all it had: what it lacks is not lost by a
        // mistake. And one that has ended without running is where its last common point was.
        let whole = (stands || node.cpu.borrow().live) && node.following.is_none();
        if whole {
            let acknowledged: Vec<_> = self
                .clients
                .iter()
                .flat_map(|client| client.acknowledged.iter().copied())
                .collect();
            self.checker.nothing_lost(&acknowledged, node.guest.log());
        }
    }
}
