//! A replica as a pure state machine: `step(now, input) -> actions`.
//!
//! ```text
//!   primary                                             backup
//!   -------                                             ------
//!   Protecting                                          Following
//!     outputs wait for the backup's acknowledgement       entries are stored, acknowledged, replayed
//!     |  silence, closed connection, Goodbye              |  silence, closed connection, Goodbye
//!     |  no witness reached: waits first                  |  no witness reached: waits first
//!     v                                                   v
//!   Claiming generation g+1 ------- test-and-set ------ Claiming generation g+1
//!     | won          | lost                          lost |          | won
//!     v              v                                    v          v
//!   Solo           Halted(Fenced)             Halted(Fenced)       Going live: replays what it has received
//!                                                                    | the vCPU is past the last entry
//!                                                                    v
//!                                                                  Solo
//!
//!   a newcomer joins a side that acts alone; the log is kept for it from where the state was saved
//!
//!   Solo ---- SavedAt: log is kept                          loads the state (not here)
//!     |  Joined: log is sent, newcomer is heard             Following, not armed: entries are stored, acknowledged, replayed
//!     |  all is sent, little is unreplayed, lease stands      |  lost the other side: Halted(NotArmed)
//!     v  gate closes at Q, Armed { Q } is sent                v  Armed { Q } comes
//!   Protecting                                              Following
//!
//!   a switchover is asked for
//!
//!   Protecting                                          Following
//!     the guest stands, everything has left               |
//!     v   Handover is sent, behind everything             v  Handover comes
//!   HandedOver                                          Claiming generation g+1
//!     |  connection closed, silence
//!     v
//!   Claiming generation g+1                             who loses: Halted(SwitchedOver)
//!
//!   a later generation exists: any state ---> Halted(Fenced)
//!   the replay differs from the log: any state that replays ---> Halted(Diverged); the peer is told, and goes on alone
//!   guest ends: Protecting, until the end entry is acknowledged ---> Halted(Ended)
//!               Following -- Goodbye, all outputs left --> Finishing -- replay is at the end --> Halted(Ended)
//!   stop asked: any state ---> Halted(Stopped); the peer is told, and goes on alone
//! ```
//!
//! The caller owns the clock, the sockets, the storage and the vCPU. It reads the clock (one that
//! runs on while the host sleeps, such as `CLOCK_BOOTTIME`) when it has the input in hand, calls
//! [`Replica::step`], and carries the actions out in their order. It steps again when an input
//! comes, and at the time of the last [`Action::WakeAt`]. It never closes a connection that still
//! stands without having been told to, or having told the replica first: the peer takes a closed
//! connection for proof that this side no longer speaks.
//!
//! Invariants, asserted: see [`super::gate`]; the log has no gaps; a replica acts alone only in a
//! generation it has won. Nothing a peer sends can break them: what no correct peer sends is
//! answered by parting from it. Why this is enough, and what the times must be: `docs/failover.md`.

mod action;
mod backup;
mod claiming;
mod config;
mod finishing;
mod flow;
mod follower;
mod going_live;
mod input;
mod kept;
mod link;
mod newcomer;
mod pacing;
mod primary;
mod report;
mod round_trip;
mod solo;
mod standstill;
mod switchover;
mod turn;
mod witness;

use self::backup::Backup;
use self::claiming::Claiming;
use self::going_live::GoingLive;
use self::primary::Primary;
use self::solo::Solo;
use self::switchover::HandedOver;
use self::turn::{Core, Turn};
use super::mutant::{self, Mutant};
use lockstep_logging_channel::Generation;

pub use action::{Action, Halt};
pub use config::{
    Config, ConfigError, KEPT_BATCH_BYTES, KEPT_BYTES_MAX, RoundTripError, TIMEOUT_NS_MAX, TIMEOUT_NS_MIN,
    WINDOW_BYTES_MIN,
};
pub use input::{Batch, Closed, Input, Outcome, Output};
pub use report::{Cause, HeldBy, Lease, Protection, Report, Statistics};
pub use witness::WITNESSES_MAX;

/// In which state a replica is.
#[derive(Debug)]
enum State<E> {
    Protecting(Box<Primary<E>>),
    HandedOver(Box<HandedOver<E>>),
    Following(Backup),
    Claiming(Claiming),
    GoingLive(GoingLive),
    Finishing,
    Solo(Solo<E>),
    Halted,
}

