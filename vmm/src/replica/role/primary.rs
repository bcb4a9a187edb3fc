//! Protecting: the guest is live here, and every output waits until the backup has the log that explains it.

use lockstep_logging_channel::Sequence;
use lockstep_logging_channel::message::{Acknowledge, Goodbye, Heartbeat, Message};

use super::claiming::{Claiming, Side};
use super::flow::Flow;
use super::link::Link;
use super::round_trip::{Renewals, RoundTrips};
use super::turn::{Turn, defect};
use super::{Action, Batch, Cause, Closed, Config, Halt, HeldBy, Input, Next, Output, Report, Statistics};
use crate::replica::mutant::{self, Mutant};

/// A primary with a backup.
#[derive(Debug)]
pub(super) struct Primary<E> {
    link: Link,
    flow: Flow<E>,
    /// When the backup was heard last.
    heard_at_ns: u64,
    /// Until when it is certain that the backup does not act.
    lease_until_ns: u64,
    /// Until when it was so for the last time that an echo came in time.
    leased_until_ns: u64,
    /// The newest heartbeat that was echoed; before the first, the start.
    echoed_ns: u64,
    /// The backup has everything up to here.
    acknowledged: Sequence,
    /// Every output up to here has left.
    released: Sequence,
    /// Bytes released since the backup was last told.
    untold_bytes: usize,
    /// The backup may run to this exit: every entry before it was sent.
    exits: u64,
    round_trips: RoundTrips,
    renewals: Renewals,
}

impl<E> Primary<E> {
    pub fn new(config: &Config, now_ns: u64) -> Self {
        Self {
            link: Link::new(config, now_ns),
            flow: Flow::new(config, now_ns),
            heard_at_ns: now_ns,
            lease_until_ns: now_ns,
            leased_until_ns: now_ns,
            echoed_ns: now_ns,
            acknowledged: config.common,
            released: config.common,
            untold_bytes: 0,
            exits: 0,
            round_trips: RoundTrips::new(),
            renewals: Renewals::default(),
        }
    }

    pub fn look_at_the_time<O>(&mut self, turn: &mut Turn<'_, E, O>) -> Next<E> {
        let silent_ns = turn.now_ns() - self.heard_at_ns;
        if silent_ns >= turn.core.config.primary_timeout_ns() {
            return part(turn, Cause::Silence { silent_ns });
        }
        let unleased_ns = turn.now_ns().saturating_sub(self.leased_until_ns);
        if unleased_ns < turn.core.config.unleased_ns_max() || mutant::is(Mutant::WaitForTheLease) {
            return None;
        }
        let round_trip_ns = self.round_trip_ns(turn);
        let cause = Cause::TooFar {
            unleased_ns,
            round_trip_ns,
            timeout_ns_min: Config::timeout_ns_for(round_trip_ns),
        };
        part(turn, cause)
    }

    /// How long a heartbeat and its echo take, at least: the newest took so long, or the next has been under way for so
    /// long.
    fn round_trip_ns<O>(&self, turn: &Turn<'_, E, O>) -> u64 {
        let next_sent_ns = self.echoed_ns + turn.core.config.heartbeat_ns();
        let under_way_ns = turn.now_ns().saturating_sub(next_sent_ns);
        self.round_trips.newest_ns().max(under_way_ns)
    }

    pub fn take<O>(&mut self, turn: &mut Turn<'_, E, O>, input: Input<E, O>) -> Next<E> {
        let next = match input {
            Input::Wake | Input::Claimed { .. } | Input::Witnessed { .. } => None,
            Input::Appended { batch, outputs } => self.append(turn, batch, outputs),
            Input::Ran { exits } => self.ran(exits),
            Input::Received(message) => self.receive(turn, message),
            Input::ReceivedEntries(_) => violation(turn, "entries from a backup"),
            Input::PeerClosed(Closed::ByPeer) => part(turn, Cause::Closed),
            Input::PeerClosed(Closed::Here { why }) => part(turn, Cause::Broken { why }),
            Input::GuestEnded { reason } => {
                turn.core.ended = Some(reason);
                None
            }
            Input::StopRequested => return self.leave(turn, "asked to stop", Halt::Stopped),
            Input::Replayed { .. } | Input::LiveAt { .. } => defect("a replay on a primary"),
        };
        if next.is_some() {
            return next;
        }
        self.send_entries(turn);
        self.release(turn);
        self.leave_if_over(turn)
    }

