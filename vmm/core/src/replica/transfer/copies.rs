//! Copies of pages in memory of our own, to be sent later: at most one of each page, the newest.

use crate::machine::memory::Memory;
use crate::machine::page_set::PageSet;
use crate::machine::saved::Page;
use crate::machine::saved::pages::{PAGE_BYTES, PAGES_PER_PART};
use vm_memory::{Bytes, GuestAddress, GuestMemoryBackend, MmapRegion, VolatileMemory};

/// Pages of room that are made, and given back to the host, at once: 4 MiB.
const CHUNK_PAGES: usize = 1024;
/// In the place of a page's ordinal among the copies: it has no copy.
const NONE: u32 = u32::MAX;

/// Copies of pages of one memory. Room is made beforehand, so that a copy allocates nothing and
/// touches no fresh memory. It never has more room than the memory has pages.
#[derive(Debug)]
pub struct Copies {
    /// For each page of the memory, the ordinal of its copy.
    copies: Vec<u32>,
    /// For each copy, the ordinal of its page.
    pages: Vec<u64>,
    chunks: Vec<MmapRegion<()>>,
}

/// The host gives no memory for copies.
#[derive(Debug, thiserror::Error)]
#[error("the host gives no memory for copies of {pages} pages: {why}")]
pub struct NoRoom {
    /// Pages for which there was to be room.
    pub pages: u64,
    /// The host's answer.
    pub why: String,
}

impl Copies {
    /// No copies, and no room, for a memory of `pages` pages.
    #[must_use]
    pub fn of(pages: u64) -> Self {
        Self {
            copies: vec![NONE; pages as usize],
            pages: Vec::with_capacity(pages as usize),
            chunks: Vec::new(),
        }
    }

    /// Number of copies.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.pages.len() as u64
    }

    /// True without a copy.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pages.is_empty()
    }

    /// Makes room for copies of `more` pages that have none yet.
    ///
    /// # Errors
    /// [`NoRoom`].
    pub fn make_room(&mut self, more: u64) -> Result<(), NoRoom> {
        let pages = (self.pages.len() + more as usize).min(self.copies.len());
        while self.chunks.len() * CHUNK_PAGES < pages {
            let no_room = |why: &dyn std::fmt::Display| NoRoom {
                pages: pages as u64,
                why: why.to_string(),
            };
            let chunk: MmapRegion<()> =
                MmapRegion::new(CHUNK_PAGES * PAGE_BYTES).map_err(|why| no_room(&why))?;
            let bytes = chunk.as_volatile_slice();
            // Fresh memory is the host's promise until it is written.
            for page in 0..CHUNK_PAGES {
                bytes
                    .write_obj(0_u8, page * PAGE_BYTES)
                    .map_err(|why| no_room(&why))?;
            }
            self.chunks.push(chunk);
        }
        Ok(())
    }

    /// Copies up to `count` of `pages` as they are now, in ascending order, and removes them from
    /// the set. It ends earlier where a page has no room: that one stays in the set.
    pub fn copy(&mut self, memory: &Memory, pages: &mut PageSet, count: u64) {
        let mut next = 0;
        for _ in 0..count {
            let Some(index) = pages.next_from(next) else {
                return;
            };
            // A page beyond the end is in no memory: its bit means nothing.
            if self.copies.len() as u64 > index && !self.put(memory, index) {
                return;
            }
            pages.remove(index);
            next = index + 1;
        }
    }

    /// False without room.
    fn put(&mut self, memory: &Memory, index: u64) -> bool {
        let Some(copy) = self.copies.get_mut(index as usize) else {
            return false;
        };
        let number = if *copy == NONE {
            self.pages.len()
        } else {
            *copy as usize
        };
        let Some(place) = self.chunks.get(number / CHUNK_PAGES) else {
            return false;
        };
        let from = memory.get_slice(GuestAddress(index * PAGE_BYTES as u64), PAGE_BYTES);
        let to = place.get_slice(number % CHUNK_PAGES * PAGE_BYTES, PAGE_BYTES);
        let (Ok(from), Ok(to)) = (from, to) else {
            return false;
        };
        from.copy_to_volatile_slice(to);
        if *copy == NONE {
            *copy = number as u32;
            self.pages.push(index);
        }
        true
    }

    /// The copies, as many at once as a record takes. Their memory is given back as they are taken.
    pub fn into_pages(self) -> impl Iterator<Item = Vec<Page>> {
        let Self { pages, chunks, .. } = self;
        let mut pages = pages.into_iter();
        chunks.into_iter().flat_map(move |chunk| {
            let indices: Vec<u64> = pages.by_ref().take(CHUNK_PAGES).collect();
            let records = indices.len().div_ceil(PAGES_PER_PART);
            (0..records).map(move |record| {
                let first = record * PAGES_PER_PART;
                let numbered = indices.iter().enumerate().skip(first).take(PAGES_PER_PART);
                numbered
                    .filter_map(|(number, index)| page(&chunk, number, *index))
                    .collect()
            })
        })
    }
}

fn page(chunk: &MmapRegion<()>, number: usize, index: u64) -> Option<Page> {
    let mut bytes = [0; PAGE_BYTES];
    let copied = chunk
        .as_volatile_slice()
        .read_slice(&mut bytes, number * PAGE_BYTES);
    copied.ok()?;
    Some(Page { index, bytes })
}
