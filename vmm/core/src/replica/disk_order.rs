//! The requests of one disk, and which of them may begin now.
//!
//! ```text
//!           ask              start                done                completed / replayed
//!   guest ------> [ waits ] ------> [ is begun ] ------> [ is done ] ---------------------> enters the guest
//!                    ^  may it leave? is it in another's way?
//!                    +-- release: its number came out of the gate
//! ```
//!
//! Requests that touch the same bytes, one of which changes them, never pass each other. A flush
//! begins when every change that was asked for before it is done; nothing waits for a flush. Where
//! two machines share the disk, changes and flushes leave only when the gate lets them go, and who
//! does not act begins nothing at all.
//!
//! Pure: who carries a request out, and how, is the caller's business.

use super::mutant::{self, Mutant};
use super::replayer::OwnRead;
use crate::machine::disk::{Operation, Request};
use lockstep_logging_channel::{Completion, ReadData};
use std::collections::VecDeque;
use std::ops::Range;

/// Whose a disk is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Held {
    /// This machine's own: the other one has another image.
    Alone,
    /// This machine's and another's. Nobody but who acts touches it.
    Shared,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Stage {
    Waits,
    Begun,
    Done(ReadData),
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Asked {
    request: Request,
    may_leave: bool,
    stage: Stage,
}

/// Requests of a disk that have not entered the guest as done, at most
/// [`IN_FLIGHT_MAX`](crate::machine::disk::IN_FLIGHT_MAX): its device asks for no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskOrder {
    held: Held,
    acts: bool,
    /// Requests with smaller numbers are known.
    next: u64,
    /// In the order of their numbers.
    asked: VecDeque<Asked>,
}

impl DiskOrder {
    /// Nothing was asked for. `acts`: the machine is live; one that is not touches a disk only where
    /// that is its own.
    #[must_use]
    pub fn new(held: Held, acts: bool) -> Self {
        Self {
            held,
            acts,
            next: 0,
            asked: VecDeque::new(),
        }
    }

    /// Takes a request. One whose number is known is the same one, asked for again.
    pub fn ask(&mut self, request: Request) {
        if request.number < self.next {
            return;
        }
        self.next = request.number + 1;
        let may_leave = self.held == Held::Alone || !request.operation.leaves();
        self.asked.push_back(Asked {
            request,
            may_leave,
            stage: Stage::Waits,
        });
    }

    /// The gate has let go this request, and all before it.
    pub fn release(&mut self, number: u64) {
        for asked in &mut self.asked {
            asked.may_leave |= asked.request.number <= number;
        }
    }

    /// The machine goes live: nobody else acts, and all that is not done was to be done.
    pub fn go_live(&mut self) {
        self.acts = true;
        for asked in &mut self.asked {
            asked.may_leave = true;
        }
        if mutant::is(Mutant::ReissueBackwards) {
            self.asked.make_contiguous().reverse();
        }
    }

    /// The next request that may begin, which is begun then.
    pub fn start(&mut self) -> Option<Request> {
        if self.held == Held::Shared && !self.acts && !mutant::is(Mutant::TouchBeforeTheClaim) {
            return None;
        }
        let index = (0..self.asked.len()).find(|index| self.may_begin(*index))?;
        let asked = self.asked.get_mut(index)?;
        asked.stage = Stage::Begun;
        Some(asked.request.clone())
    }

    fn may_begin(&self, index: usize) -> bool {
        let Some(asked) = self.asked.get(index) else {
            return false;
        };
        let before = self.asked.iter().take(index);
        let mut undone = before.filter(|other| !matches!(other.stage, Stage::Done(_)));
        asked.stage == Stage::Waits
            && asked.may_leave
            && !undone.any(|other| precedes(&other.request.operation, &asked.request.operation))
    }

    /// A request that was begun is done; `read` has what it has read. True where it was not known
    /// yet.
    pub fn done(&mut self, number: u64, read: ReadData) -> bool {
        let mut asked = self.asked.iter_mut();
        let found = asked.find(|asked| asked.request.number == number && asked.stage == Stage::Begun);
        let was_begun = found.is_some();
        if let Some(asked) = found {
            asked.stage = Stage::Done(read);
        }
        was_begun
    }

    /// True where this request is done.
    #[must_use]
    pub fn is_done(&self, number: u64) -> bool {
        let found = self.asked.iter().find(|asked| asked.request.number == number);
        found.is_some_and(|asked| matches!(asked.stage, Stage::Done(_)))
    }

    /// The oldest request that is done, to enter a live machine.
    pub fn completed(&mut self) -> Option<Completion> {
        if mutant::is(Mutant::CompleteBeforeTheWrite) {
            self.complete_early();
        }
        let is_done = |asked: &Asked| matches!(asked.stage, Stage::Done(_));
        let index = self.asked.iter().position(is_done)?;
        let Asked { request, stage, .. } = self.asked.remove(index)?;
        let read = match stage {
            Stage::Done(read) => read,
            Stage::Waits | Stage::Begun => ReadData::Nothing,
        };
        Some(Completion {
            number: request.number,
            read,
        })
    }

    /// True where [`DiskOrder::completed`] has something.
    #[must_use]
    pub fn has_completed(&self) -> bool {
        let mut asked = self.asked.iter();
        asked.any(|asked| matches!(asked.stage, Stage::Done(_)))
    }

    /// The log says that this request is done here: it is forgotten, and what one's own disk has
    /// read is given. To be asked for where [`DiskOrder::is_done`], unless the disk is shared.
    pub fn replayed(&mut self, number: u64) -> Option<OwnRead> {
        let index = self
            .asked
            .iter()
            .position(|asked| asked.request.number == number)?;
        let Asked { request, stage, .. } = self.asked.remove(index)?;
        match (stage, request.operation) {
            (Stage::Done(ReadData::Bytes(bytes)), Operation::Read { offset_bytes, .. }) => {
                Some(OwnRead { offset_bytes, bytes })
            }
            _ => None,
        }
    }

    /// Requests that are not done.
    pub fn outstanding(&self) -> impl Iterator<Item = &Request> {
        let asked = self.asked.iter();
        asked
            .filter(|asked| !matches!(asked.stage, Stage::Done(_)))
            .map(|asked| &asked.request)
    }

    /// Requests that are begun and not done.
    pub fn begun(&self) -> impl Iterator<Item = &Request> {
        let begun = self.asked.iter().filter(|asked| asked.stage == Stage::Begun);
        begun.map(|asked| &asked.request)
    }

    /// True where every request is done.
    #[must_use]
    pub fn is_idle(&self) -> bool {
        let mut asked = self.asked.iter();
        asked.all(|asked| matches!(asked.stage, Stage::Done(_)))
    }

    /// A deliberate defect: changes that wait count as done.
    fn complete_early(&mut self) {
        for asked in &mut self.asked {
            if asked.request.operation.changes() && asked.stage == Stage::Begun {
                asked.stage = Stage::Done(ReadData::Nothing);
            }
        }
    }
}

/// True where `later`, asked for after `earlier`, has to wait until that is done.
fn precedes(earlier: &Operation, later: &Operation) -> bool {
    match (earlier.range(), later.range()) {
        (_, None) => earlier.changes() && !mutant::is(Mutant::FlushAtOnce),
        (None, Some(_)) => false,
        (Some(one), Some(other)) => (earlier.changes() || later.changes()) && overlap(&one, &other),
    }
}

fn overlap(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.start < other.end && other.start < one.end
}

#[cfg(test)]
mod tests;
