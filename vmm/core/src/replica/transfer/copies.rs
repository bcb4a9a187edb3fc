//! Copies of pages in memory of our own, to be sent later.

use super::PAGES_PER_RECORD;
use crate::machine::memory::Memory;
use crate::machine::page_set::PageSet;
use crate::machine::saved::Page;
use crate::machine::saved::pages::PAGE_BYTES;
use vm_memory::{Bytes, GuestAddress};

/// Room for copies, made beforehand: taking one allocates nothing and touches no fresh memory.
#[derive(Debug)]
pub struct Copies {
    indices: Vec<u64>,
    bytes: Vec<u8>,
    used: usize,
}

/// More pages than there is room for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no room for {pages} copies of pages")]
pub struct NoRoom {
    /// Pages that were to be copied.
    pub pages: u64,
}

impl Copies {
    /// Room for `pages` pages.
    #[must_use]
    pub fn with_room(pages: u64) -> Self {
        let mut bytes = vec![0; pages as usize * PAGE_BYTES];
        // Zeroed memory is the kernel's promise until it is written.
        for page in bytes.chunks_mut(PAGE_BYTES) {
            page.fill(0xff);
        }
        Self {
            indices: Vec::with_capacity(pages as usize),
            bytes,
            used: 0,
        }
    }

    /// Pages that were copied.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.used as u64
    }

    /// True without a copy.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.used == 0
    }

    /// Copies `pages` of `memory` as they are now.
    ///
    /// # Errors
    /// [`NoRoom`]: nothing was copied.
    pub fn copy(&mut self, memory: &Memory, pages: &PageSet) -> Result<(), NoRoom> {
        let count = pages.len();
        let room = self.bytes.get_mut(self.used * PAGE_BYTES..).unwrap_or_default();
        if (room.len() / PAGE_BYTES) < count as usize {
            return Err(NoRoom { pages: count });
        }
        for (index, place) in pages.iter().zip(room.chunks_exact_mut(PAGE_BYTES)) {
            // A page beyond the end of memory is in no memory: its bit means nothing.
            if memory
                .read_slice(place, GuestAddress(index * PAGE_BYTES as u64))
                .is_err()
            {
                break;
            }
            self.indices.push(index);
        }
        self.used = self.indices.len();
        Ok(())
    }

    /// The copies, in the order in which they were made, as many at once as a record takes.
    pub fn pages(&self) -> impl Iterator<Item = Vec<Page>> + '_ {
        let (pages, _) = self.bytes.as_chunks::<PAGE_BYTES>();
        let page = |(index, bytes): (&u64, &[u8; PAGE_BYTES])| Page {
            index: *index,
            bytes: *bytes,
        };
        let records = self
            .indices
            .chunks(PAGES_PER_RECORD)
            .zip(pages.chunks(PAGES_PER_RECORD));
        records.map(move |(indices, pages)| indices.iter().zip(pages).map(page).collect())
    }

    /// Room for as many again.
    pub fn clear(&mut self) {
        self.indices.clear();
        self.used = 0;
    }
}
