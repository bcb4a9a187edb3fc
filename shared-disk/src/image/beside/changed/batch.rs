//! Which bits are durable, and which are to be written next. A function of its inputs: whoever has
//! the file carries out what it asks for.
//!
//! ```text
//! want(blocks)   the blocks are to be marked
//! start()        pages to write and sync now; none while others are being written
//! done(worked)   they are durable, or have to be written again
//! ```
//!
//! Bits are only ever set, so a page of which a part was written when the power went has every bit
//! that it had, and some new ones. A block may be written once its bit is durable, and not before:
//! wherever the host stops, a block that was written has its bit.

use super::bits::Bits;
use std::collections::BTreeSet;
use std::ops::Range;

/// A page that is to be written: its number and content.
pub(super) type Page = (usize, Vec<u8>);

/// Bits that are wanted, and bits that are durable.
#[derive(Debug)]
pub(super) struct Batch {
    wanted: Bits,
    durable: Bits,
    /// Pages with bits that are wanted and not being written.
    dirty: BTreeSet<usize>,
    /// Pages that are being written.
    writing: Option<Vec<Page>>,
}

impl Batch {
    /// Begins with bits that are durable.
    pub(super) fn new(durable: Bits) -> Self {
        Self {
            wanted: durable.clone(),
            durable,
            dirty: BTreeSet::new(),
            writing: None,
        }
    }

    /// Marks blocks.
    pub(super) fn want(&mut self, blocks: Range<u64>) {
        self.dirty.extend(self.wanted.set(blocks));
    }

    /// True if blocks may be written.
    pub(super) fn is_durable(&self, blocks: Range<u64>) -> bool {
        self.durable.has(blocks)
    }

    /// Pages that are to be written, and then synced. None while others are, or where there is
    /// nothing to do. Everything that is wanted until then shares one sync.
    pub(super) fn start(&mut self) -> Option<Vec<Page>> {
        if self.writing.is_some() || self.dirty.is_empty() {
            return None;
        }
        let dirty = std::mem::take(&mut self.dirty);
        let pages = dirty
            .into_iter()
            .map(|page| (page, self.wanted.page(page).to_vec()));
        let pages: Vec<Page> = pages.collect();
        self.writing = Some(pages.clone());
        Some(pages)
    }

    /// The pages were written and synced, or not: then nothing is known of them.
    pub(super) fn done(&mut self, worked: bool) {
        for (page, content) in self.writing.take().into_iter().flatten() {
            if worked {
                self.durable.merge(page, &content);
            } else {
                self.dirty.insert(page);
            }
        }
    }

    /// Blocks that are marked, durably or not.
    pub(super) fn marked(&self) -> Vec<Range<u64>> {
        self.wanted.ranges()
    }
}
