//! A newcomer as the side that acts alone knows it: from the moment at which the state was saved
//! for it until it is armed, or lost. It takes nothing from the machine that runs but memory for
//! the log, and slices of time where it does not catch up by itself.

use lockstep_logging_channel::{Message, Sequence, message};

use super::follower::Follower;
use super::primary::Primary;
use super::turn::Turn;
use super::{Batch, Cause, Config, Input, Protection, Report, State, Statistics};
use crate::replica::mutant::{self, Mutant};

/// People are told so often how far it is.
pub(super) const TELL_NS: u64 = 1_000_000_000;

/// The longest that the guest waits at once for a newcomer: a client does not see it.
const SLICE_NS_MAX: u64 = 10_000_000;

/// Number of times that the guest's share of the time is halved: down to an eighth, so that any
/// newcomer catches up that replays an eighth as fast as the guest runs.
const HALVINGS_MAX: u64 = 3;

/// A newcomer has so many times the lag with which it joined. With the guest at full speed for one
/// of them, at a half, a quarter and then an eighth, one that replays at a quarter of the guest's
/// speed has gained more than ten times what it lacked.
const PATIENCES_MAX: u64 = 16;

/// A newcomer that replays.
#[derive(Debug)]
struct CatchingUp {
    from_ns: u64,
    /// For so long it has the guest at full speed, and then at each halving of it.
    patience_ns: u64,
    slice_ns: u64,
    tell_at_ns: u64,
}

impl CatchingUp {
    fn patiences(&self, now_ns: u64) -> u64 {
        (now_ns - self.from_ns) / self.patience_ns
    }

    /// Returns whether the guest waits, and when that changes.
    fn slice(&self, now_ns: u64) -> (bool, Option<u64>) {
        let halvings = self.patiences(now_ns).min(HALVINGS_MAX);
        if halvings == 0 {
            return (false, None);
        }
        // It runs first: no two slices meet where the share changes.
        let runs_ns = self.slice_ns / ((1 << halvings) - 1);
        let period_ns = runs_ns + self.slice_ns;
        let phase_ns = (now_ns - self.from_ns - halvings * self.patience_ns) % period_ns;
        let waits = phase_ns >= runs_ns;
        let until_ns = if waits { period_ns } else { runs_ns };
        (waits, Some(now_ns - phase_ns + until_ns))
    }
}

/// A side that is to become the backup.
#[derive(Debug)]
pub(super) struct Newcomer<E> {
    follower: Follower<E>,
    saved_at_ns: u64,
    /// The log has its end: there is nothing left to protect.
    ends: bool,
    /// None before its connection is the replica's.
    catching_up: Option<CatchingUp>,
    /// The first entry of its log was kept.
    kept: bool,
}

impl<E> Newcomer<E> {
    /// One that gets the state as it was after entry `after`, with so many exits made.
    pub fn new(config: &Config, after: Sequence, exits: u64, now_ns: u64) -> Self {
        let mut follower = Follower::new(config, after, now_ns);
        // More entries may come at that exit.
        follower.exits = exits.saturating_sub(1);
        Self {
            follower,
            saved_at_ns: now_ns,
            ends: false,
            catching_up: None,
            kept: false,
        }
    }

    /// Keeps entries for it.
    ///
    /// # Errors
    /// They have become too many.
    pub fn append<O>(&mut self, turn: &Turn<'_, E, O>, batch: Batch<E>) -> Result<(), Cause> {
        self.ends = batch.ends;
        if !std::mem::replace(&mut self.kept, true) && mutant::is(Mutant::LogOneBatchLate) {
            self.follower = Follower::new(&turn.core.config, batch.last, turn.now_ns());
            return Ok(());
        }
        // All of them have left, or will have when it is armed: it keeps none of them.
        let batch = Batch {
            output_bytes: 0,
            ..batch
        };
        self.follower.flow.append(turn.now_ns(), batch);
        let bytes = self.follower.flow.waiting_memory_bytes();
        if bytes > turn.core.config.kept_bytes_max {
            return Err(Cause::LogTooLong { bytes });
        }
        Ok(())
    }

    pub fn ran(&mut self, exits: u64) {
        self.follower.ran(exits);
    }

    /// True where its connection is the replica's.
    pub fn has_joined(&self) -> bool {
        self.catching_up.is_some()
    }

    /// Its machine stands, and its connection is the replica's from now on.
    pub fn join<O>(&mut self, turn: &mut Turn<'_, E, O>) {
        if self.has_joined() {
            return;
        }
        let (now_ns, config) = (turn.now_ns(), turn.core.config);
        self.follower.begin(&config, now_ns);
        self.catching_up = Some(CatchingUp {
            from_ns: now_ns,
            patience_ns: self.follower.flow.lag_ns(now_ns).max(config.lag_ns_max),
            slice_ns: (config.timeout_ns / 16).min(SLICE_NS_MAX),
            tell_at_ns: now_ns,
        });
    }

