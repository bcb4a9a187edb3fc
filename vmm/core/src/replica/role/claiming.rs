//! Claiming: the peer counts as gone, and the store is asked who goes on. Nothing leaves meanwhile.

use lockstep_logging_channel::{Generation, Sequence};

use super::going_live::{GoingLive, Stored};
use super::turn::{Turn, defect};
use super::{Action, Halt, Input, Next, Outcome, Report, Solo, State};
use crate::replica::mutant::{self, Mutant};

/// First pause after a claim without verdict.
const RETRY_NS_MIN: u64 = 10_000_000;

/// Longest such pause: a store that comes back is used within a second.
const RETRY_NS_MAX: u64 = 1_000_000_000;

/// First silence of the store after which it is asked again, beside the questions that are open: a
/// call that hangs may hang for ever while new ones are answered. Doubled with each question.
const ASK_AGAIN_NS_MIN: u64 = 1_000_000_000;

/// Longest such silence.
const ASK_AGAIN_NS_MAX: u64 = 60_000_000_000;

/// Questions that may be open, each of which may hold a thread of the caller for ever. After 1, 3,
/// 7, 15, 31 and 63 s, and then once a minute: the last is asked after ten minutes of silence.
const QUESTIONS_MAX: u32 = 16;

/// Interval at which people are told that the store does not answer.
const COMPLAIN_NS: u64 = 1_000_000_000;

/// Which side claims, and what it has.
#[derive(Debug)]
pub(super) enum Side {
    /// The guest is live here already.
    Primary,
    /// The guest is replayed here.
    Backup(Stored),
}

/// Questions that the store was asked and has not answered, and the times at which to ask it again,
/// or to report on it.
#[derive(Debug)]
struct Questions {
    open: u32,
    /// The store has been silent since then.
    silent_since_ns: u64,
    complain_at_ns: u64,
    ask_at_ns: u64,
    /// Silence before the question after the next.
    silence_ns: u64,
}

/// A replica that wants to act alone.
#[derive(Debug)]
pub(super) struct Claiming {
    side: Side,
    /// The primary has handed over: whoever loses may begin anew.
    switchover: bool,
    generation: Generation,
    attempts: u32,
    pause_ns: u64,
    questions: Questions,
}

impl Claiming {
    /// Asks the store, or waits first where no witness is reached. [`Claiming::finish`] sends the
    /// question.
    pub fn begin<E, O>(turn: &mut Turn<'_, E, O>, side: Side) -> Next<E> {
        let wait_ns = turn.core.witnesses.wait_ns(turn.now_ns());
        Self::begin_after(turn, side, false, wait_ns)
    }

    /// The same where the primary has handed over. A backup does not wait for a witness then: its
    /// primary lives, and goes on only if this side does not.
    pub fn begin_in_switchover<E, O>(turn: &mut Turn<'_, E, O>, side: Side) -> Next<E> {
        let wait_ns = match side {
            Side::Primary => turn.core.witnesses.wait_ns(turn.now_ns()),
            Side::Backup(_) => None,
        };
        Self::begin_after(turn, side, true, wait_ns)
    }

    fn begin_after<E, O>(
        turn: &mut Turn<'_, E, O>,
        side: Side,
        switchover: bool,
        wait_ns: Option<u64>,
    ) -> Next<E> {
        let generation = Generation(turn.core.generation.0 + 1);
        let now_ns = turn.now_ns();
        if let Some(wait_ns) = wait_ns {
            turn.report(Report::WaitingForWitness { wait_ns });
        }
        Some(State::Claiming(Self {
            side,
            switchover,
            generation,
            attempts: 0,
            pause_ns: RETRY_NS_MIN,
            questions: Questions {
                open: 0,
                silent_since_ns: now_ns,
                complain_at_ns: now_ns + COMPLAIN_NS,
                ask_at_ns: now_ns + wait_ns.unwrap_or(0),
                silence_ns: ASK_AGAIN_NS_MIN,
            },
        }))
    }

    /// True where the primary has handed over.
    pub fn is_switchover(&self) -> bool {
        self.switchover
    }

    /// The generation that is asked for.
    pub fn generation(&self) -> Generation {
        self.generation
    }

