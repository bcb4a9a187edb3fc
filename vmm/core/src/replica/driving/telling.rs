//! Order in which a role machine is told of its vCPU: what the vCPU said first is heard before what
//! follows from it.

use crate::replica::cpu::{FROM_CPU_WAITING_MAX, FromCpu};
use crate::replica::mutant::{self, Mutant};
use crate::replica::role::Input;

/// A replica loop, with what its vCPU has said.
pub trait Hearing {
    /// Error that ends the loop.
    type Error;

    /// The next message of the vCPU that waits, if one does.
    fn waiting(&mut self) -> Option<FromCpu>;

    /// Exits that a live vCPU has passed; none where it is not live.
    fn passed_exits(&self) -> Option<u64>;

    /// Tells the role machine.
    ///
    /// # Errors
    /// Its actions cannot be carried out.
    fn tell(&mut self, told: FromCpu) -> Result<(), Self::Error>;
}

/// Tells a message of the vCPU, and what waits behind it.
///
/// # Errors
/// As [`Hearing::tell`].
pub fn said<H: Hearing>(hearing: &mut H, first: FromCpu) -> Result<(), H::Error> {
    hearing.tell(first)?;
    all_waiting(hearing)
}

/// Tells the time, and before it how far a live vCPU has come, so that an idle backup may follow.
///
/// # Errors
/// As [`Hearing::tell`].
pub fn woken<H: Hearing>(hearing: &mut H) -> Result<(), H::Error> {
    // First the count, then everything that was said before it: only then is it true.
    if let Some(exits) = hearing.passed_exits() {
        if !mutant::is(Mutant::CountBeforeEntries) {
            all_waiting(hearing)?;
        }
        hearing.tell(Input::Ran { exits })?;
    }
    hearing.tell(Input::Wake)
}

/// Tells that the guest has ended, and before it what the vCPU logged last.
///
/// # Errors
/// As [`Hearing::tell`].
pub fn ended<H: Hearing>(hearing: &mut H, end: FromCpu) -> Result<(), H::Error> {
    if !mutant::is(Mutant::EndBeforeEntries) {
        all_waiting(hearing)?;
    }
    hearing.tell(end)
}

/// Tells what waits, at most what the queue holds: a vCPU that goes on filling it does not
/// keep the loop here.
///
/// # Errors
/// As [`Hearing::tell`].
pub fn all_waiting<H: Hearing>(hearing: &mut H) -> Result<(), H::Error> {
    for _ in 0..FROM_CPU_WAITING_MAX {
        let Some(message) = hearing.waiting() else {
            break;
        };
        hearing.tell(message)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::VecDeque;
    use std::convert::Infallible;

    /// A loop whose vCPU says so many things, numbered by the exits of each.
    struct Heard {
        waiting: VecDeque<u64>,
        passed_exits: Option<u64>,
        told: Vec<String>,
        /// Something is said whenever something was taken.
        endless: bool,
    }

    impl Heard {
        fn new(waiting: impl IntoIterator<Item = u64>, passed_exits: Option<u64>) -> Self {
            Self {
                waiting: waiting.into_iter().collect(),
                passed_exits,
                told: Vec::new(),
                endless: false,
            }
        }
    }

    impl Hearing for Heard {
        type Error = Infallible;

        fn waiting(&mut self) -> Option<FromCpu> {
            let exits = self.waiting.pop_front()?;
            if self.endless {
                self.waiting.push_back(exits);
            }
            Some(Input::Ran { exits })
        }

        fn passed_exits(&self) -> Option<u64> {
            self.passed_exits
        }

        fn tell(&mut self, told: FromCpu) -> Result<(), Infallible> {
            self.told.push(match told {
                Input::Ran { exits } => exits.to_string(),
                Input::Wake => "wake".to_owned(),
                Input::StopRequested => "end".to_owned(),
                _ => "other".to_owned(),
            });
            Ok(())
        }
    }

    #[test]
    fn a_count_is_told_behind_what_was_said_before_it() {
        let mut live = Heard::new([1, 2], Some(9));
        woken(&mut live).unwrap();
        assert_eq!(live.told, ["1", "2", "9", "wake"]);
        let mut replays = Heard::new([1, 2], None);
        woken(&mut replays).unwrap();
        assert_eq!(replays.told, ["wake"]);
    }

    #[test]
    fn the_end_is_told_behind_everything() {
        let mut hearing = Heard::new([1, 2], Some(9));
        ended(&mut hearing, Input::StopRequested).unwrap();
        assert_eq!(hearing.told, ["1", "2", "end"]);
    }

    #[test]
    fn a_vcpu_that_goes_on_keeps_the_loop_for_one_queue_only() {
        let mut hearing = Heard::new([1], Some(9));
        hearing.endless = true;
        said(&mut hearing, Input::Ran { exits: 0 }).unwrap();
        assert_eq!(hearing.told.len(), 1 + FROM_CPU_WAITING_MAX);
    }
}
