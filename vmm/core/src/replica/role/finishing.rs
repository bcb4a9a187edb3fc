//! Finishing: the log has its end, the primary has said everything, and this backup only replays to
//! the end.

use super::turn::Turn;
use super::{Halt, Input, Next, State};

pub(super) fn begin<E, O>(turn: &mut Turn<'_, E, O>) -> Next<E> {
    match turn.core.ended.clone() {
        Some(reason) => turn.halt(Halt::Ended { reason }),
        None => Some(State::Finishing),
    }
}

pub(super) fn take<E, O>(turn: &mut Turn<'_, E, O>, input: Input<E, O>) -> Next<E> {
    match input {
        Input::GuestEnded { reason } => turn.halt(Halt::Ended { reason }),
        Input::StopRequested => turn.halt(Halt::Stopped),
        Input::Diverged { .. } => turn.halt(Halt::Diverged { again: false }),
        _ => None,
    }
}
