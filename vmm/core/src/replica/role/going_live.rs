//! Going live: this backup has won. It replays what it has received and then acts; what its replay
//! says and the primary had not said yet leaves at once.

use lockstep_logging_channel::Sequence;

use super::turn::{Turn, defect};
use super::{Action, Halt, Input, Next, Report, Solo, State};
use crate::replica::mutant::{self, Mutant};

/// The part of the log that a backup has.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stored {
    /// The newest entry received.
    pub received: Sequence,
    /// True where that is the end of the log.
    pub ends: bool,
    /// The newest entry replayed.
    pub replayed: Sequence,
}

impl Stored {
    /// The replay has come to entry `sequence`.
    pub fn replay(&mut self, sequence: Sequence) {
        assert!(
            self.replayed <= sequence && sequence <= self.received,
            "replayed {sequence:?} after {:?}, of {:?} received",
            self.replayed,
            self.received
        );
        self.replayed = sequence;
    }
}

/// A backup that has won and is not live yet.
#[derive(Debug)]
pub(super) struct GoingLive {
    stored: Stored,
}

impl GoingLive {
    pub fn begin<E, O>(turn: &mut Turn<'_, E, O>, mut stored: Stored) -> Next<E> {
        if mutant::is(Mutant::GoLiveEarly) && !stored.ends {
            stored.received = stored.replayed;
        }
        // A log with an end is replayed to it; there is no life after it.
        if !stored.ends {
            let generation = turn.core.generation;
            turn.act(Action::GoLive {
                generation,
                after: stored.received,
            });
        }
        report_if_replayed(turn, stored);
        Some(State::GoingLive(Self { stored }))
    }

    pub fn take<E, O>(&mut self, turn: &mut Turn<'_, E, O>, input: Input<E, O>) -> Next<E> {
        match input {
            Input::Replayed {
                sequence, outputs, ..
            } => {
                turn.hold(outputs);
                if sequence > self.stored.replayed {
                    self.stored.replay(sequence);
                    report_if_replayed(turn, self.stored);
                }
                None
            }
            Input::LiveAt { sequence, exits } => {
                let Stored { received, ends, .. } = self.stored;
                assert!(
                    sequence == received && !ends,
                    "live after {sequence:?} of {:?}",
                    self.stored
                );
                turn.report(Report::Live {
                    generation: turn.core.generation,
                    exits,
                });
                Some(State::Solo(Solo::default()))
            }
            Input::GuestEnded { reason } => turn.halt(Halt::Ended { reason }),
            Input::StopRequested => turn.halt(Halt::Stopped),
            Input::Diverged { .. } => {
                let again = mutant::is(Mutant::JoinAgainThoughWon);
                turn.halt(Halt::Diverged { again })
            }
            Input::Appended { .. } | Input::Ran { .. } | Input::Stands { .. } => {
                defect("new entries before going live")
            }
            _ => None,
        }
    }
}

fn report_if_replayed<E, O>(turn: &mut Turn<'_, E, O>, stored: Stored) {
    if stored.replayed == stored.received {
        turn.report(Report::Replayed {
            sequence: stored.received,
        });
    }
}
