//! Which blocks of a disk's image may differ from the other side's.
//!
//! Each side has, durably beside its image, the states in which both images were equal, and the
//! blocks that it may have written since. Where both sides know the same state, their images differ
//! in blocks that one of them has marked, and nowhere else: so a mark is made before the block is
//! written, and a state becomes older marks' end only when both sides have it.
//!
//! ```text
//!   join ----------------- flush -------------- flush --------------> requests
//!    |  state 0              |  state number + 1   |
//!    |  marks since it       |  marks of what was asked behind it
//!    both have it: older marks are cleared
//! ```
//!
//! The first state is that of a join. Later ones are flushes of the guest, which both sides choose
//! by the requests before them. When such a flush is done on a side, everything before it is
//! durable there; the side records the state beside the others, and then reports the flush as done.
//! The log tells the backup that the primary has it; that the backup has replayed that entry tells
//! the primary. Then the side keeps the marks of what was asked for behind the flush, and no others.
//!
//! Pure: who keeps the marks, and where, is for the caller.

use super::mutant::{self, Mutant};
use crate::machine::disk::{Operation, Request};
use lockstep_logging_channel::Sequence;
use std::collections::VecDeque;
use std::ops::Range;

mod blocks;
#[cfg(test)]
mod tests;

pub use blocks::Blocks;

/// Number of the state of a join.
pub const JOINED: u64 = 0;

/// States that may wait for the other side at most. A backup that is so far behind is given a whole
/// comparison when it joins again.
pub const STATES_MAX: usize = 6;

/// Part of carrying out a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// Its blocks are marked, durably.
    Mark,
    /// It is done.
    Change,
}

/// The parts of a change, in order.
#[must_use]
pub fn parts() -> [Part; 2] {
    if mutant::is(Mutant::MarkBehindTheWrite) {
        return [Part::Change, Part::Mark];
    }
    [Part::Mark, Part::Change]
}

/// Blocks in which two images may differ: all where `None`. `one` and `other` are the states that
/// each side has, with the blocks that it has marked.
#[must_use]
pub fn may_differ<S: PartialEq>(one: (&[S], &Blocks), other: (&[S], &Blocks)) -> Option<Blocks> {
    let ((states, marked), (others, also_marked)) = (one, other);
    let has_common = states.iter().any(|state| others.contains(state));
    let mut blocks = marked.clone();
    blocks.add(also_marked);
    has_common.then_some(blocks)
}

/// Sizes of a disk's marks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    /// Bytes of the disk.
    pub size_bytes: u64,
    /// Bytes of a block.
    pub block_bytes: u64,
    /// Blocks that are marked together: a mark costs a sync, and writes are often beside each
    /// other.
    pub region_blocks: u64,
    /// Changes after which a flush becomes a state, at least.
    pub changes_min: u64,
    /// The same, for each region that was changed since the last: what it costs to mark them again
    /// is a small part of the changes.
    pub changes_a_region: u64,
}

impl Layout {
    /// Blocks of the disk.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        self.size_bytes.div_ceil(self.block_bytes)
    }

    /// Blocks that are marked before a range of bytes is written.
    #[must_use]
    pub fn marked(&self, bytes: &Range<u64>) -> Range<u64> {
        let region_bytes = self.block_bytes * self.region_blocks;
        let first = bytes.start / region_bytes * self.region_blocks;
        let end = bytes
            .end
            .div_ceil(region_bytes)
            .saturating_mul(self.region_blocks);
        let end = end.min(self.blocks());
        if bytes.is_empty() {
            return first..first;
        }
        if mutant::is(Mutant::MarkOneBlockShort) {
            return first..end.saturating_sub(1);
        }
        first..end
    }
}

/// A state that not both sides are known to have.
#[derive(Clone, Debug, PartialEq, Eq)]
struct State {
    number: u64,
    /// This side has recorded it.
    recorded: bool,
    /// The entry that says that its flush is done.
    logged: Option<Sequence>,
    /// Blocks of what was asked for behind it and carried out.
    since: Blocks,
}

/// What was asked for since the last state.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Counted {
    changes: u64,
    touched: Blocks,
}

/// Marks that are left when both sides have a state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cleared {
    /// The state.
    pub number: u64,
    /// Blocks that may have been written since.
    pub blocks: Blocks,
}

/// States of a disk whose image has a peer, or is to have one. Both sides are asked the same
/// requests, and choose the same states.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DiskChanges {
    layout: Layout,
    /// In the order of their numbers.
    states: VecDeque<State>,
    /// None without a peer: no state is chosen.
    counted: Option<Counted>,
    is_given_up: bool,
}

impl DiskChanges {
    /// A disk whose image has no peer.
    #[must_use]
    pub fn new(layout: Layout) -> Self {
        Self {
            layout,
            states: VecDeque::new(),
            counted: None,
            is_given_up: false,
        }
    }

