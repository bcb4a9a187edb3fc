//! Following: entries are stored, acknowledged and replayed; what the replay says is kept until the
//! primary has said it.

use std::collections::VecDeque;

use lockstep_logging_channel::Sequence;
use lockstep_logging_channel::message::{
    Acknowledge, Armed, Diverged, Goodbye, Handover, Heartbeat, Message,
};

use super::claiming::{Claiming, Side};
use super::going_live::Stored;
use super::kept::Kept;
use super::link::Link;
use super::newcomer::TELL_NS;
use super::turn::{Turn, defect};
use super::{
    Action, Batch, Cause, Closed, Config, Halt, Input, Next, Protection, Report, Statistics, finishing,
};
use crate::replica::mutant::{self, Mutant};

/// Windows of entries that may be here unreplayed. The primary keeps to one; batches may be cut
/// differently on this side, so that one already counted as replayed there counts in full here.
const WINDOWS_MAX: u64 = 2;

/// The replay is acknowledged in parts of this fraction of the window, so that the window never
/// closes for want of an acknowledgement.
const REPLAY_PARTS: u64 = 8;

/// Entries received and not replayed.
#[derive(Debug)]
struct Unreplayed {
    last: Sequence,
    bytes: u64,
    received_at_ns: u64,
}

/// Standing of this side, which decides whether it may claim.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    /// It has been the backup from the start.
    Backup,
    /// It has loaded the state of a machine that runs, and may not claim.
    Newcomer,
    /// It was told that it is the backup from now on.
    Armed,
}

/// A backup with a primary.
#[derive(Debug)]
pub(super) struct Backup {
    standing: Standing,
    link: Link,
    stored: Stored,
    unreplayed: VecDeque<Unreplayed>,
    unreplayed_bytes: u64,
    /// Outputs that are not known to have left, also of entries that are not replayed.
    kept: Kept,
    /// Bytes replayed since the primary was last told.
    untold_bytes: u64,
    /// Outputs up to here have left the primary.
    left: Sequence,
    /// Exits the replay was told that it may run to, and has run to.
    advanced_to: u64,
    exits: u64,
    /// Silence so far, counted in steps.
    silent_ns: u64,
    stepped_at_ns: u64,
    started_at_ns: u64,
    /// When people are told next how far a newcomer is.
    tell_at_ns: u64,
    /// The connection broke on this side.
    broken: bool,
}

impl Backup {
    pub fn new(config: &Config, now_ns: u64) -> Self {
        Self::of(Standing::Backup, config, now_ns)
    }

    /// One that has loaded the state of a machine that runs.
    pub fn newcomer(config: &Config, now_ns: u64) -> Self {
        Self::of(Standing::Newcomer, config, now_ns)
    }

    fn of(standing: Standing, config: &Config, now_ns: u64) -> Self {
        Self {
            standing,
            link: Link::new(config, now_ns),
            stored: Stored {
                received: config.common,
                ends: false,
                replayed: config.common,
            },
            unreplayed: VecDeque::new(),
            unreplayed_bytes: 0,
            kept: Kept::default(),
            untold_bytes: 0,
            left: config.common,
            advanced_to: 0,
            exits: 0,
            silent_ns: 0,
            stepped_at_ns: now_ns,
            started_at_ns: now_ns,
            tell_at_ns: now_ns,
            broken: false,
        }
    }

    /// Between two steps only so much silence counts: a clock that jumps ahead must not make this
    /// backup act while the primary still may.
    pub fn look_at_the_time<E, O>(&mut self, turn: &mut Turn<'_, E, O>) -> Next<E> {
        let config = &turn.core.config;
        let elapsed_ns = turn.now_ns() - self.stepped_at_ns;
        self.stepped_at_ns = turn.now_ns();
        let jumps = mutant::is(Mutant::CountJumpsAsSilence);
        self.silent_ns += elapsed_ns.min(if jumps { u64::MAX } else { config.credit_ns_max() });
        let impatient = mutant::is(Mutant::ImpatientBackup) && self.silent_ns > config.timeout_ns / 7;
        if self.silent_ns < config.timeout_ns && !impatient {
            return None;
        }
        let silent_ns = self.silent_ns;
        self.part(turn, (!self.broken).then_some(Cause::Silence { silent_ns }))
    }

