//! What a side keeps beside its image: states that it has in common with the other side, and blocks
//! that may have been written since. What is in them is the real code's; the file is a fake that is
//! replaced at once, and survives a loss of power.

use std::cell::RefCell;
use std::ops::Range;
use std::rc::Rc;

use lockstep_core::machine::disk::Request;
use lockstep_core::replica::disk_changes::{Blocks, Cleared, DiskChanges, JOINED, Layout};
use lockstep_logging_channel::Sequence;

use super::disk::{BLOCK_BYTES, BLOCKS};

/// A state: the process whose join it counts from, and its number.
pub type State = (u32, u64);

/// Every block counts for itself, and every second change makes a flush a state.
const LAYOUT: Layout = Layout {
    size_bytes: (BLOCKS * BLOCK_BYTES) as u64,
    block_bytes: BLOCK_BYTES as u64,
    region_blocks: 1,
    changes_min: 2,
    changes_a_region: 0,
};

/// The file.
#[derive(Clone, Debug)]
pub struct Beside {
    /// States since which only marked blocks may have been written.
    pub states: Vec<State>,
    /// Those blocks.
    pub blocks: Blocks,
}

/// Where the file is, if there is one.
pub type BesidePlace = Rc<RefCell<Option<Beside>>>;

/// No block.
fn blocks() -> Blocks {
    Blocks::new(BLOCKS as u64)
}

/// The file of an image that has become equal to another by the join of `process`.
#[must_use]
pub fn begun(process: u32) -> BesidePlace {
    Rc::new(RefCell::new(Some(Beside {
        states: vec![(process, JOINED)],
        blocks: blocks(),
    })))
}

/// The marks of a process.
#[derive(Debug)]
pub struct Marks {
    file: BesidePlace,
    marked: Blocks,
    changes: DiskChanges,
    join: u32,
}

impl Marks {
    /// Those of a side whose image has just become equal to the other's.
    #[must_use]
    pub fn new(file: BesidePlace, outstanding: &[Request]) -> Self {
        let (join, marked) = match &*file.borrow() {
            Some(Beside { states, blocks }) => {
                let last = states.last().map_or(0, |(join, _)| *join);
                (last, blocks.clone())
            }
            None => (0, blocks()),
        };
        let mut changes = DiskChanges::new(LAYOUT);
        changes.join(outstanding);
        changes.recorded(JOINED);
        let _ = changes.joined();
        Self {
            file,
            marked,
            changes,
            join,
        }
    }

    /// The guest asks for this.
    pub fn ask(&mut self, request: &Request) {
        self.changes.ask(request);
        if self.changes.is_given_up() {
            self.forget();
        }
    }

    /// Marks what a request is going to write.
    pub fn mark(&mut self, number: u64, bytes: &Range<u64>) {
        let blocks = self.changes.mark(Some(number), bytes);
        self.marked.insert(blocks.clone());
        if let Some(file) = &mut *self.file.borrow_mut() {
            file.blocks.insert(blocks);
        }
    }

    /// A flush is done.
    pub fn flushed(&mut self, number: u64) {
        let Some(state) = self.changes.reached_by(number) else {
            return;
        };
        if let Some(file) = &mut *self.file.borrow_mut() {
            file.states.push((self.join, state));
            file.blocks = self.marked.clone();
            self.changes.recorded(state);
        }
    }

    /// The log of this side says that a request is done.
    pub fn logged(&mut self, number: u64, sequence: Sequence) {
        self.changes.logged(number, sequence);
    }

    /// The backup has replayed the log of this side up to here.
    pub fn replayed(&mut self, through: Sequence) {
        let cleared = self.changes.replayed(through);
        self.clear(cleared);
    }

    /// The log of the other side says that a request is done, which is done here too.
    pub fn completed(&mut self, number: u64) {
        let cleared = self.changes.completed(number);
        self.clear(cleared);
    }

    fn clear(&mut self, cleared: Option<Cleared>) {
        let (Some(Cleared { number, blocks }), Some(file)) = (cleared, &mut *self.file.borrow_mut()) else {
            return;
        };
        let join = self.join;
        file.states.retain(|(of, state)| *of == join && *state >= number);
        self.marked = blocks.clone();
        file.blocks = blocks;
    }

    /// There is no peer any more.
    pub fn alone(&mut self) {
        self.changes.alone();
    }

    /// All may have changed.
    pub fn forget(&mut self) {
        self.changes.alone();
        *self.file.borrow_mut() = None;
    }

    /// The image is as the newcomer's becomes. Gives what is known of it.
    pub fn captured<'a>(&mut self, outstanding: impl Iterator<Item = &'a Request>) -> Option<Beside> {
        self.changes.join(outstanding);
        let file = self.file.borrow();
        file.as_ref().map(|file| Beside {
            states: file.states.clone(),
            blocks: self.marked.clone(),
        })
    }

    /// Records the state of a join beside those that the newcomer has too.
    pub fn record_join(&mut self, process: u32, theirs: &[State]) {
        let Some(since) = self.changes.since_join().cloned() else {
            return;
        };
        let mut states = self.file.borrow().as_ref().map_or(Vec::new(), |file| {
            let common = file.states.iter().filter(|state| theirs.contains(state));
            common.copied().collect()
        });
        if states.is_empty() {
            self.marked = since;
        }
        states.push((process, JOINED));
        self.join = process;
        let blocks = self.marked.clone();
        *self.file.borrow_mut() = Some(Beside { states, blocks });
        self.changes.recorded(JOINED);
    }

    /// The newcomer has recorded it too.
    pub fn joined(&mut self) {
        let cleared = self.changes.joined();
        self.clear(cleared);
    }
}
