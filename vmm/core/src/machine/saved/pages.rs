//! Memory as pages: those that are not all zeros, each with its ordinal, so that they can be sent
//! in any order and more than once.

use super::SavedError;
use crate::machine::memory::{self, Memory};
use vm_memory::{Bytes, GuestAddress};

/// Bytes of a page.
pub const PAGE_BYTES: usize = memory::PAGE_BYTES as usize;

/// Pages in one part of a common point, or one record of a transfer: as many as its body holds.
pub const PAGES_PER_PART: usize = 31;

/// A page of guest memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// Its ordinal: its address divided by [`PAGE_BYTES`].
    pub index: u64,
    /// Its contents.
    pub bytes: [u8; PAGE_BYTES],
}

impl Page {
    /// The page of that ordinal; none beyond the end.
    #[must_use]
    pub fn of(memory: &Memory, index: u64) -> Option<Self> {
        let mut bytes = [0; PAGE_BYTES];
        let address = index.checked_mul(PAGE_BYTES as u64)?;
        memory.read_slice(&mut bytes, GuestAddress(address)).ok()?;
        Some(Self { index, bytes })
    }

    /// Writes it into `memory`.
    ///
    /// # Errors
    /// [`SavedError::Page`] where it is beyond the end.
    pub fn put(&self, memory: &Memory) -> Result<(), SavedError> {
        let refused = || SavedError::Page { index: self.index };
        let address = self.index.checked_mul(PAGE_BYTES as u64).ok_or_else(refused)?;
        let put = memory.write_slice(&self.bytes, GuestAddress(address));
        put.map_err(|_| refused())
    }

    /// True where all of it is zeros.
    #[must_use]
    pub fn is_zero(&self) -> bool {
        self.bytes.iter().all(|byte| *byte == 0)
    }
}

/// The pages of `memory` that are not all zeros, by ordinal.
pub fn non_zero(memory: &Memory) -> impl Iterator<Item = Page> + '_ {
    let count = memory::size_bytes(memory) / PAGE_BYTES as u64;
    (0..count)
        .filter_map(|index| Page::of(memory, index))
        .filter(|page| !page.is_zero())
}

/// Memory that is being filled. A page that never comes is zeros; one that comes again replaces the
/// first.
#[derive(Debug)]
pub struct Loading(Memory);

impl Loading {
    /// Zeroed memory of `bytes` bytes.
    ///
    /// # Errors
    /// [`SavedError::Memory`].
    pub fn new(bytes: u64) -> Result<Self, SavedError> {
        Ok(Self(memory::allocate(bytes)?))
    }

    /// Takes a page.
    ///
    /// # Errors
    /// [`SavedError::Page`] where it is beyond the end.
    pub fn put(&mut self, page: &Page) -> Result<(), SavedError> {
        page.put(&self.0)
    }

    /// The memory.
    #[must_use]
    pub fn finish(self) -> Memory {
        self.0
    }
}