    fn append<O>(&mut self, turn: &mut Turn<'_, E, O>, batch: Batch<E>, outputs: Vec<Output<O>>) -> Next<E> {
        turn.hold(outputs);
        self.flow.append(turn.now_ns(), batch);
        None
    }

    fn ran(&mut self, exits: u64) -> Next<E> {
        if self.flow.all_sent() {
            self.exits = self.exits.max(exits);
        }
        None
    }

    fn receive<O>(&mut self, turn: &mut Turn<'_, E, O>, message: Message) -> Next<E> {
        self.heard_at_ns = turn.now_ns();
        match message {
            Message::Acknowledge(acknowledge) => self.acknowledge(turn, acknowledge),
            Message::Heartbeat(heartbeat) => self.extend_lease(turn, heartbeat),
            Message::Goodbye(Goodbye { reason }) => part(turn, Cause::Left { reason }),
            Message::Hello(_)
            | Message::Welcome(_)
            | Message::Refused(_)
            | Message::Probe(_)
            | Message::Measured(_)
            | Message::Beginning(_)
            | Message::Piece(_)
            | Message::Loaded
            | Message::Armed(_) => violation(turn, "a second handshake"),
        }
    }

    fn acknowledge<O>(&mut self, turn: &mut Turn<'_, E, O>, acknowledge: Acknowledge) -> Next<E> {
        let Acknowledge { received, replayed } = acknowledge;
        if received > self.flow.sent_through || received < self.acknowledged || replayed > received {
            return violation(turn, "an acknowledgement that cannot be");
        }
        self.acknowledged = received;
        self.flow.acknowledged(turn.now_ns(), received);
        self.flow.replayed(replayed);
        None
    }

    /// The backup has this side's heartbeat of `echo_ns`, so it was not silent for it then or later: it will
    /// not act before its timeout after that.
    fn extend_lease<O>(&mut self, turn: &mut Turn<'_, E, O>, heartbeat: Heartbeat) -> Next<E> {
        let Heartbeat {
            sent_at_ns, echo_ns, ..
        } = heartbeat;
        if echo_ns > self.link.sent_at_ns {
            return violation(turn, "an echo of what was not said");
        }
        self.link.peer_sent_at_ns = sent_at_ns;
        if echo_ns > 0 {
            let from_ns = if mutant::is(Mutant::LeaseFromHearing) {
                turn.now_ns()
            } else {
                echo_ns
            };
            let (lease_ns, before_ns) = (turn.core.config.lease_ns(), self.lease_until_ns);
            self.lease_until_ns = before_ns.max(from_ns + lease_ns);
            if self.lease_until_ns > before_ns {
                self.renewals.take(turn.now_ns(), before_ns, lease_ns);
            }
            if turn.now_ns() < self.lease_until_ns {
                self.leased_until_ns = self.lease_until_ns;
            }
        }
        // The backup's own heartbeats repeat the echo, and say nothing new of the round trip.
        if echo_ns > self.echoed_ns {
            self.echoed_ns = echo_ns;
            let (now_ns, config) = (turn.now_ns(), turn.core.config);
            self.flow.round_trip(now_ns - echo_ns);
            let told = self.round_trips.take(now_ns, now_ns - echo_ns, &config);
            told.into_iter().for_each(|report| turn.report(report));
        }
        None
    }

    fn send_entries<O>(&mut self, turn: &mut Turn<'_, E, O>) {
        while let Some(batch) = self.flow.next(turn.now_ns()) {
            // More entries may come at the exit of the last one.
            let certain = u64::from(!mutant::is(Mutant::AdvanceTooFar));
            self.exits = self.exits.max(batch.exits.saturating_sub(certain));
            turn.act(Action::SendEntries(batch));
        }
    }

