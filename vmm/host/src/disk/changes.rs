//! Blocks of an image that may differ from the other side's, kept durably beside it: the file, and
//! [`DiskChanges`], which says what is in it.
//!
//! A block is marked before anything writes it, whoever that is: the guest, or a copy from the
//! holder. Where that is not possible the file is removed before the block is written, and the next
//! join compares everything.

use lockstep_core::machine::disk::Request;
use lockstep_core::replica::disk_changes::{Blocks, Cleared, DiskChanges, JOINED, Layout};
use lockstep_logging_channel::{Generation, Sequence};
use lockstep_process::causes::with_causes;
use lockstep_shared_disk::image::{
    COPY_BLOCK_BYTES, ChangedBlocks, EQUAL_MAX, Equal, Identity, Image, ImageError,
};
use std::io;
use std::ops::Range;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Blocks that are marked together: 1 MiB, so that a file that is written from its beginning costs a
/// sync for each MiB, and what is compared in vain is little.
const REGION_BLOCKS: u64 = 16;
/// Changes between two states at least.
const CHANGES_MIN: u64 = 4096;
/// The same, for each region that was written: at most one write in so many waits for a mark because
/// marks were cleared.
const CHANGES_A_REGION: u64 = 64;
/// A state is recorded by writing all marks: one change at least for so many blocks of the disk,
/// each of them a bit.
const BLOCKS_A_CHANGE: u64 = 64;

/// No state is awaited.
const NONE_AWAITED: u64 = u64::MAX;

/// Marks that a side has.
#[derive(Clone, Debug)]
pub struct Known {
    /// States since which only marked blocks may have been written.
    pub equal: Vec<Equal>,
    /// Those blocks.
    pub blocks: Blocks,
}

/// How this side knows that both sides have a state of the image.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reached {
    /// The other side's log says that this request is done, and it is done here.
    Completed(u64),
    /// The other side has replayed this side's log up to here.
    Replayed(Sequence),
}

/// The marks of an image.
#[derive(Debug)]
pub struct KeptChanges {
    image: PathBuf,
    size_bytes: u64,
    inner: Mutex<Inner>,
    /// Number of the oldest state that waits for the other side: read for each request.
    awaited: AtomicU64,
}

#[derive(Debug)]
struct Inner {
    /// None where everything may have changed.
    file: Option<Arc<ChangedBlocks>>,
    /// The reason for that.
    why: String,
    /// A file that may be there, and says too little.
    is_to_be_removed: bool,
    /// What the file has, and what is being written to it.
    marked: Blocks,
    states: DiskChanges,
    /// The state of the join that the others are counted from.
    join: Equal,
}

impl KeptChanges {
    /// The marks of an `image` that a side of a pair is going to write.
    ///
    /// # Errors
    /// [`ImageError`]: there is a file that cannot be used, and it cannot be removed.
    pub fn open(image: &Image) -> Result<Self, ImageError> {
        let (path, size_bytes) = (image.path(), image.size_bytes());
        let found = match Identity::read(path) {
            Ok(Some(_)) => ChangedBlocks::open(path, size_bytes),
            Ok(None) => Ok(None),
            Err(why) => Err(why),
        };
        let (file, why) = match found {
            Ok(Some(file)) => (Some(Arc::new(file)), String::new()),
            Ok(None) => (None, "there is none".to_owned()),
            Err(why) => (None, with_causes(&why)),
        };
        if file.is_none() {
            // Before anything is written that it does not know of.
            ChangedBlocks::remove(path)?;
        }
        let layout = layout(size_bytes);
        let marks = file.as_ref().map(|file| file.blocks()).unwrap_or_default();
        let inner = Inner {
            file,
            why,
            is_to_be_removed: false,
            marked: Blocks::of(layout.blocks(), marks),
            states: DiskChanges::new(layout),
            join: Equal {
                join: [0; 16],
                number: JOINED,
                generation: Generation(0),
            },
        };
        Ok(Self {
            image: path.to_owned(),
            size_bytes,
            inner: Mutex::new(inner),
            awaited: AtomicU64::new(NONE_AWAITED),
        })
    }

