//! Claiming: the peer counts as gone, and the store is asked who goes on. Nothing leaves meanwhile.

use lockstep_logging_channel::{Generation, Sequence};

use super::going_live::{GoingLive, Stored};
use super::turn::{Turn, defect};
use super::{Action, Halt, Input, Next, Outcome, Report, State};
use crate::replica::mutant::{self, Mutant};

/// First pause after a claim without verdict.
const RETRY_NS_MIN: u64 = 10_000_000;

/// Longest such pause: a store that comes back is used within a second.
const RETRY_NS_MAX: u64 = 1_000_000_000;

/// How often people are told that the store has not answered.
const COMPLAIN_NS: u64 = 1_000_000_000;

/// Which side claims, and what it has.
#[derive(Debug)]
pub(super) enum Side {
    /// The guest is live here already.
    Primary,
    /// The guest is replayed here.
    Backup(Stored),
}

/// When to speak to the store, or of it.
#[derive(Debug)]
enum Store {
    Asked { since_ns: u64, complain_at_ns: u64 },
    Paused { until_ns: u64 },
}

/// A replica that wants to act alone.
#[derive(Debug)]
pub(super) struct Claiming {
    side: Side,
    generation: Generation,
    attempts: u32,
    pause_ns: u64,
    store: Store,
}

impl Claiming {
    /// Asks the store. [`Claiming::finish`] sends the question.
    pub fn begin<E, O>(turn: &mut Turn<'_, E, O>, side: Side) -> Next<E> {
        let generation = Generation(turn.core.generation.0 + 1);
        turn.report(Report::Claiming { generation });
        Some(State::Claiming(Self {
            side,
            generation,
            attempts: 0,
            pause_ns: RETRY_NS_MIN,
            store: Store::Paused {
                until_ns: turn.now_ns(),
            },
        }))
    }

    pub fn take<E, O>(&mut self, turn: &mut Turn<'_, E, O>, input: Input<E, O>) -> Next<E> {
        match input {
            Input::Claimed { generation, outcome } if generation == self.generation => {
                self.answered(turn, outcome)
            }
            Input::Wake | Input::Claimed { .. } if mutant::is(Mutant::SkipTestAndSet) => self.won(turn),
            Input::StopRequested => turn.halt(Halt::Stopped),
            Input::GuestEnded { reason } => {
                turn.core.ended = Some(reason);
                None
            }
            Input::Appended { .. } | Input::Ran { .. } | Input::Replayed { .. } | Input::LiveAt { .. } => {
                self.execute(turn, input)
            }
            // The connection to the peer is over: what it still brings does not count.
            Input::Wake
            | Input::Received(_)
            | Input::ReceivedEntries(_)
            | Input::PeerClosed(_)
            | Input::Claimed { .. } => None,
        }
    }

    /// The guest runs on; what it says waits.
    fn execute<E, O>(&mut self, turn: &mut Turn<'_, E, O>, input: Input<E, O>) -> Next<E> {
        match (&mut self.side, input) {
            (Side::Primary, Input::Appended { outputs, .. }) => turn.hold(outputs),
            (Side::Primary, Input::Ran { .. }) => (),
            (
                Side::Backup(stored),
                Input::Replayed {
                    sequence, outputs, ..
                },
            ) => {
                turn.hold(outputs);
                stored.replay(sequence);
            }
            _ => defect("a live backup or a replaying primary"),
        }
        None
    }

    fn answered<E, O>(&mut self, turn: &mut Turn<'_, E, O>, outcome: Outcome) -> Next<E> {
        let generation = self.generation;
        match outcome {
            Outcome::Won => self.won(turn),
            Outcome::Lost if mutant::is(Mutant::TakeLostForWon) => self.won(turn),
            Outcome::Unreachable { .. } if mutant::is(Mutant::TakeUnreachableForWon) => self.won(turn),
            Outcome::Lost if mutant::is(Mutant::LoserClaimsTheNext) => {
                self.generation.0 += 1;
                self.store = Store::Paused {
                    until_ns: turn.now_ns(),
                };
                None
            }
            Outcome::Lost => {
                let discarded = turn.core.gate.held();
                turn.report(Report::Lost {
                    generation,
                    discarded,
                });
                turn.halt(Halt::Fenced)
            }
            Outcome::Unreachable { why } => {
                turn.report(Report::StorageUnreachable {
                    attempts: self.attempts,
                    why,
                });
                self.store = Store::Paused {
                    until_ns: turn.now_ns() + self.pause_ns,
                };
                self.pause_ns = (self.pause_ns * 2).min(RETRY_NS_MAX);
                None
            }
        }
    }

    fn won<E, O>(&mut self, turn: &mut Turn<'_, E, O>) -> Next<E> {
        turn.act_alone(self.generation);
        if let Some(reason) = turn.core.ended.clone() {
            return turn.halt(Halt::Ended { reason });
        }
        match &self.side {
            Side::Primary => {
                turn.report(Report::Solo {
                    generation: self.generation,
                });
                Some(State::Solo)
            }
            Side::Backup(stored) => GoingLive::begin(turn, *stored),
        }
    }

    pub fn finish<E, O>(&mut self, turn: &mut Turn<'_, E, O>) -> (bool, Option<u64>) {
        let now_ns = turn.now_ns();
        if mutant::is(Mutant::SpeakWhileClaiming) {
            turn.release(Sequence(u64::MAX - 1), u64::MAX);
        }
        match &mut self.store {
            Store::Paused { .. } if self.attempts > 0 && mutant::is(Mutant::AskOnce) => (),
            Store::Paused { until_ns } if now_ns >= *until_ns => self.ask(turn),
            Store::Asked {
                since_ns,
                complain_at_ns,
            } if now_ns >= *complain_at_ns => {
                turn.report(Report::StorageSilent {
                    waited_ns: now_ns - *since_ns,
                });
                *complain_at_ns = now_ns + COMPLAIN_NS;
            }
            _ => (),
        }
        let wake_at_ns = match self.store {
            Store::Paused { until_ns } => until_ns,
            Store::Asked { complain_at_ns, .. } => complain_at_ns,
        };
        let full = turn.core.gate.held_bytes() > turn.core.config.held_bytes_max;
        (full && matches!(self.side, Side::Primary), Some(wake_at_ns))
    }

    fn ask<E, O>(&mut self, turn: &mut Turn<'_, E, O>) {
        let now_ns = turn.now_ns();
        self.attempts = self.attempts.saturating_add(1);
        self.store = Store::Asked {
            since_ns: now_ns,
            complain_at_ns: now_ns + COMPLAIN_NS,
        };
        turn.act(Action::Claim {
            generation: self.generation,
        });
    }
}