    pub fn take<E, O>(&mut self, turn: &mut Turn<'_, E, O>, input: Input<E, O>) -> Next<E> {
        match input {
            Input::Wake
            | Input::Claimed { .. }
            | Input::Witnessed { .. }
            | Input::SwitchOver
            | Input::LaterGeneration { .. } => None,
            Input::ReceivedEntries(_) | Input::Received(_) if self.broken => None,
            Input::ReceivedEntries(batch) => self.store(turn, batch),
            Input::Received(message) => self.receive(turn, message),
            Input::PeerClosed(Closed::ByPeer) => self.part(turn, Some(Cause::Closed)),
            Input::PeerClosed(Closed::Here { why }) => self.cut(turn, Cause::Broken { why }),
            Input::Replayed {
                sequence,
                exits,
                outputs,
            } => {
                if self.is_newcomer() {
                    // All of them have left: the entries of those that wait come behind the word
                    // that arms this side.
                    turn.core.gate.forget(sequence);
                }
                turn.hold(outputs);
                self.replay(turn, sequence, exits)
            }
            Input::GuestEnded { reason } => {
                turn.core.ended = Some(reason);
                None
            }
            Input::StopRequested => {
                if !self.broken {
                    turn.send(Message::Goodbye(Goodbye {
                        reason: "asked to stop".to_owned(),
                    }));
                }
                turn.halt(Halt::Stopped)
            }
            Input::Diverged {
                sequence,
                part,
                again,
            } => {
                if mutant::is(Mutant::ClaimDiverged) {
                    return Claiming::begin(turn, Side::Backup(self.stored));
                }
                let again = again && !self.stored.ends;
                if !self.broken {
                    turn.send(Message::Diverged(Diverged {
                        sequence,
                        part,
                        again,
                    }));
                }
                turn.halt(Halt::Diverged { again })
            }
            Input::Appended { .. } | Input::Ran { .. } | Input::Stands { .. } | Input::LiveAt { .. } => {
                defect("a live guest on a backup")
            }
            Input::SavedAt { .. } | Input::Joined | Input::NewcomerLost { .. } => {
                defect("a newcomer of a backup")
            }
        }
    }

    /// Entries are acknowledged once they are handed over, not before.
    fn store<E, O>(&mut self, turn: &mut Turn<'_, E, O>, batch: Batch<E>) -> Next<E> {
        self.silent_ns = 0;
        let fits = batch.first == self.stored.received.next() && batch.last >= batch.first;
        if !fits || self.stored.ends {
            return self.cut(
                turn,
                Cause::Violation {
                    why: "entries out of order".to_owned(),
                },
            );
        }
        let room = WINDOWS_MAX * turn.core.config.window_bytes_max;
        if self.unreplayed_bytes > 0 && self.unreplayed_bytes + batch.bytes > room {
            return self.cut(
                turn,
                Cause::Violation {
                    why: "more entries than the window".to_owned(),
                },
            );
        }
        // A newcomer keeps none of them: they have left.
        let output_bytes = if self.is_newcomer() { 0 } else { batch.output_bytes };
        if self.kept.is_too_much(output_bytes, &turn.core.config) {
            let why = "more output than a backup keeps".to_owned();
            return self.cut(turn, Cause::Violation { why });
        }
        self.kept.add(batch.last, output_bytes);
        self.stored.received = batch.last;
        self.stored.ends = batch.ends;
        self.unreplayed_bytes += batch.bytes;
        let (last, bytes, received_at_ns) = (batch.last, batch.bytes, turn.now_ns());
        self.unreplayed.push_back(Unreplayed {
            last,
            bytes,
            received_at_ns,
        });
        turn.act(Action::Deliver(batch));
        self.acknowledge(turn);
        None
    }

