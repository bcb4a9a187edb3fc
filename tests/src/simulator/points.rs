//! Points at which a process can die or stand still: before, halfway through and after each action
//! of a replica, and where it lets out what was released.

use std::fmt;

use lockstep_core::replica::driving::carrying::Next;
use lockstep_core::replica::role::Action;
use lockstep_logging_channel::Message;

/// Step of a loop, whatever it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "named as the actions are, but for the last")]
pub enum Step {
    Send,
    SendEntries,
    Disconnect,
    Deliver,
    Advance,
    Release,
    Claim,
    Announce,
    GoLive,
    Throttle,
    WakeAt,
    Report,
    Halt,
    LetOut,
    Stand,
    Handover,
}

impl Step {
    /// Of [`Step::ALL`], the first that a pair passes without being asked to switch over.
    pub const UNASKED: u64 = 14;

    /// All of them.
    pub const ALL: [Self; 16] = [
        Self::Send,
        Self::SendEntries,
        Self::Disconnect,
        Self::Deliver,
        Self::Advance,
        Self::Release,
        Self::Claim,
        Self::Announce,
        Self::GoLive,
        Self::Throttle,
        Self::WakeAt,
        Self::Report,
        Self::Halt,
        Self::LetOut,
        Self::Stand,
        Self::Handover,
    ];

    /// The step that is next. A new kind of action does not compile until it has one.
    #[must_use]
    pub fn of(next: &Next<'_>) -> Self {
        let action = match next {
            Next::Act(action) => action,
            Next::LetOut => return Self::LetOut,
        };
        match action {
            Action::Send(Message::Handover(_)) => Self::Handover,
            Action::Send(_) => Self::Send,
            Action::SendEntries(_) => Self::SendEntries,
            Action::Disconnect => Self::Disconnect,
            Action::Deliver(_) => Self::Deliver,
            Action::Advance { .. } => Self::Advance,
            Action::Release { .. } => Self::Release,
            Action::Claim { .. } => Self::Claim,
            Action::Announce { .. } => Self::Announce,
            Action::GoLive { .. } => Self::GoLive,
            Action::Throttle(_) => Self::Throttle,
            Action::Stand(_) => Self::Stand,
            Action::WakeAt { .. } => Self::WakeAt,
            Action::Report(_) => Self::Report,
            Action::Halt(_) => Self::Halt,
        }
    }
}

/// When, in an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// It was asked for, and nothing of it is done.
    Before,
    /// Half of the bytes have left; or the claim has found its generation free and has not taken
    /// it.
    Halfway,
    /// It is done, and the next is not begun.
    After,
}

impl Moment {
    const ALL: [Self; 3] = [Self::Before, Self::Halfway, Self::After];
}

/// What happens to the process there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blow {
    /// It dies.
    Dies,
    /// It stands still.
    Stops,
}

/// A blow at a moment of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Point {
    /// What happens.
    pub blow: Blow,
    /// In which action.
    pub step: Step,
    /// When in it.
    pub moment: Moment,
}

impl Point {
    /// Every point there is. A step that is over at once has no middle, and after its end a process
    /// does nothing.
    pub fn all() -> impl Iterator<Item = Self> {
        let of_step = |(blow, step)| Moment::ALL.map(|moment| Self { blow, step, moment });
        let steps = [Blow::Dies, Blow::Stops]
            .into_iter()
            .flat_map(|blow| Step::ALL.map(|step| (blow, step)));
        steps.flat_map(of_step).filter(|point| point.exists())
    }

    /// Whether a process can be struck there.
    #[must_use]
    pub fn exists(self) -> bool {
        match self.moment {
            Moment::Before => true,
            Moment::Halfway => matches!(
                self.step,
                Step::Send | Step::SendEntries | Step::Handover | Step::Claim
            ),
            Moment::After => self.step != Step::Halt,
        }
    }

    /// Its number among all thinkable.
    #[must_use]
    pub fn number(self) -> u32 {
        let steps = Step::ALL.len() * Moment::ALL.len();
        (self.blow as usize * steps + self.step as usize * Moment::ALL.len() + self.moment as usize) as u32
    }
}

impl fmt::Display for Point {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let blow = match self.blow {
            Blow::Dies => "died",
            Blow::Stops => "stood still",
        };
        let moment = match self.moment {
            Moment::Before => "before",
            Moment::Halfway => "halfway through",
            Moment::After => "after",
        };
        write!(formatter, "a process {blow} {moment} {:?}", self.step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn points_have_numbers_of_their_own() {
        let mut numbers: Vec<_> = Point::all().map(Point::number).collect();
        let count = numbers.len();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), count);
        assert!(numbers.iter().all(|number| *number < u128::BITS));
    }
}
