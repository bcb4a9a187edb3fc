//! Protecting: the guest is live here, and every output waits until the backup has the log that
//! explains it.

use lockstep_logging_channel::Sequence;

use super::claiming::{Claiming, Side};
use super::follower::Follower;
use super::switchover::Handing;
use super::turn::{Turn, defect};
use super::{Action, Cause, Config, Halt, HeldBy, Input, Next, Protection, Report, Statistics};
use crate::replica::mutant::{self, Mutant};

/// A primary with a backup.
#[derive(Debug)]
pub(super) struct Primary<E> {
    pub backup: Follower<E>,
    /// Every output up to here has left.
    pub released: Sequence,
    /// Bytes released since the backup was last told.
    untold_bytes: usize,
    /// A switchover that is wanted.
    pub handing: Option<Handing>,
}

impl<E> Primary<E> {
    pub fn new(config: &Config, now_ns: u64) -> Self {
        Self {
            backup: Follower::new(config, config.common, now_ns),
            released: config.common,
            untold_bytes: 0,
            handing: None,
        }
    }

    /// One whose backup was a newcomer until now. Every output up to entry `released` has left.
    pub fn armed(backup: Follower<E>, released: Sequence) -> Self {
        Self {
            backup,
            released,
            untold_bytes: 0,
            handing: None,
        }
    }

    pub fn look_at_the_time<O>(&mut self, turn: &mut Turn<'_, E, O>) -> Next<E> {
        let cause = self.backup.gone(turn)?;
        self.part(turn, cause)
    }

    pub fn take<O>(&mut self, turn: &mut Turn<'_, E, O>, input: Input<E, O>) -> Next<E> {
        match input {
            Input::Wake
            | Input::Claimed { .. }
            | Input::Witnessed { .. }
            | Input::SavedAt { .. }
            | Input::Joined
            | Input::NewcomerLost { .. }
            | Input::LaterGeneration { .. } => {}
            Input::Appended { batch, outputs } => {
                turn.hold(outputs);
                self.backup.flow.append(turn.now_ns(), batch);
            }
            Input::Ran { exits } => self.backup.ran(exits),
            Input::Received(_) | Input::ReceivedEntries(_) | Input::PeerClosed(_) => {
                if mutant::is(Mutant::CloseGateLate) && matches!(input, Input::Received(_)) {
                    turn.core.gate.close();
                }
                if let Err(cause) = self.backup.hear(turn, input) {
                    return self.part(turn, cause);
                }
            }
            Input::GuestEnded { reason } => turn.core.ended = Some(reason),
            Input::SwitchOver => self.want_switchover(turn),
            Input::Stands { sequence } => self.stands(sequence),
            Input::StopRequested => return self.leave(turn, "asked to stop", Halt::Stopped),
            Input::Replayed { .. } | Input::LiveAt { .. } | Input::Diverged { .. } => {
                defect("a replay on a primary")
            }
        }
        self.backup.send_entries(turn);
        self.release(turn);
        let over = self.leave_if_over(turn);
        over.or_else(|| self.hand_over(turn))
    }

    fn release<O>(&mut self, turn: &mut Turn<'_, E, O>) {
        let (acknowledged, lease_until_ns) = (self.backup.acknowledged, self.backup.lease_until_ns());
        if turn.now_ns() < lease_until_ns {
            self.untold_bytes += turn.release(acknowledged, lease_until_ns);
            self.released = self.released.max(acknowledged);
        }
    }

    fn leave_if_over<O>(&mut self, turn: &mut Turn<'_, E, O>) -> Next<E> {
        if self.released < self.backup.flow.appended() && !mutant::is(Mutant::LeaveBeforeTheEnd) {
            return None;
        }
        let reason = turn.core.ended.clone()?;
        self.leave(turn, "the guest has ended", Halt::Ended { reason })
    }

    fn leave<O>(&mut self, turn: &mut Turn<'_, E, O>, reason: &str, halt: Halt) -> Next<E> {
        self.backup.part(turn, self.released, reason);
        turn.halt(halt)
    }

    pub fn finish<O>(&mut self, turn: &mut Turn<'_, E, O>) -> (bool, Option<u64>) {
        let config = turn.core.config;
        // A backup holds outputs until it is told that they have left: it is told before they are
        // many.
        let much_to_tell = self.untold_bytes > config.held_bytes_max / 4;
        let is_to_tell = self.backup.flow.is_to_tell(self.released);
        if much_to_tell || is_to_tell || turn.now_ns() >= self.backup.link.due_at_ns {
            self.backup.beat(turn, self.released);
            self.untold_bytes = 0;
            self.backup.send_entries(turn);
        }
        let flow = &self.backup.flow;
        let throttle = !flow.all_sent()
            || flow.lag_ns(turn.now_ns()) > config.lag_ns_max
            || turn.core.gate.held_bytes() > config.held_bytes_max;
        (throttle, Some(self.backup.due_at_ns(&config)))
    }

    /// The backup is gone, or as good as gone: nothing leaves until the store has decided.
    fn part<O>(&mut self, turn: &mut Turn<'_, E, O>, cause: Cause) -> Next<E> {
        turn.report(Report::Noticed { cause });
        turn.act(Action::Disconnect);
        self.keep(turn);
        Claiming::begin(turn, Side::Primary)
    }

    pub fn lease_until_ns(&self) -> u64 {
        self.backup.lease_until_ns()
    }

    /// Reason why the oldest output waits, if one does; else the reason why the guest waits, if it
    /// does.
    pub fn held_by<O>(&self, turn: &Turn<'_, E, O>) -> HeldBy {
        let flow = &self.backup.flow;
        let window = HeldBy::Window {
            bytes: flow.behind_bytes(),
        };
        let lag_ns = flow.lag_ns(turn.now_ns());
        match turn.core.gate.oldest() {
            Some((sequence, _)) if sequence <= self.backup.acknowledged => {
                let round_trip_ns = self.backup.round_trip_ns(turn);
                HeldBy::RoundTrip {
                    round_trip_ns,
                    timeout_ns_min: Config::timeout_ns_for(round_trip_ns),
                }
            }
            Some((sequence, _)) if sequence > flow.sent_through && flow.window_is_full() => window,
            None if flow.window_is_full() => window,
            None if lag_ns > turn.core.config.lag_ns_max => HeldBy::Lag { lag_ns },
            _ => HeldBy::Acknowledgement {
                bytes: flow.unacknowledged_bytes(),
            },
        }
    }

    pub fn statistics(&self, now_ns: u64, gate: Statistics) -> Statistics {
        Statistics {
            protection: Protection::Protected,
            ..self.backup.statistics(now_ns, gate)
        }
    }
}