    fn acknowledge<E, O>(&mut self, turn: &mut Turn<'_, E, O>) {
        let Stored {
            received, replayed, ..
        } = self.stored;
        self.untold_bytes = 0;
        let unread = u64::from(mutant::is(Mutant::AcknowledgeUnread));
        let received = Sequence(received.0 + unread);
        turn.send(Message::Acknowledge(Acknowledge { received, replayed }));
    }

    fn receive<E, O>(&mut self, turn: &mut Turn<'_, E, O>, message: Message) -> Next<E> {
        self.silent_ns = 0;
        let why = match message {
            Message::Heartbeat(heartbeat) => return self.heartbeat(turn, heartbeat),
            Message::Goodbye(Goodbye { reason }) => return self.part(turn, Some(Cause::Left { reason })),
            Message::Armed(armed) => return self.arm(turn, armed),
            Message::Handover(handover) => return self.take_over(turn, handover),
            Message::Acknowledge(_) | Message::Loaded | Message::Diverged(_) => "what only a backup says",
            Message::Hello(_)
            | Message::Welcome(_)
            | Message::Refused(_)
            | Message::Probe(_)
            | Message::Measured(_)
            | Message::Beginning(_) => "a second handshake",
            Message::Piece(_) => "a state that is loaded already",
        };
        self.cut(turn, Cause::Violation { why: why.to_owned() })
    }

    /// From now on this side is the backup. It has every entry before the first whose outputs wait
    /// for it.
    fn arm<E, O>(&mut self, turn: &mut Turn<'_, E, O>, armed: Armed) -> Next<E> {
        let Armed { from } = armed;
        let why = match self.standing {
            Standing::Newcomer if from == self.stored.received.next() => None,
            Standing::Newcomer => Some("armed behind other entries than it says"),
            Standing::Backup => Some("armed, and was the backup from the start"),
            Standing::Armed => Some("armed once more"),
        };
        if let Some(why) = why {
            return self.cut(turn, Cause::Violation { why: why.to_owned() });
        }
        self.standing = Standing::Armed;
        self.left = self.stored.received;
        turn.core.gate.forget(self.left);
        let took_ns = turn.now_ns() - self.started_at_ns;
        turn.report(Report::Armed { from, took_ns });
        None
    }

    /// The primary has stopped its guest after the newest entry, whose output and all before it have
    /// left, and goes on only where this side does not.
    fn take_over<E, O>(&mut self, turn: &mut Turn<'_, E, O>, handover: Handover) -> Next<E> {
        let Handover { after } = handover;
        let why = if self.is_newcomer() {
            Some("handed over to a newcomer that is not armed")
        } else if after != self.stored.received || self.stored.ends {
            Some("handed over behind other entries than it says")
        } else {
            None
        };
        if let Some(why) = why {
            return self.cut(turn, Cause::Violation { why: why.to_owned() });
        }
        self.left = after;
        turn.core.gate.forget(after);
        turn.report(Report::TakingOver { after });
        Claiming::begin_in_switchover(turn, Side::Backup(self.stored))
    }

    /// True where it is a newcomer that has not been armed.
    pub fn is_newcomer(&self) -> bool {
        self.standing == Standing::Newcomer
    }

    /// The echo goes back at once: the primary's lease is as old as its round trip.
    fn heartbeat<E, O>(&mut self, turn: &mut Turn<'_, E, O>, heartbeat: Heartbeat) -> Next<E> {
        if heartbeat.released > self.stored.received {
            let why = "an output left before its entry came".to_owned();
            return self.cut(turn, Cause::Violation { why });
        }
        self.link.peer_sent_at_ns = heartbeat.sent_at_ns;
        self.left = self.left.max(heartbeat.released);
        if mutant::is(Mutant::ForgetUnreleased) {
            self.left = self.stored.received;
        }
        turn.core.gate.forget(self.left);
        self.kept.left(self.left);
        if heartbeat.exits > self.advanced_to {
            self.advanced_to = heartbeat.exits;
            turn.act(Action::Advance {
                exits: heartbeat.exits,
            });
        }
        self.beat(turn);
        None
    }