    /// The images become equal by a join: they are in this moment, in which nothing is carried out,
    /// and `outstanding` is what was asked for and is not done.
    pub fn join<'a>(&mut self, outstanding: impl IntoIterator<Item = &'a Request>) {
        let counted = self.nothing();
        self.states = VecDeque::from([self.state(JOINED)]);
        (self.counted, self.is_given_up) = (Some(counted), false);
        for request in outstanding {
            self.ask(request);
        }
    }

    /// There is no peer any more: nothing is cleared.
    pub fn alone(&mut self) {
        self.states.clear();
        self.counted = None;
    }

    /// The guest asks for this. To be told in the order of numbers, before it is carried out.
    pub fn ask(&mut self, request: &Request) {
        let layout = self.layout;
        let Some(counted) = &mut self.counted else { return };
        if let Some(range) = changed(&request.operation) {
            counted.changes += 1;
            counted.touched.insert(layout.marked(&range));
        }
        let regions = counted.touched.len().div_ceil(layout.region_blocks);
        let enough = layout
            .changes_min
            .max(regions.saturating_mul(layout.changes_a_region));
        if request.operation != Operation::Flush || counted.changes < enough {
            return;
        }
        self.counted = Some(self.nothing());
        if self.states.len() >= STATES_MAX {
            self.alone();
            self.is_given_up = true;
            return;
        }
        self.states.push_back(self.state(request.number + 1));
    }

    /// True once, where the other side is too many states behind: the other side may take for
    /// recorded here what is not, and the marks are of no use.
    pub fn is_given_up(&mut self) -> bool {
        std::mem::take(&mut self.is_given_up)
    }

    /// Request `number` is going to change this range; without a number it is a copy. Gives the
    /// blocks that have to be marked.
    pub fn mark(&mut self, number: Option<u64>, range: &Range<u64>) -> Range<u64> {
        let blocks = self.layout.marked(range);
        for state in &mut self.states {
            let is_behind = number.is_none_or(|number| number >= state.number);
            if is_behind && (state.recorded || !mutant::is(Mutant::ClearWhatFollows)) {
                state.since.insert(blocks.clone());
            }
        }
        blocks
    }

    /// The state that is reached when request `number` is done, if it is one.
    #[must_use]
    pub fn reached_by(&self, number: u64) -> Option<u64> {
        let mut states = self.states.iter().map(|state| state.number);
        states.find(|state| *state == number + 1)
    }

    /// This side has everything before a state durably, and has recorded that.
    pub fn recorded(&mut self, number: u64) {
        let states = self.states.iter_mut();
        states
            .filter(|state| state.number == number)
            .for_each(|state| state.recorded = true);
    }

    /// The log of this side says, at `sequence`, that request `number` is done.
    pub fn logged(&mut self, number: u64, sequence: Sequence) {
        let states = self.states.iter_mut();
        states
            .filter(|state| state.number == number + 1)
            .for_each(|state| state.logged = Some(sequence));
    }

    /// The backup has replayed the log of this side up to here.
    pub fn replayed(&mut self, through: Sequence) -> Option<Cleared> {
        let is_there = |state: &State| state.logged.is_some_and(|sequence| sequence <= through);
        self.clear(is_there)
    }

    /// The log of the other side says that request `number` is done there, and it is done here.
    pub fn completed(&mut self, number: u64) -> Option<Cleared> {
        self.clear(|state| state.number == number + 1)
    }

    /// Blocks of what was carried out since the join, where its state waits for the other side.
    #[must_use]
    pub fn since_join(&self) -> Option<&Blocks> {
        let first = self.states.front().filter(|state| state.number == JOINED)?;
        Some(&first.since)
    }

    /// The oldest state that waits for the other side.
    #[must_use]
    pub fn awaited(&self) -> Option<u64> {
        self.states.front().map(|state| state.number)
    }

    /// The newcomer has recorded the state of its join.
    pub fn joined(&mut self) -> Option<Cleared> {
        self.clear(|state| state.number == JOINED)
    }

    /// Forgets the last state that the other side `has` and everything before it. Gives the marks
    /// since then.
    fn clear(&mut self, has: impl Fn(&State) -> bool) -> Option<Cleared> {
        let last = self
            .states
            .iter()
            .rposition(|state| state.recorded && has(state))?;
        let State { number, since, .. } = self.states.drain(..=last).next_back()?;
        Some(Cleared {
            number,
            blocks: since,
        })
    }

    fn nothing(&self) -> Counted {
        Counted {
            changes: 0,
            touched: Blocks::new(self.layout.blocks()),
        }
    }

    fn state(&self, number: u64) -> State {
        State {
            number,
            recorded: false,
            logged: None,
            since: Blocks::new(self.layout.blocks()),
        }
    }
}

/// Bytes that an operation changes, if it changes some.
#[must_use]
pub fn changed(operation: &Operation) -> Option<Range<u64>> {
    let range = operation.range().filter(|range| !range.is_empty());
    range.filter(|_| operation.changes())
}
