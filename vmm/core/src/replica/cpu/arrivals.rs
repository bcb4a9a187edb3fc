//! The choice among what has arrived for a live guest: the timer once an execution point, frames
//! and typed bytes in turn, so that none keeps another out.

use crate::machine::door::Readiness;
use crate::replica::mutant::{self, Mutant};
use lockstep_logging_channel::EventKind;

/// Proposals of the host.
pub trait Proposals {
    /// Guest monotonic time, in nanoseconds.
    fn monotonic_ns(&self) -> u64;

    /// The oldest frame for the guest.
    fn frame(&mut self) -> Option<Vec<u8>>;

    /// The oldest bytes typed at the console.
    fn typed(&mut self) -> Option<Vec<u8>>;
}

/// The state of the choice.
#[derive(Debug, Default)]
pub struct Taking {
    /// Console bytes that did not fit.
    typed: Vec<u8>,
    /// A frame was the last to enter: typed bytes are next.
    typed_first: bool,
}

impl Taking {
    /// Takes the next event that is there now and that the guest can take.
    pub fn next(&mut self, readiness: Readiness, proposals: &mut impl Proposals) -> Option<EventKind> {
        if !readiness.timer_entered
            && readiness
                .timer_deadline_ns
                .is_some_and(|deadline_ns| deadline_ns <= proposals.monotonic_ns())
        {
            return Some(EventKind::Timer);
        }
        let typed_first = std::mem::take(&mut self.typed_first) && !mutant::is(Mutant::FramesFirst);
        let kind = if typed_first {
            self.console_input(readiness, proposals)
                .or_else(|| frame(readiness, proposals))
        } else {
            frame(readiness, proposals).or_else(|| self.console_input(readiness, proposals))
        };
        self.typed_first = matches!(kind, Some(EventKind::Frame(_)));
        kind
    }

    fn console_input(&mut self, readiness: Readiness, proposals: &mut impl Proposals) -> Option<EventKind> {
        if readiness.console_bytes_max == 0 {
            return None;
        }
        if self.typed.is_empty() {
            self.typed = proposals.typed()?;
        }
        let rest = self
            .typed
            .split_off(self.typed.len().min(readiness.console_bytes_max));
        let taken = std::mem::replace(&mut self.typed, rest);
        (!taken.is_empty()).then_some(EventKind::ConsoleInput(taken))
    }
}

fn frame(readiness: Readiness, proposals: &mut impl Proposals) -> Option<EventKind> {
    if readiness.frames_max == 0 {
        return None;
    }
    proposals.frame().map(EventKind::Frame)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Frames and typed bytes without end, one value each.
    struct Flood;

    impl Proposals for Flood {
        fn monotonic_ns(&self) -> u64 {
            10
        }

        fn frame(&mut self) -> Option<Vec<u8>> {
            Some(vec![1])
        }

        fn typed(&mut self) -> Option<Vec<u8>> {
            Some(vec![2, 2])
        }
    }

    fn readiness(timer_entered: bool) -> Readiness {
        Readiness {
            closed: false,
            idle: false,
            frames_max: 8,
            console_bytes_max: 1,
            timer_entered,
            timer_deadline_ns: Some(10),
        }
    }

    #[test]
    fn the_timer_comes_once_and_the_others_in_turn() {
        let mut taking = Taking::default();
        assert_eq!(taking.next(readiness(false), &mut Flood), Some(EventKind::Timer));
        for _ in 0..3 {
            let frame = taking.next(readiness(true), &mut Flood);
            assert_eq!(frame, Some(EventKind::Frame(vec![1])));
            let typed = taking.next(readiness(true), &mut Flood);
            assert_eq!(typed, Some(EventKind::ConsoleInput(vec![2])), "one byte fits");
        }
    }
}