    /// The marks, or the reason why there are none.
    ///
    /// # Errors
    /// The reason.
    pub fn known(&self) -> Result<Known, String> {
        let inner = self.inner();
        let file = inner.file.as_ref().ok_or_else(|| inner.why.clone())?;
        Ok(Known {
            equal: file.equal().to_vec(),
            blocks: inner.marked.clone(),
        })
    }

    /// Marks a range of bytes, which request `number` or, without one, a copy is going to write.
    /// Returns when that is durable.
    ///
    /// # Errors
    /// The system's. The range may not be written.
    pub fn mark(&self, number: Option<u64>, range: &Range<u64>) -> io::Result<()> {
        let (file, blocks) = {
            let mut inner = self.inner();
            self.remove_if_needed(&mut inner)?;
            let blocks = inner.states.mark(number, range);
            inner.marked.insert(blocks.clone());
            (inner.file.clone(), blocks)
        };
        let Some(file) = file else { return Ok(()) };
        match file.mark(blocks) {
            Ok(()) => Ok(()),
            Err(why) => self.forget(&format!("a mark could not be written: {why}")),
        }
    }

    /// From now on everything may have changed.
    ///
    /// # Errors
    /// The system's: the file is still there, and nothing may be written.
    pub fn forget(&self, why: &str) -> io::Result<()> {
        self.forget_locked(&mut self.inner(), why)
    }

    fn forget_locked(&self, inner: &mut Inner, why: &str) -> io::Result<()> {
        if inner.file.take().is_some() {
            tracing::warn!(
                "{}: the next join compares all blocks: {why}",
                self.image.display()
            );
        }
        why.clone_into(&mut inner.why);
        inner.states.alone();
        inner.is_to_be_removed = true;
        self.show(inner);
        self.remove_if_needed(inner)
    }

    fn remove_if_needed(&self, inner: &mut Inner) -> io::Result<()> {
        if inner.is_to_be_removed {
            ChangedBlocks::remove(&self.image).map_err(|why| io::Error::other(with_causes(&why)))?;
            inner.is_to_be_removed = false;
        }
        Ok(())
    }

    /// The guest asks for this, and it is not carried out yet.
    pub fn ask(&self, request: &Request) {
        let inner = &mut *self.inner();
        inner.states.ask(request);
        if inner.states.is_given_up() {
            // Where it cannot be removed now, it is before the next block is written.
            let _ = self.forget_locked(inner, "the backup is too far behind");
        }
        self.show(inner);
    }

    /// There is no peer any more.
    pub fn alone(&self) {
        let inner = &mut *self.inner();
        inner.states.alone();
        self.show(inner);
    }

