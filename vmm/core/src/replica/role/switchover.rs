//! Switchover: the backup becomes the primary in an orderly way.
//!
//! ```text
//!   primary                                              backup
//!   wanted:    the guest runs on until the backup is
//!              close behind, and the lease stands
//!   asked:     the vCPU is to stand at its next pause
//!   stands:    all that is logged is sent, and waits
//!              for its acknowledgement; outputs leave
//!   handed over ---- Handover, behind everything ---->   claims the next generation
//!              nothing leaves any more                     | won: closes the connection, and goes live
//!              the connection is closed, or silent:        | dies before: nobody has claimed
//!              claims the next generation itself
//!                lost: switched over      won: the guest goes on, alone
//! ```
//!
//! The test-and-set decides, as after a failure: exactly one goes on. Until the backup has won, the
//! primary has all that it needs to go on, and its guest stands where it stood. So does the backup,
//! from the handover on: it has every entry, and all their outputs have left.

use lockstep_logging_channel::message::{Handover, Message};

use super::claiming::{Claiming, Side};
use super::follower::Follower;
use super::primary::Primary;
use super::turn::{Turn, defect};
use super::{Action, Cause, Halt, Input, Next, Report, State};
use crate::replica::mutant::{self, Mutant};

/// A request that is not repeated for so long is forgotten: whoever asks does so every second.
const WANTED_NS: u64 = 3_000_000_000;

/// Progress of a primary that is to hand over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Handing {
    /// It waits for its backup to be close behind, until then.
    Wanted { until_ns: u64 },
    /// Its guest was asked to stand.
    Asked { since_ns: u64 },
    /// Its guest stands.
    Stands { since_ns: u64 },
}

impl<E> Primary<E> {
    /// A switchover is wanted. A guest that has ended needs none.
    pub(super) fn want_switchover<O>(&mut self, turn: &mut Turn<'_, E, O>) {
        let until_ns = turn.now_ns() + WANTED_NS;
        match &mut self.handing {
            Some(Handing::Wanted { until_ns: until }) => *until = until_ns,
            None if turn.core.ended.is_none() => {
                self.handing = Some(Handing::Wanted { until_ns });
                turn.report(Report::SwitchingOver);
            }
            _ => {}
        }
    }

    /// The guest stands after this entry.
    pub(super) fn stands(&mut self, sequence: lockstep_logging_channel::Sequence) {
        if let Some(Handing::Asked { since_ns }) = self.handing {
            assert!(
                sequence == self.backup.flow.appended(),
                "stands after {sequence:?}, and {:?} was appended",
                self.backup.flow.appended()
            );
            self.handing = Some(Handing::Stands { since_ns });
        }
    }

    /// Goes on with a switchover that is wanted.
    pub(super) fn hand_over<O>(&mut self, turn: &mut Turn<'_, E, O>) -> Next<E> {
        if turn.core.ended.is_some() {
            self.handing = None;
        }
        match self.handing? {
            Handing::Wanted { until_ns } if turn.now_ns() >= until_ns => {
                self.handing = None;
                None
            }
            Handing::Wanted { .. } if self.is_close(turn) => {
                let since_ns = turn.now_ns();
                self.handing = Some(Handing::Asked { since_ns });
                turn.act(Action::Stand(true));
                None
            }
            Handing::Stands { since_ns } if self.all_has_left(turn) => Some(self.step_down(turn, since_ns)),
            _ => None,
        }
    }

    /// True where the backup is so close behind that clients would not notice how it catches up. It
    /// reports on its replay at least every eighth of the timeout.
    fn is_close<O>(&self, turn: &Turn<'_, E, O>) -> bool {
        let lag_ns_max = turn.core.config.timeout_ns / 4;
        let flow = &self.backup.flow;
        let leased = turn.now_ns() < self.backup.lease_until_ns();
        leased && flow.all_sent() && flow.lag_ns(turn.now_ns()) <= lag_ns_max
    }

    /// True where everything logged is acknowledged, and every output has left.
    fn all_has_left<O>(&self, turn: &Turn<'_, E, O>) -> bool {
        let acknowledged = self.released >= self.backup.flow.appended() && turn.core.gate.held() == 0;
        acknowledged || mutant::is(Mutant::HandOverUnacknowledged)
    }

    fn step_down<O>(&mut self, turn: &mut Turn<'_, E, O>, since_ns: u64) -> State<E> {
        let after = self.backup.flow.appended();
        turn.send(Message::Handover(Handover { after }));
        let stood_ns = turn.now_ns() - since_ns;
        turn.report(Report::HandedOver { after, stood_ns });
        let (config, now_ns) = (turn.core.config, turn.now_ns());
        let backup = std::mem::replace(&mut self.backup, Follower::new(&config, after, now_ns));
        State::HandedOver(Box::new(HandedOver { backup }))
    }

    /// The guest need not stand any more: there is nobody to hand over to.
    pub(super) fn keep<O>(&mut self, turn: &mut Turn<'_, E, O>) {
        if let Some(Handing::Asked { .. } | Handing::Stands { .. }) = self.handing.take() {
            turn.act(Action::Stand(false));
        }
    }
}

/// A primary that has handed over: it never acts again in its generation, and watches whether its
/// backup goes on.
#[derive(Debug)]
pub(super) struct HandedOver<E> {
    backup: Follower<E>,
}

impl<E> HandedOver<E> {
    pub fn look_at_the_time<O>(&mut self, turn: &mut Turn<'_, E, O>) -> Next<E> {
        let cause = self.backup.gone(turn)?;
        claim(turn, cause)
    }

    pub fn take<O>(&mut self, turn: &mut Turn<'_, E, O>, input: Input<E, O>) -> Next<E> {
        match input {
            Input::Received(_) | Input::ReceivedEntries(_) | Input::PeerClosed(_) => {
                let cause = self.backup.hear(turn, input).err()?;
                claim(turn, cause)
            }
            // The guest stands: its thread can only have been told to end.
            Input::Appended { outputs, .. } => {
                turn.hold(outputs);
                None
            }
            Input::GuestEnded { reason } => {
                turn.core.ended = Some(reason);
                None
            }
            Input::StopRequested => turn.halt(Halt::Stopped),
            Input::Replayed { .. } | Input::LiveAt { .. } => defect("a replay on a primary"),
            _ => None,
        }
    }

    /// Time from which the backup counts as silent.
    pub fn finish<O>(&self, turn: &Turn<'_, E, O>) -> (bool, Option<u64>) {
        (false, Some(self.backup.silent_at_ns(&turn.core.config)))
    }
}

/// The backup is heard no more: it has won and goes on, or it is gone. The store knows.
fn claim<E, O>(turn: &mut Turn<'_, E, O>, cause: Cause) -> Next<E> {
    if mutant::is(Mutant::HandOverForEver) {
        return None;
    }
    // It closes when it has won.
    if cause != Cause::Closed {
        turn.report(Report::Noticed { cause });
    }
    turn.act(Action::Disconnect);
    Claiming::begin_in_switchover(turn, Side::Primary)
}
