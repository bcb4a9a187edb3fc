//! The replaying side as the live one knows it: what it was sent, what it has, and for how long it
//! is certain that it does not act.

use lockstep_logging_channel::Sequence;
use lockstep_logging_channel::message::{Acknowledge, Diverged, Goodbye, Heartbeat, Message};

use super::flow::Flow;
use super::link::Link;
use super::round_trip::{Renewals, RoundTrips};
use super::turn::Turn;
use super::{Action, Cause, Closed, Config, Input, Statistics};
use crate::replica::mutant::{self, Mutant};

/// A side that replays what is live here.
#[derive(Debug)]
pub(super) struct Follower<E> {
    pub link: Link,
    pub flow: Flow<E>,
    /// When it was heard last.
    heard_at_ns: u64,
    /// Until when it is certain that it does not act.
    lease_until_ns: u64,
    /// Until when it was so for the last time that an echo came in time.
    leased_until_ns: u64,
    /// The newest heartbeat that was echoed; before the first, the start.
    echoed_ns: u64,
    /// It has everything up to here.
    pub acknowledged: Sequence,
    /// It has replayed everything up to here.
    replayed: Sequence,
    /// It may run to this exit: every entry before it was sent.
    pub exits: u64,
    round_trips: RoundTrips,
    renewals: Renewals,
}

impl<E> Follower<E> {
    /// One that has everything up to `common`.
    pub fn new(config: &Config, common: Sequence, now_ns: u64) -> Self {
        Self {
            link: Link::new(config, now_ns),
            flow: Flow::new(config, common, now_ns),
            heard_at_ns: now_ns,
            lease_until_ns: now_ns,
            leased_until_ns: now_ns,
            echoed_ns: now_ns,
            acknowledged: common,
            replayed: common,
            exits: 0,
            round_trips: RoundTrips::new(),
            renewals: Renewals::default(),
        }
    }

    /// Its connection is this replica's from now on: until now it had nothing to say.
    pub fn begin(&mut self, config: &Config, now_ns: u64) {
        self.link = Link::new(config, now_ns);
        self.heard_at_ns = now_ns;
        self.lease_until_ns = now_ns;
        self.leased_until_ns = now_ns;
        self.echoed_ns = now_ns;
    }

    /// Why it counts as gone, if time alone says so.
    pub fn gone<O>(&self, turn: &Turn<'_, E, O>) -> Option<Cause> {
        let silent_ns = turn.now_ns() - self.heard_at_ns;
        if silent_ns >= turn.core.config.primary_timeout_ns() {
            return Some(Cause::Silence { silent_ns });
        }
        let unleased_ns = turn.now_ns().saturating_sub(self.leased_until_ns);
        if unleased_ns < turn.core.config.unleased_ns_max() || mutant::is(Mutant::WaitForTheLease) {
            return None;
        }
        let round_trip_ns = self.round_trip_ns(turn);
        Some(Cause::TooFar {
            unleased_ns,
            round_trip_ns,
            timeout_ns_min: Config::timeout_ns_for(round_trip_ns),
        })
    }

    /// Time that a heartbeat and its echo take, at least: the newest took so long, or the next has
    /// been under way for so long.
    pub fn round_trip_ns<O>(&self, turn: &Turn<'_, E, O>) -> u64 {
        let next_sent_ns = self.echoed_ns + turn.core.config.heartbeat_ns();
        let under_way_ns = turn.now_ns().saturating_sub(next_sent_ns);
        self.round_trips.newest_ns().max(under_way_ns)
    }

    /// The guest has passed an exit, and everything up to it was appended.
    pub fn ran(&mut self, exits: u64) {
        if self.flow.all_sent() {
            self.exits = self.exits.max(exits);
        }
    }

    /// Takes what comes over the connection.
    ///
    /// # Errors
    /// Why it is to be parted from.
    pub fn hear<O>(&mut self, turn: &mut Turn<'_, E, O>, input: Input<E, O>) -> Result<(), Cause> {
        match input {
            Input::Received(message) => self.receive(turn, message),
            Input::ReceivedEntries(_) => Err(violation("entries from a backup")),
            Input::PeerClosed(Closed::ByPeer) => Err(Cause::Closed),
            Input::PeerClosed(Closed::Here { why }) => Err(Cause::Broken { why }),
            _ => Ok(()),
        }
    }