    /// The image is what the newcomer's becomes: nothing is being carried out, and `outstanding` is
    /// what was asked for.
    pub fn join<'a>(&self, outstanding: impl IntoIterator<Item = &'a Request>) {
        let inner = &mut *self.inner();
        inner.states.join(outstanding);
        self.show(inner);
    }

    /// Records the state of that join, of which the image has everything durably, beside the
    /// `common` ones that the newcomer has too. Gives it, unless there are no marks since.
    pub fn record_join(&self, join: [u8; 16], generation: Generation, common: &[Equal]) -> Option<Equal> {
        let inner = &mut *self.inner();
        let since = inner.states.since_join()?.clone();
        let state = Equal {
            join,
            number: JOINED,
            generation,
        };
        let common: Vec<Equal> = match &inner.file {
            Some(file) => file
                .equal()
                .iter()
                .copied()
                .filter(|equal| common.contains(equal))
                .collect(),
            None => Vec::new(),
        };
        if common.is_empty() {
            inner.marked = since;
        }
        let equal: Vec<Equal> = common.into_iter().take(EQUAL_MAX - 1).chain([state]).collect();
        inner.join = state;
        self.begin(inner, &equal).then_some(())?;
        inner.states.recorded(JOINED);
        Some(state)
    }

    /// The newcomer has recorded it too: older marks are cleared.
    pub fn joined(&self) {
        self.clear(DiskChanges::joined);
    }

    /// At the newcomer: the image has become the holder's in this state, durably.
    ///
    /// # Errors
    /// The system's: nothing may be written.
    pub fn begin_equal(&self, state: Equal) -> io::Result<()> {
        let inner = &mut *self.inner();
        inner.states.join([]);
        inner.states.recorded(JOINED);
        let _ = inner.states.joined();
        inner.marked = Blocks::new(layout(self.size_bytes).blocks());
        inner.join = state;
        self.begin(inner, &[state]);
        self.show(inner);
        self.remove_if_needed(inner)
    }

    /// Request `number`, a flush, is done here. Where that is a state it is recorded.
    ///
    /// # Errors
    /// As [`KeptChanges::forget`].
    pub fn flushed(&self, number: u64) -> io::Result<()> {
        let inner = &mut *self.inner();
        let Some(state) = inner.states.reached_by(number) else {
            return Ok(());
        };
        let Some(file) = inner.file.clone() else {
            return Ok(());
        };
        let state = Equal {
            number: state,
            ..inner.join
        };
        if file.equal().len() >= EQUAL_MAX {
            return self.forget_locked(inner, "the backup is too far behind");
        }
        let equal: Vec<Equal> = file.equal().iter().copied().chain([state]).collect();
        if self.begin(inner, &equal) {
            inner.states.recorded(state.number);
        }
        self.remove_if_needed(inner)
    }

    /// True where [`KeptChanges::logged`] and [`KeptChanges::both_have`] wait for this request.
    #[must_use]
    pub fn awaits(&self, number: u64) -> bool {
        self.awaited.load(Ordering::Acquire) <= number.saturating_add(1)
            && self.inner().states.reached_by(number).is_some()
    }

    /// True where a state waits for the other side.
    #[must_use]
    pub fn is_awaited(&self) -> bool {
        self.awaited.load(Ordering::Acquire) != NONE_AWAITED
    }

    /// This side's log says, at `sequence`, that request `number` is done.
    pub fn logged(&self, number: u64, sequence: Sequence) {
        self.inner().states.logged(number, sequence);
    }

    /// Both sides have a state, and those of before.
    pub fn both_have(&self, reached: Reached) {
        match reached {
            Reached::Completed(number) => self.clear(|states| states.completed(number)),
            Reached::Replayed(through) => self.clear(|states| states.replayed(through)),
        }
    }

    /// Both sides have a state: older ones, and the marks of before, are cleared.
    fn clear(&self, both_have: impl FnOnce(&mut DiskChanges) -> Option<Cleared>) {
        let inner = &mut *self.inner();
        let cleared = both_have(&mut inner.states);
        if let (Some(Cleared { number, blocks }), Some(file)) = (cleared, inner.file.clone()) {
            let join = inner.join.join;
            let equal = file.equal().iter().copied();
            let left: Vec<Equal> = equal
                .filter(|equal| equal.join == join && equal.number >= number)
                .collect();
            inner.marked = blocks;
            self.begin(inner, &left);
        }
        self.show(inner);
    }

    /// Writes the file anew, with these states and all marks. Where that fails there is none.
    fn begin(&self, inner: &mut Inner, equal: &[Equal]) -> bool {
        let blocks = inner.marked.ranges();
        match ChangedBlocks::begin(&self.image, self.size_bytes, equal, &blocks) {
            Ok(file) => {
                inner.file = Some(Arc::new(file));
                (inner.is_to_be_removed, inner.why) = (false, String::new());
                true
            }
            Err(why) => {
                // Where it cannot be removed now, it is before the next block is written.
                let _ = self.forget_locked(inner, &with_causes(&why));
                false
            }
        }
    }

    fn show(&self, inner: &Inner) {
        let awaited = inner.states.awaited().unwrap_or(NONE_AWAITED);
        self.awaited.store(awaited, Ordering::Release);
    }

    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn layout(size_bytes: u64) -> Layout {
    Layout {
        size_bytes,
        block_bytes: COPY_BLOCK_BYTES,
        region_blocks: REGION_BLOCKS,
        changes_min: CHANGES_MIN.max(size_bytes / COPY_BLOCK_BYTES / BLOCKS_A_CHANGE),
        changes_a_region: CHANGES_A_REGION,
    }
}

#[cfg(test)]
mod tests;
