//! Solo: this replica won its generation. What the guest says leaves at once, and a newcomer may
//! join.

use super::newcomer::Newcomer;
use super::turn::Turn;
use super::{Action, Batch, Cause, Halt, Input, Next, Report, Statistics};
use crate::replica::mutant::{self, Mutant};

/// A replica that acts alone.
#[derive(Debug)]
pub(super) struct Solo<E> {
    newcomer: Option<Box<Newcomer<E>>>,
}

impl<E> Default for Solo<E> {
    fn default() -> Self {
        Self { newcomer: None }
    }
}

impl<E> Solo<E> {
    pub fn look_at_the_time<O>(&mut self, turn: &mut Turn<'_, E, O>) -> Next<E> {
        let cause = self.newcomer.as_ref().and_then(|newcomer| newcomer.gone(turn));
        if let Some(cause) = cause {
            self.lose(turn, cause);
        }
        None
    }

    pub fn take<O>(&mut self, turn: &mut Turn<'_, E, O>, input: Input<E, O>) -> Next<E> {
        match input {
            Input::Appended { batch, outputs } => {
                turn.hold(outputs);
                self.keep(turn, batch);
            }
            Input::Ran { exits } => self.newcomer.iter_mut().for_each(|newcomer| newcomer.ran(exits)),
            Input::SavedAt { sequence, exits } => {
                let why = "the state was saved for another one".to_owned();
                self.lose(turn, Cause::Here { why });
                turn.report(Report::Saved { after: sequence });
                let newcomer = Newcomer::new(&turn.core.config, sequence, exits, turn.now_ns());
                self.newcomer = Some(Box::new(newcomer));
            }
            Input::Joined => match &mut self.newcomer {
                Some(newcomer) => newcomer.join(turn),
                // It was given up while it said that its machine stands.
                None => turn.act(Action::Disconnect),
            },
            Input::NewcomerLost { why } => self.lose(turn, Cause::Here { why }),
            Input::Received(_) | Input::ReceivedEntries(_) | Input::PeerClosed(_) => self.hear(turn, input),
            Input::GuestEnded { reason } => {
                return self.leave(turn, "the guest has ended", Halt::Ended { reason });
            }
            Input::StopRequested => return self.leave(turn, "asked to stop", Halt::Stopped),
            _ => {}
        }
        self.newcomer
            .iter_mut()
            .for_each(|newcomer| newcomer.send_entries(turn));
        let ready = self.newcomer.take_if(|newcomer| newcomer.is_ready(turn))?;
        Some(ready.arm(turn))
    }

    fn keep<O>(&mut self, turn: &mut Turn<'_, E, O>, batch: Batch<E>) {
        if let Some(newcomer) = &mut self.newcomer
            && let Err(cause) = newcomer.append(turn, batch)
        {
            self.lose(turn, cause);
        }
    }

    fn hear<O>(&mut self, turn: &mut Turn<'_, E, O>, input: Input<E, O>) {
        if let Some(newcomer) = &mut self.newcomer
            && let Err(cause) = newcomer.hear(turn, input)
        {
            self.lose(turn, cause);
        }
    }

    /// Forgets the newcomer: nobody has to be asked, as it may not claim.
    fn lose<O>(&mut self, turn: &mut Turn<'_, E, O>, cause: Cause) {
        if mutant::is(Mutant::KeepLostNewcomer) {
            return;
        }
        if self.newcomer.take().is_some() {
            turn.report(Report::NewcomerLost { cause });
            turn.act(Action::Disconnect);
        }
    }

    fn leave<O>(&mut self, turn: &mut Turn<'_, E, O>, reason: &str, halt: Halt) -> Next<E> {
        self.newcomer
            .iter_mut()
            .for_each(|newcomer| newcomer.part(turn, reason));
        turn.halt(halt)
    }

    pub fn finish<O>(&mut self, turn: &mut Turn<'_, E, O>) -> (bool, Option<u64>) {
        self.newcomer
            .as_mut()
            .map_or((false, None), |newcomer| newcomer.finish(turn))
    }

    pub fn statistics(&self, now_ns: u64, gate: Statistics) -> Statistics {
        self.newcomer
            .as_ref()
            .map_or(gate, |newcomer| newcomer.statistics(now_ns, gate))
    }
}