    pub fn take<E, O>(&mut self, turn: &mut Turn<'_, E, O>, input: Input<E, O>) -> Next<E> {
        match input {
            Input::Claimed { generation, outcome } if generation == self.generation => {
                self.answered(turn, outcome)
            }
            Input::Wake | Input::Claimed { .. } if mutant::is(Mutant::SkipTestAndSet) => self.won(turn),
            Input::StopRequested => turn.halt(Halt::Stopped),
            Input::Diverged { .. } => turn.halt(Halt::Diverged { again: false }),
            Input::GuestEnded { reason } => {
                turn.core.ended = Some(reason);
                None
            }
            Input::Appended { .. } | Input::Ran { .. } | Input::Replayed { .. } | Input::LiveAt { .. } => {
                self.execute(turn, input)
            }
            // The connection to the peer is over: what it still brings does not count.
            Input::Wake
            | Input::Witnessed { .. }
            | Input::Received(_)
            | Input::ReceivedEntries(_)
            | Input::PeerClosed(_)
            | Input::Claimed { .. }
            | Input::SavedAt { .. }
            | Input::Joined
            | Input::NewcomerLost { .. }
            | Input::SwitchOver
            | Input::Stands { .. }
            | Input::LaterGeneration { .. } => None,
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
                self.questions.ask_at_ns = turn.now_ns();
                None
            }
            Outcome::Lost if self.switchover && mutant::is(Mutant::ActAfterHandingOver) => self.won(turn),
            Outcome::Lost if self.switchover => {
                turn.report(Report::SwitchedOver { generation });
                turn.halt(Halt::SwitchedOver)
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
                self.questions.answered(turn.now_ns(), self.pause_ns);
                self.pause_ns = (self.pause_ns * 2).min(RETRY_NS_MAX);
                None
            }
        }
    }

    fn won<E, O>(&mut self, turn: &mut Turn<'_, E, O>) -> Next<E> {
        if self.switchover {
            turn.act(match self.side {
                Side::Primary => Action::Stand(false),
                // The former primary asks the store then, and finds that it has lost.
                Side::Backup(_) => Action::Disconnect,
            });
        }
        turn.act_alone(self.generation);
        if let Some(reason) = turn.core.ended.clone() {
            return turn.halt(Halt::Ended { reason });
        }
        match &self.side {
            Side::Primary => {
                turn.report(Report::Solo {
                    generation: self.generation,
                });
                Some(State::Solo(Solo::default()))
            }
            Side::Backup(stored) => GoingLive::begin(turn, *stored),
        }
    }

    pub fn finish<E, O>(&mut self, turn: &mut Turn<'_, E, O>) -> (bool, Option<u64>) {
        let now_ns = turn.now_ns();
        if mutant::is(Mutant::SpeakWhileClaiming) {
            turn.release(Sequence(u64::MAX - 1), u64::MAX);
        }
        if self.may_ask(turn) {
            self.ask(turn);
        }
        let questions = &mut self.questions;
        if questions.open > 0 && now_ns >= questions.complain_at_ns {
            turn.report(Report::StorageSilent {
                waited_ns: now_ns - questions.silent_since_ns,
                open: questions.open,
            });
            questions.complain_at_ns = now_ns + COMPLAIN_NS;
        }
        let full = turn.core.gate.held_bytes() > turn.core.config.held_bytes_max;
        (
            full && matches!(self.side, Side::Primary),
            Some(questions.wake_at_ns()),
        )
    }

    /// True when the store is to be asked now. The first question waits for a witness, or for the
    /// end of that wait.
    fn may_ask<E, O>(&self, turn: &Turn<'_, E, O>) -> bool {
        let now_ns = turn.now_ns();
        let due = now_ns >= self.questions.ask_at_ns;
        if self.attempts == 0 {
            let over = due && !mutant::is(Mutant::WaitForEver);
            return over || turn.core.witnesses.wait_ns(now_ns).is_none();
        }
        let hangs = self.questions.open > 0 && mutant::is(Mutant::TrustAHangingQuestion);
        self.questions.may_ask() && due && !hangs && !mutant::is(Mutant::AskOnce)
    }

    fn ask<E, O>(&mut self, turn: &mut Turn<'_, E, O>) {
        let generation = self.generation;
        if self.attempts == 0 {
            turn.report(Report::Claiming { generation });
        }
        self.attempts = self.attempts.saturating_add(1);
        self.questions.asked(turn.now_ns());
        turn.act(Action::Claim { generation });
    }
}

impl Questions {
    fn may_ask(&self) -> bool {
        self.open < QUESTIONS_MAX
    }

    fn asked(&mut self, now_ns: u64) {
        if self.open == 0 {
            self.silent_since_ns = now_ns;
            self.complain_at_ns = now_ns + COMPLAIN_NS;
        }
        self.open += 1;
        self.ask_at_ns = now_ns + self.silence_ns;
        self.silence_ns = (self.silence_ns * 2).min(ASK_AGAIN_NS_MAX);
    }

    /// A question was answered without a verdict: the store is not silent, and is asked after a
    /// pause. Other questions may still be open.
    fn answered(&mut self, now_ns: u64, pause_ns: u64) {
        self.open = self.open.saturating_sub(1);
        self.silent_since_ns = now_ns;
        self.complain_at_ns = now_ns + COMPLAIN_NS;
        self.ask_at_ns = now_ns + pause_ns;
        self.silence_ns = ASK_AGAIN_NS_MIN;
    }

    fn wake_at_ns(&self) -> u64 {
        match (self.open > 0, self.may_ask()) {
            (true, true) => self.ask_at_ns.min(self.complain_at_ns),
            (true, false) => self.complain_at_ns,
            (false, _) => self.ask_at_ns,
        }
    }
}