    fn receive<O>(&mut self, turn: &mut Turn<'_, E, O>, message: Message) -> Result<(), Cause> {
        self.heard_at_ns = turn.now_ns();
        match message {
            Message::Acknowledge(acknowledge) => self.acknowledge(turn, acknowledge),
            Message::Heartbeat(heartbeat) => self.extend_lease(turn, heartbeat),
            Message::Goodbye(Goodbye { reason }) => Err(Cause::Left { reason }),
            Message::Diverged(Diverged {
                sequence,
                part,
                again,
            }) => Err(Cause::Diverged {
                sequence,
                part,
                again,
            }),
            Message::Hello(_)
            | Message::Welcome(_)
            | Message::Refused(_)
            | Message::Probe(_)
            | Message::Measured(_)
            | Message::Beginning(_) => Err(violation("a second handshake")),
            Message::Loaded => Err(violation("loaded once more")),
            Message::Piece(_) | Message::Armed(_) | Message::Handover(_) => {
                Err(violation("what only a live side says"))
            }
        }
    }

    fn acknowledge<O>(&mut self, turn: &Turn<'_, E, O>, acknowledge: Acknowledge) -> Result<(), Cause> {
        let Acknowledge { received, replayed } = acknowledge;
        if received > self.flow.sent_through || received < self.acknowledged || replayed > received {
            return Err(violation("an acknowledgement that cannot be"));
        }
        self.acknowledged = received;
        self.replayed = replayed;
        self.flow.acknowledged(turn.now_ns(), received);
        self.flow.replayed(replayed);
        Ok(())
    }

    /// It has this side's heartbeat of `echo_ns`, so it was not silent for it then or later: it
    /// will not act before its timeout after that.
    fn extend_lease<O>(&mut self, turn: &mut Turn<'_, E, O>, heartbeat: Heartbeat) -> Result<(), Cause> {
        let Heartbeat {
            sent_at_ns, echo_ns, ..
        } = heartbeat;
        if echo_ns > self.link.sent_at_ns {
            return Err(violation("an echo of what was not said"));
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
        // Its own heartbeats repeat the echo, and say nothing new of the round trip.
        if echo_ns > self.echoed_ns {
            self.echoed_ns = echo_ns;
            let (now_ns, config) = (turn.now_ns(), turn.core.config);
            self.flow.round_trip(now_ns - echo_ns);
            let told = self.round_trips.take(now_ns, now_ns - echo_ns, &config);
            told.into_iter().for_each(|report| turn.report(report));
        }
        Ok(())
    }

    /// Sends what the window and the channel have room for.
    pub fn send_entries<O>(&mut self, turn: &mut Turn<'_, E, O>) {
        while let Some(batch) = self.flow.next(turn.now_ns()) {
            // More entries may come at the exit of the last one.
            let certain = u64::from(!mutant::is(Mutant::AdvanceTooFar));
            self.exits = self.exits.max(batch.exits.saturating_sub(certain));
            turn.act(Action::SendEntries(batch));
        }
    }

    /// Says how far the guest is, and that outputs up to entry `released` have left.
    pub fn beat<O>(&mut self, turn: &mut Turn<'_, E, O>, released: Sequence) {
        turn.send(self.link.heartbeat(turn.now_ns(), self.exits, released));
        self.flow.told(released);
    }

    /// The last words. The heartbeat before them says which outputs have left: the other side knows
    /// what is left to say.
    pub fn part<O>(&mut self, turn: &mut Turn<'_, E, O>, released: Sequence, reason: &str) {
        self.beat(turn, released);
        turn.send(Message::Goodbye(Goodbye {
            reason: reason.to_owned(),
        }));
    }

    /// Time from which it counts as silent.
    pub fn silent_at_ns(&self, config: &Config) -> u64 {
        self.heard_at_ns + config.primary_timeout_ns()
    }

    /// When the next heartbeat is due, or it counts as silent.
    pub fn due_at_ns(&self, config: &Config) -> u64 {
        self.silent_at_ns(config).min(self.link.due_at_ns)
    }

    /// Until when it is certain that it does not act.
    pub fn lease_until_ns(&self) -> u64 {
        if mutant::is(Mutant::IgnoreLease) {
            return u64::MAX;
        }
        self.lease_until_ns
    }

    pub fn statistics(&self, now_ns: u64, gate: Statistics) -> Statistics {
        Statistics {
            replayed: self.replayed,
            behind_bytes: self.flow.behind_bytes(),
            lag_ns: self.flow.lag_ns(now_ns),
            round_trip_ns: self.round_trips.newest_ns(),
            lease: self.renewals.lease,
            ..gate
        }
    }
}

fn violation(why: &str) -> Cause {
    Cause::Violation { why: why.to_owned() }
}