/// Result of a step: another state, or none.
type Next<E> = Option<State<E>>;

/// One side of a pair. `E` is how the caller has log entries, `O` how it has outputs.
#[derive(Debug)]
pub struct Replica<E, O> {
    core: Core<O>,
    state: State<E>,
}

impl<E, O> Replica<E, O> {
    /// The side whose guest is live. Step it at once with [`Input::Wake`].
    ///
    /// # Errors
    /// [`ConfigError`]: a setting cannot work.
    pub fn primary(config: Config, now_ns: u64) -> Result<Self, ConfigError> {
        config.check()?;
        let state = State::Protecting(Box::new(Primary::new(&config, now_ns)));
        Ok(Self {
            core: Core::new(config, now_ns),
            state,
        })
    }

    /// The side that replays. Step it at once with [`Input::Wake`].
    ///
    /// # Errors
    /// [`ConfigError`]: a setting cannot work.
    pub fn backup(config: Config, now_ns: u64) -> Result<Self, ConfigError> {
        config.check()?;
        let state = State::Following(Backup::new(&config, now_ns));
        Ok(Self {
            core: Core::new(config, now_ns),
            state,
        })
    }

    /// The side that acts alone in `config.generation`, which it has won before. Step it at once
    /// with [`Input::Wake`].
    ///
    /// # Errors
    /// [`ConfigError`]: a setting cannot work.
    pub fn alone(config: Config, now_ns: u64) -> Result<Self, ConfigError> {
        config.check()?;
        Ok(Self {
            core: Core::alone(config, now_ns),
            state: State::Solo(Solo::default()),
        })
    }

    /// The side that has loaded the state of a machine that runs in `config.generation`, as it was
    /// after entry `config.common`, and has said so. Step it at once with [`Input::Wake`].
    ///
    /// # Errors
    /// [`ConfigError`]: a setting cannot work.
    pub fn newcomer(config: Config, now_ns: u64) -> Result<Self, ConfigError> {
        config.check()?;
        let state = State::Following(Backup::newcomer(&config, now_ns));
        Ok(Self {
            core: Core::new(config, now_ns),
            state,
        })
    }

    /// Takes what has happened and appends what is to be done to `actions`. `now_ns` is the
    /// caller's clock, read when the input was in hand.
    pub fn step(&mut self, now_ns: u64, input: Input<E, O>, actions: &mut Vec<Action<E, O>>) {
        let mut turn = Turn::new(&mut self.core, now_ns, actions);
        // Silence comes first: what a peer said that has been silent for too long must not count,
        // however long it has been waiting to be read.
        if let Some(next) = self.state.look_at_the_time(&mut turn) {
            self.state = next;
        }
        if let Input::Witnessed { witness, asked_at_ns } = input {
            let now_ns = turn.now_ns();
            turn.core.witnesses.answered(now_ns, witness, asked_at_ns);
        }
        witness::report(&mut turn);
        if let Some(next) = self.state.take(&mut turn, input) {
            self.state = next;
        }
        self.state.finish(&mut turn);
    }

    /// The regime this replica is in: the one it won last, or the one it started in.
    #[must_use]
    pub fn generation(&self) -> Generation {
        self.core.generation
    }

    /// Time on the replica's clock until which it may speak for the guest; 0 where it may not at
    /// all. Whoever has won its generation may for ever: nobody can win it again.
    #[must_use]
    pub fn may_speak_until_ns(&self) -> u64 {
        match &self.state {
            State::Protecting(primary) => primary.lease_until_ns(),
            State::GoingLive(_) | State::Solo(_) => u64::MAX,
            State::HandedOver(_)
            | State::Following(_)
            | State::Claiming(_)
            | State::Finishing
            | State::Halted => 0,
        }
    }

    /// True from the moment at which this replica asks for the right to go on until it is live.
    #[must_use]
    pub fn takes_over(&self) -> bool {
        matches!(self.state, State::Claiming(_) | State::GoingLive(_))
    }

    /// True where this replica acts alone.
    #[must_use]
    pub fn acts_alone(&self) -> bool {
        matches!(self.state, State::Solo(_) | State::GoingLive(_))
    }

