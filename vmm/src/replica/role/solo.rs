//! Solo: this replica won its generation. What the guest says leaves at once.

use super::turn::Turn;
use super::{Halt, Input, Next};

pub(super) fn take<E, O>(turn: &mut Turn<'_, E, O>, input: Input<E, O>) -> Next<E> {
    match input {
        Input::Appended { outputs, .. } => {
            turn.hold(outputs);
            None
        }
        Input::GuestEnded { reason } => turn.halt(Halt::Ended { reason }),
        Input::StopRequested => turn.halt(Halt::Stopped),
        _ => None,
    }
}