    /// Why it is given up, if time alone says so.
    pub fn gone<O>(&self, turn: &Turn<'_, E, O>) -> Option<Cause> {
        let catching_up = self.catching_up.as_ref()?;
        if let Some(cause) = self.follower.gone(turn) {
            return Some(cause);
        }
        let late = catching_up.patiences(turn.now_ns()) >= PATIENCES_MAX;
        (late && self.is_behind(turn)).then(|| Cause::TooSlow {
            lag_ns: self.follower.flow.lag_ns(turn.now_ns()),
        })
    }

    /// Takes what comes over its connection.
    ///
    /// # Errors
    /// Why it is to be parted from.
    pub fn hear<O>(&mut self, turn: &mut Turn<'_, E, O>, input: Input<E, O>) -> Result<(), Cause> {
        if self.has_joined() {
            return self.follower.hear(turn, input);
        }
        Ok(())
    }

    /// Entries wait to be sent, or what it has not replayed is older than half of what a backup may
    /// lack.
    fn is_behind<O>(&self, turn: &Turn<'_, E, O>) -> bool {
        let flow = &self.follower.flow;
        let far_behind = flow.lag_ns(turn.now_ns()) > turn.core.config.lag_ns_max / 2;
        !flow.all_sent() || far_behind && !mutant::is(Mutant::ArmFarBehind)
    }

    /// True where it may be armed: it has been sent everything, has replayed most of it, and does
    /// not act for now.
    pub fn is_ready<O>(&self, turn: &Turn<'_, E, O>) -> bool {
        let early = mutant::is(Mutant::ArmTooEarly);
        let leased = turn.now_ns() < self.follower.lease_until_ns();
        self.has_joined() && !self.ends && leased && (early || !self.is_behind(turn))
    }

    /// Arms it. The gate is closed first: whatever is said from the next entry on waits for it.
    pub fn arm<O>(self, turn: &mut Turn<'_, E, O>) -> State<E> {
        let before = self.follower.flow.appended();
        let from = before.next();
        if !mutant::is(Mutant::CloseGateLate) {
            turn.core.gate.close();
        }
        // Behind every entry before it, which are all sent.
        turn.send(Message::Armed(message::Armed { from }));
        let took_ns = turn.now_ns() - self.saved_at_ns;
        turn.report(Report::Armed { from, took_ns });
        State::Protecting(Box::new(Primary::armed(self.follower, before)))
    }

    pub fn send_entries<O>(&mut self, turn: &mut Turn<'_, E, O>) {
        if self.has_joined() {
            self.follower.send_entries(turn);
        }
    }

    /// The last words, if its connection is the replica's.
    pub fn part<O>(&mut self, turn: &mut Turn<'_, E, O>, reason: &str) {
        if self.has_joined() {
            let left = self.follower.flow.sent_through;
            self.follower.part(turn, left, reason);
        }
    }

    /// Does what is due. Gives whether the guest waits, and when to step again.
    pub fn finish<O>(&mut self, turn: &mut Turn<'_, E, O>) -> (bool, Option<u64>) {
        let behind = self.is_behind(turn);
        let statistics = self.statistics(turn.now_ns(), Statistics::default());
        let Some(catching_up) = &mut self.catching_up else {
            return (false, None);
        };
        let now_ns = turn.now_ns();
        if now_ns >= catching_up.tell_at_ns {
            catching_up.tell_at_ns = now_ns + TELL_NS;
            turn.report(Report::CatchingUp {
                behind_bytes: statistics.behind_bytes,
                lag_ns: statistics.lag_ns,
            });
        }
        if now_ns >= self.follower.link.due_at_ns {
            // Everything has left whose entry was sent: nothing waits here.
            let left = self.follower.flow.sent_through;
            self.follower.beat(turn, left);
        }
        let (waits, changes_at_ns) = if behind {
            catching_up.slice(now_ns)
        } else {
            (false, None)
        };
        let due_at_ns = self.follower.due_at_ns(&turn.core.config);
        let wake_at_ns = changes_at_ns.map_or(due_at_ns, |at_ns| at_ns.min(due_at_ns));
        (waits, Some(wake_at_ns))
    }

    pub fn statistics(&self, now_ns: u64, gate: Statistics) -> Statistics {
        let protection = if self.has_joined() {
            Protection::CatchingUp
        } else {
            Protection::Loading
        };
        Statistics {
            protection,
            ..self.follower.statistics(now_ns, gate)
        }
    }
}