    fn release<O>(&mut self, turn: &mut Turn<'_, E, O>) {
        if mutant::is(Mutant::IgnoreLease) {
            self.lease_until_ns = u64::MAX;
        }
        if turn.now_ns() < self.lease_until_ns {
            self.untold_bytes += turn.release(self.acknowledged, self.lease_until_ns);
            self.released = self.acknowledged;
        }
    }

    fn leave_if_over<O>(&mut self, turn: &mut Turn<'_, E, O>) -> Next<E> {
        if self.released < self.flow.appended() && !mutant::is(Mutant::LeaveBeforeTheEnd) {
            return None;
        }
        let reason = turn.core.ended.clone()?;
        self.leave(turn, "the guest has ended", Halt::Ended { reason })
    }

    /// The last heartbeat says which outputs have left: the backup knows what is left to say.
    fn leave<O>(&mut self, turn: &mut Turn<'_, E, O>, reason: &str, halt: Halt) -> Next<E> {
        turn.send(self.link.heartbeat(turn.now_ns(), self.exits, self.released));
        turn.send(Message::Goodbye(Goodbye {
            reason: reason.to_owned(),
        }));
        turn.halt(halt)
    }

    pub fn finish<O>(&mut self, turn: &mut Turn<'_, E, O>) -> (bool, Option<u64>) {
        let config = turn.core.config;
        // A backup holds outputs until it is told that they have left: it is told before they are many.
        let much_to_tell = self.untold_bytes > config.held_bytes_max / 4;
        if much_to_tell || turn.now_ns() >= self.link.due_at_ns {
            turn.send(self.link.heartbeat(turn.now_ns(), self.exits, self.released));
            self.untold_bytes = 0;
        }
        let throttle = !self.flow.all_sent()
            || self.flow.lag_ns(turn.now_ns()) > config.lag_ns_max
            || turn.core.gate.held_bytes() > config.held_bytes_max;
        let silent_at_ns = self.heard_at_ns + config.primary_timeout_ns();
        (throttle, Some(silent_at_ns.min(self.link.due_at_ns)))
    }

    pub fn lease_until_ns(&self) -> u64 {
        self.lease_until_ns
    }

    /// What the oldest output waits for, if one does; else what the guest waits for, if it does.
    pub fn held_by<O>(&self, turn: &Turn<'_, E, O>) -> HeldBy {
        let window = HeldBy::Window {
            bytes: self.flow.behind_bytes(),
        };
        let lag_ns = self.flow.lag_ns(turn.now_ns());
        match turn.core.gate.oldest() {
            Some((sequence, _)) if sequence <= self.acknowledged => {
                let round_trip_ns = self.round_trip_ns(turn);
                HeldBy::RoundTrip {
                    round_trip_ns,
                    timeout_ns_min: Config::timeout_ns_for(round_trip_ns),
                }
            }
            Some((sequence, _)) if sequence > self.flow.sent_through && self.flow.window_is_full() => window,
            None if self.flow.window_is_full() => window,
            None if lag_ns > turn.core.config.lag_ns_max => HeldBy::Lag { lag_ns },
            _ => HeldBy::Acknowledgement {
                bytes: self.flow.unacknowledged_bytes(),
            },
        }
    }

    pub fn statistics(&self, now_ns: u64, gate: Statistics) -> Statistics {
        Statistics {
            behind_bytes: self.flow.behind_bytes(),
            lag_ns: self.flow.lag_ns(now_ns),
            round_trip_ns: self.round_trips.newest_ns(),
            lease: self.renewals.lease,
            ..gate
        }
    }
}

/// The backup is gone, or as good as gone: nothing leaves until the store has decided.
fn part<E, O>(turn: &mut Turn<'_, E, O>, cause: Cause) -> Next<E> {
    turn.report(Report::Noticed { cause });
    turn.act(Action::Disconnect);
    Claiming::begin(turn, Side::Primary)
}

fn violation<E, O>(turn: &mut Turn<'_, E, O>, why: &str) -> Next<E> {
    part(turn, Cause::Violation { why: why.to_owned() })
}
