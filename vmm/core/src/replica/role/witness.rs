//! Witnesses: stations among the clients whose answers show that clients can reach this side.
//!
//! The shell asks each of them all the time, and reports every answer with the time at which it had
//! asked. That time counts, not the time of hearing: an answer that has waited in a socket proves
//! nothing about now. A side that has to claim and has no recent answer of any witness waits before
//! it claims, so that its peer, if that lives, wins. It claims at once when a witness answers
//! again, and in any case when the wait is over.
//!
//! ```text
//!   asked -- answered --> reached -- no answer to a question of the last T/2 --> not reached
//! ```
//!
//! The times, and why they are enough: `docs/failover.md`.

use super::turn::Turn;
use super::{Config, Report};
use crate::replica::mutant::{self, Mutant};

/// Most witnesses of a side. Each costs a question every eighth of the timeout.
pub const WITNESSES_MAX: usize = 8;

/// Shortest time between two reports on one witness: eight of them make less than a line a second.
const REPORT_INTERVAL_NS: u64 = 10_000_000_000;

impl Config {
    /// Time between two questions to a witness.
    #[must_use]
    pub fn witness_interval_ns(&self) -> u64 {
        self.timeout_ns / 8
    }

    /// Age of the newest answered question up to which a witness counts as reached. Three questions
    /// may be lost in it; and it ends before a side that loses everything at once has noticed that
    /// its peer is silent.
    #[must_use]
    pub fn witness_fresh_ns(&self) -> u64 {
        self.timeout_ns / 2
    }

    /// Time that a side that reaches no witness waits before it claims: as long as its peer may
    /// need to notice, and as long again for the peer's claim to reach the store.
    #[must_use]
    pub fn witness_wait_ns(&self) -> u64 {
        self.timeout_ns * 2
    }
}

/// One witness.
#[derive(Clone, Copy, Debug)]
struct Witness {
    /// When the newest question was asked that it has answered.
    answered_at_ns: Option<u64>,
    /// Its state as it was reported last.
    reported_reached: bool,
    /// No report before.
    report_from_ns: u64,
}

/// Known state of this side's witnesses.
#[derive(Debug)]
pub(super) struct Witnesses {
    fresh_ns: u64,
    wait_ns: u64,
    all: Vec<Witness>,
}

impl Witnesses {
    /// None has answered yet; one that goes on so is reported after a timeout.
    pub fn new(config: &Config, now_ns: u64) -> Self {
        let witness = Witness {
            answered_at_ns: None,
            reported_reached: true,
            report_from_ns: now_ns + config.timeout_ns,
        };
        Self {
            fresh_ns: config.witness_fresh_ns(),
            wait_ns: config.witness_wait_ns(),
            all: vec![witness; config.witnesses.min(WITNESSES_MAX)],
        }
    }

    /// A witness has answered what it was asked at `asked_at_ns`. A number that is none of a
    /// witness's counts for nothing, and so does a question of the future.
    pub fn answered(&mut self, now_ns: u64, witness: usize, asked_at_ns: u64) {
        if let Some(witness) = self.all.get_mut(witness).filter(|_| asked_at_ns <= now_ns) {
            witness.answered_at_ns = witness.answered_at_ns.max(Some(asked_at_ns));
        }
    }

    fn is_reached(&self, now_ns: u64, witness: Witness) -> bool {
        let fresh = |at_ns| now_ns - at_ns <= self.fresh_ns || mutant::is(Mutant::TrustStaleWitness);
        witness.answered_at_ns.is_some_and(fresh)
    }

    fn reaches_one(&self, now_ns: u64) -> bool {
        self.all.iter().any(|witness| self.is_reached(now_ns, *witness))
    }

    /// True where this side reaches a witness; none where it has no witness.
    pub fn reached(&self, now_ns: u64) -> Option<bool> {
        (!self.all.is_empty()).then(|| self.reaches_one(now_ns))
    }

    /// Time that a claim has to wait; none where it does not.
    pub fn wait_ns(&self, now_ns: u64) -> Option<u64> {
        if mutant::is(Mutant::WaitThoughReached) && !self.all.is_empty() {
            return Some(self.wait_ns);
        }
        let waits = self.reached(now_ns) == Some(false) && !mutant::is(Mutant::IgnoreWitness);
        waits.then_some(self.wait_ns)
    }

    /// When a report will be due, if no answer comes before.
    pub fn due_at_ns(&self, now_ns: u64) -> Option<u64> {
        let due = |witness: &Witness| {
            let changed = self.is_reached(now_ns, *witness) != witness.reported_reached;
            let stale_at_ns = witness.answered_at_ns.map(|at_ns| at_ns + self.fresh_ns + 1);
            match stale_at_ns {
                _ if changed => Some(witness.report_from_ns),
                Some(at_ns) if witness.reported_reached => Some(at_ns.max(witness.report_from_ns)),
                _ => None,
            }
        };
        self.all.iter().filter_map(due).min()
    }

    /// The next witness whose change is to be reported, and whether it is reached now.
    fn changed(&mut self, now_ns: u64) -> Option<(usize, bool)> {
        let is_due = |witness: &Witness| {
            now_ns >= witness.report_from_ns && self.is_reached(now_ns, *witness) != witness.reported_reached
        };
        let number = self.all.iter().position(is_due)?;
        let witness = self.all.get_mut(number)?;
        witness.reported_reached = !witness.reported_reached;
        witness.report_from_ns = now_ns + REPORT_INTERVAL_NS;
        Some((number, witness.reported_reached))
    }
}

/// Reports the witnesses that were lost or are back.
pub(super) fn report<E, O>(turn: &mut Turn<'_, E, O>) {
    let now_ns = turn.now_ns();
    while let Some((witness, reached)) = turn.core.witnesses.changed(now_ns) {
        turn.report(if reached {
            Report::WitnessBack { witness }
        } else {
            let any = turn.core.witnesses.reaches_one(now_ns);
            Report::WitnessLost { witness, any }
        });
    }
}
