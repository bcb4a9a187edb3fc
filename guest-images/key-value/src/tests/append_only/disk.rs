//! A disk with a volatile cache, which can lose power at any write or flush.

use super::super::Numbers;
use crate::append_only::{Storage, StorageError};
use std::cell::RefCell;
use std::rc::Rc;

/// Bytes that are written whole or not at all.
const SECTOR_BYTES: usize = 512;

pub struct Disk {
    pub content: Vec<u8>,
    pub block_bytes: usize,
    pub is_writable: bool,
    /// Flushes do nothing.
    pub has_no_flush: bool,
    /// Sectors that were written and not flushed, oldest first.
    cache: Vec<(usize, [u8; SECTOR_BYTES])>,
    /// Writes and flushes until the power goes.
    pub left: Option<u64>,
    /// Writes and flushes so far.
    pub done: u64,
    numbers: Numbers,
}

/// A disk that the test and the file share.
#[derive(Clone)]
pub struct Shared(pub Rc<RefCell<Disk>>);

impl Shared {
    pub fn new(bytes: usize, block_bytes: usize, seed: u64) -> Self {
        Self(Rc::new(RefCell::new(Disk {
            content: vec![0; bytes],
            block_bytes,
            is_writable: true,
            has_no_flush: false,
            cache: Vec::new(),
            left: None,
            done: 0,
            numbers: Numbers::new(seed),
        })))
    }

    /// Power goes and comes back: any sectors that were not flushed are kept, as if written in any
    /// order.
    pub fn lose_power(&self) {
        let mut disk = self.0.borrow_mut();
        let mut cache = std::mem::take(&mut disk.cache);
        while !cache.is_empty() {
            let chosen = disk.numbers.below(cache.len());
            let (place, sector) = cache.swap_remove(chosen);
            if disk.numbers.below(2) == 0 {
                disk.content[place..place + SECTOR_BYTES].copy_from_slice(&sector);
            }
        }
        disk.left = None;
    }
}

impl Disk {
    /// Counts a write or flush; false once the power is gone.
    fn has_power(&mut self) -> bool {
        self.done += 1;
        match &mut self.left {
            None => true,
            Some(0) => false,
            Some(left) => {
                *left -= 1;
                true
            }
        }
    }
}

impl Storage for Shared {
    fn size_bytes(&self) -> u64 {
        self.0.borrow().content.len() as u64
    }

    fn block_bytes(&self) -> usize {
        self.0.borrow().block_bytes
    }

    fn is_writable(&self) -> bool {
        self.0.borrow().is_writable
    }

    fn read(&mut self, offset: u64, buffer: &mut [u8]) -> Result<(), StorageError> {
        let disk = self.0.borrow();
        let start = offset as usize;
        assert!(start.is_multiple_of(disk.block_bytes) && buffer.len().is_multiple_of(disk.block_bytes));
        buffer.copy_from_slice(&disk.content[start..start + buffer.len()]);
        for (place, sector) in &disk.cache {
            if (start..start + buffer.len()).contains(place) {
                buffer[place - start..][..SECTOR_BYTES].copy_from_slice(sector);
            }
        }
        Ok(())
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) -> Result<(), StorageError> {
        let mut disk = self.0.borrow_mut();
        let start = offset as usize;
        assert!(start.is_multiple_of(disk.block_bytes) && bytes.len().is_multiple_of(disk.block_bytes));
        assert!(
            start + bytes.len() <= disk.content.len(),
            "a write behind the end"
        );
        // A write during which the power goes is in the cache as a whole, and torn there.
        let has_power = disk.has_power();
        let sectors = bytes.as_chunks::<SECTOR_BYTES>().0;
        let places = (start..).step_by(SECTOR_BYTES);
        disk.cache.extend(places.zip(sectors.iter().copied()));
        has_power.then_some(()).ok_or(StorageError::Write(offset))
    }

    fn flush(&mut self) -> Result<(), StorageError> {
        let mut disk = self.0.borrow_mut();
        if !disk.has_power() {
            return Err(StorageError::Flush);
        }
        if !disk.has_no_flush {
            for (place, sector) in std::mem::take(&mut disk.cache) {
                disk.content[place..place + SECTOR_BYTES].copy_from_slice(&sector);
            }
        }
        Ok(())
    }

    fn random(&mut self) -> u64 {
        self.0.borrow_mut().numbers.next()
    }
}