    /// Figures as of the last step.
    #[must_use]
    pub fn statistics(&self) -> Statistics {
        let gate = Statistics {
            held: self.core.gate.held(),
            held_bytes: self.core.gate.held_bytes(),
            witness_reached: self.core.witnesses.reached(self.core.now_ns),
            ..Statistics::default()
        };
        let of = |protection| Statistics { protection, ..gate };
        match &self.state {
            State::Protecting(primary) => primary.statistics(self.core.now_ns, gate),
            State::Following(backup) => backup.statistics(self.core.now_ns, gate),
            State::Solo(solo) => solo.statistics(self.core.now_ns, gate),
            State::HandedOver(_) | State::Claiming(_) => of(Protection::Undecided),
            State::GoingLive(_) => gate,
            State::Finishing | State::Halted => of(Protection::Over),
        }
    }
}

impl<E> State<E> {
    fn look_at_the_time<O>(&mut self, turn: &mut Turn<'_, E, O>) -> Next<E> {
        match self {
            Self::Protecting(primary) => primary.look_at_the_time(turn),
            Self::HandedOver(handed_over) => handed_over.look_at_the_time(turn),
            Self::Following(backup) => backup.look_at_the_time(turn),
            Self::Solo(solo) => solo.look_at_the_time(turn),
            _ => None,
        }
    }

    fn take<O>(&mut self, turn: &mut Turn<'_, E, O>, input: Input<E, O>) -> Next<E> {
        if let Input::LaterGeneration { generation } = input {
            return self.overtaken(turn, generation);
        }
        match self {
            Self::Protecting(primary) => primary.take(turn, input),
            Self::HandedOver(handed_over) => handed_over.take(turn, input),
            Self::Following(backup) => backup.take(turn, input),
            Self::Claiming(claiming) => claiming.take(turn, input),
            Self::GoingLive(going_live) => going_live.take(turn, input),
            Self::Finishing => finishing::take(turn, input),
            Self::Solo(solo) => solo.take(turn, input),
            Self::Halted => None,
        }
    }

    /// A generation was won that is not this replica's: it must not speak any more. What it asks
    /// the store for itself may have been granted without its knowing.
    fn overtaken<O>(&self, turn: &mut Turn<'_, E, O>, generation: Generation) -> Next<E> {
        let own = match self {
            Self::Claiming(claiming) => claiming.generation(),
            Self::Finishing | Self::Halted => return None,
            _ => turn.core.generation,
        };
        if generation <= own || mutant::is(Mutant::IgnoreLaterGeneration) {
            return None;
        }
        let switchover = match self {
            Self::HandedOver(_) => true,
            Self::Claiming(claiming) => claiming.is_switchover(),
            _ => false,
        };
        if switchover {
            turn.report(Report::SwitchedOver { generation });
            return turn.halt(Halt::SwitchedOver);
        }
        let discarded = turn.core.gate.held();
        turn.report(Report::Overtaken {
            generation,
            discarded,
        });
        turn.halt(match self {
            Self::Following(backup) if backup.is_newcomer() => Halt::NotArmed,
            _ => Halt::Fenced,
        })
    }

    /// Does what is due, and asks for the next step.
    fn finish<O>(&mut self, turn: &mut Turn<'_, E, O>) {
        let (throttle, wake_at_ns) = match self {
            Self::Protecting(primary) => primary.finish(turn),
            Self::HandedOver(handed_over) => handed_over.finish(turn),
            Self::Following(backup) => backup.finish(turn),
            Self::Claiming(claiming) => claiming.finish(turn),
            Self::Solo(solo) => solo.finish(turn),
            Self::GoingLive(_) | Self::Finishing => (false, None),
            Self::Halted => return,
        };
        turn.throttle(throttle);
        let report_at_ns = turn.core.witnesses.due_at_ns(turn.now_ns());
        turn.wake_at([wake_at_ns, report_at_ns].into_iter().flatten().min());
        // A step comes with every heartbeat, and once a second while the store is asked: no time of
        // its own is needed.
        let held_by = match self {
            Self::Protecting(primary) => Some(primary.held_by(turn)),
            Self::Claiming(_) => Some(HeldBy::Verdict),
            _ => None,
        };
        turn.watch(held_by);
    }
}

#[cfg(test)]
mod tests;