    fn beat<E, O>(&mut self, turn: &mut Turn<'_, E, O>) {
        if self.untold_bytes > 0 {
            self.acknowledge(turn);
        }
        turn.send(self.link.heartbeat(turn.now_ns(), self.exits, Sequence(0)));
    }

    fn replay<E, O>(&mut self, turn: &mut Turn<'_, E, O>, sequence: Sequence, exits: u64) -> Next<E> {
        self.stored.replay(sequence);
        self.exits = exits;
        while let Some(done) = self.unreplayed.pop_front_if(|batch| batch.last <= sequence) {
            self.unreplayed_bytes -= done.bytes;
            self.untold_bytes += done.bytes;
        }
        if self.untold_bytes > turn.core.config.window_bytes_max / REPLAY_PARTS && !self.broken {
            self.acknowledge(turn);
        }
        None
    }

    /// Parts from a primary that may still be speaking: its lease is waited out.
    fn cut<E, O>(&mut self, turn: &mut Turn<'_, E, O>, cause: Cause) -> Next<E> {
        if self.is_newcomer() {
            return self.part(turn, Some(cause));
        }
        if !self.broken {
            self.broken = true;
            turn.report(Report::Noticed { cause });
            turn.act(Action::Disconnect);
            turn.report(Report::WaitingOutLease);
        }
        if mutant::is(Mutant::DoNotWaitOutLease) {
            return self.part(turn, None);
        }
        None
    }

    /// The primary no longer speaks. Where there is nothing left to say either, nobody has to be
    /// asked; and a newcomer asks nobody.
    fn part<E, O>(&mut self, turn: &mut Turn<'_, E, O>, cause: Option<Cause>) -> Next<E> {
        if let Some(cause) = cause {
            turn.report(Report::Noticed { cause });
            turn.act(Action::Disconnect);
        }
        if self.stored.ends && (self.left >= self.stored.received || mutant::is(Mutant::EndIsEnough)) {
            return finishing::begin(turn);
        }
        if self.is_newcomer() && !mutant::is(Mutant::ClaimUnarmed) {
            return turn.halt(Halt::NotArmed);
        }
        Claiming::begin(turn, Side::Backup(self.stored))
    }

    pub fn finish<E, O>(&mut self, turn: &mut Turn<'_, E, O>) -> (bool, Option<u64>) {
        let config = turn.core.config;
        let (now_ns, heartbeat_ns) = (turn.now_ns(), config.heartbeat_ns());
        let silent_at_ns = now_ns + (config.timeout_ns - self.silent_ns);
        if self.broken {
            return (false, Some(silent_at_ns.min(now_ns + heartbeat_ns)));
        }
        if now_ns >= self.link.due_at_ns {
            self.beat(turn);
        }
        if self.is_newcomer() && now_ns >= self.tell_at_ns {
            self.tell_at_ns = now_ns + TELL_NS;
            let Statistics {
                behind_bytes, lag_ns, ..
            } = self.statistics(now_ns, Statistics::default());
            turn.report(Report::CatchingUp { behind_bytes, lag_ns });
        }
        (false, Some(silent_at_ns.min(self.link.due_at_ns)))
    }

    pub fn statistics(&self, now_ns: u64, gate: Statistics) -> Statistics {
        let oldest_ns = self
            .unreplayed
            .front()
            .map_or(now_ns, |batch| batch.received_at_ns);
        Statistics {
            protection: if self.is_newcomer() {
                Protection::CatchingUp
            } else {
                Protection::Protected
            },
            behind_bytes: self.unreplayed_bytes,
            lag_ns: now_ns - oldest_ns,
            ..gate
        }
    }
}
