//! The order in which a loop carries out what steps of the role machine ask for.
//!
//! ```text
//!   release, release, send, release  -->  release, release, let out, send, release, let out
//! ```

use super::Leaving;
use crate::replica::cpu::{Carried, Payload};
use crate::replica::mutant::{self, Mutant};
use crate::replica::role::Action;
use std::collections::VecDeque;

/// A task that a loop carries out next.
#[derive(Debug)]
pub enum Doing {
    /// This action. An [`Action::Release`] is given to [`Carrying::leaving`].
    Act(Action<Carried, Payload>),
    /// [`Carrying::leaving`] is written: what may leave of it, together.
    LetOut,
}

/// Actions that are not carried out yet, and outputs that leave.
#[derive(Debug, Default)]
pub struct Carrying {
    actions: VecDeque<Action<Carried, Payload>>,
    /// Outputs released and not written yet.
    pub leaving: Leaving,
}

impl Carrying {
    /// Takes the actions of a step. Their container is used again.
    pub fn take(&mut self, actions: &mut Vec<Action<Carried, Payload>>) {
        self.actions.extend(actions.drain(..));
    }

    /// Actions not carried out yet.
    pub fn actions(&self) -> impl Iterator<Item = &Action<Carried, Payload>> {
        self.actions.iter()
    }

    /// True if everything is done.
    #[must_use]
    pub fn is_done(&self) -> bool {
        self.actions.is_empty() && self.leaving.is_empty()
    }

    /// Returns the next task without taking it.
    #[must_use]
    pub fn next(&self) -> Option<Next<'_>> {
        match self.actions.front() {
            Some(action @ Action::Release { .. }) => Some(Next::Act(action)),
            Some(action) if mutant::is(Mutant::LetOutLast) => Some(Next::Act(action)),
            _ if !self.leaving.is_empty() => Some(Next::LetOut),
            action => action.map(Next::Act),
        }
    }

    /// Takes what is next.
    pub fn begin(&mut self) -> Option<Doing> {
        match self.next()? {
            Next::Act(_) => self.actions.pop_front().map(Doing::Act),
            Next::LetOut => Some(Doing::LetOut),
        }
    }
}

/// The next task, not taken yet.
#[derive(Debug)]
pub enum Next<'a> {
    /// This action.
    Act(&'a Action<Carried, Payload>),
    /// Outputs are written.
    LetOut,
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replica::cpu::output;
    use lockstep_logging_channel::{DeviceId, OutputTarget, Sequence};

    fn release(sequence: u64) -> Action<Carried, Payload> {
        Action::Release {
            output: output(Sequence(sequence), OutputTarget::network(DeviceId(4)), vec![]),
            held_ns: 0,
            until_ns: u64::MAX,
        }
    }

    #[test]
    fn releases_that_follow_one_another_leave_together_and_before_what_is_behind_them() {
        let mut carrying = Carrying::default();
        let throttle = Action::Throttle(true);
        carrying.take(&mut vec![
            throttle.clone(),
            release(1),
            release(2),
            throttle,
            release(3),
        ]);
        let mut done = Vec::new();
        while let Some(doing) = carrying.begin() {
            done.push(match doing {
                Doing::Act(Action::Release { output, until_ns, .. }) => {
                    carrying.leaving.push(output, until_ns);
                    "release"
                }
                Doing::Act(_) => "throttle",
                Doing::LetOut => {
                    carrying.leaving.clear();
                    "let out"
                }
            });
        }
        let expected = [
            "throttle", "release", "release", "let out", "throttle", "release", "let out",
        ];
        assert_eq!(done, expected);
        assert!(carrying.is_done());
    }
}
