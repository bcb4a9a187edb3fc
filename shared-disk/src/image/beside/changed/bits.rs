//! A bit for each block, in pages as they are in the file.

use super::sealed::{BITS_BYTES, SECTORS};
use std::ops::Range;

/// Bytes of a page of bits: what is written at a time, without its checksums.
pub(super) const PAGE_BYTES: usize = BITS_BYTES * SECTORS;

/// Bits of a page.
pub(super) const PAGE_BITS: u64 = PAGE_BYTES as u64 * 8;

/// A bit for each block: the least significant bit of the first byte is block 0.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Bits {
    bytes: Vec<u8>,
    blocks: u64,
}

impl Bits {
    /// No block is set.
    pub(super) fn new(blocks: u64) -> Self {
        Self {
            bytes: vec![0; Self::length_bytes(blocks)],
            blocks,
        }
    }

    /// Reads the bits of `blocks` blocks; `None` where there are not as many.
    pub(super) fn from_bytes(bytes: Vec<u8>, blocks: u64) -> Option<Self> {
        (bytes.len() == Self::length_bytes(blocks)).then_some(Self { bytes, blocks })
    }

    /// Bytes that the bits of so many blocks take: whole pages.
    pub(super) const fn length_bytes(blocks: u64) -> usize {
        blocks.div_ceil(PAGE_BITS) as usize * PAGE_BYTES
    }

    fn get(&self, block: u64) -> bool {
        let byte = self.bytes.get((block / 8) as usize);
        byte.is_some_and(|byte| byte >> (block % 8) & 1 == 1)
    }

    /// True if all of them are set.
    pub(super) fn has(&self, mut blocks: Range<u64>) -> bool {
        blocks.all(|block| self.get(block))
    }

    /// Sets blocks, and gives the pages that are changed by it.
    pub(super) fn set(&mut self, blocks: Range<u64>) -> Vec<usize> {
        let mut pages = Vec::new();
        for block in blocks.start..blocks.end.min(self.blocks) {
            let place = self.bytes.get_mut((block / 8) as usize);
            let Some(byte) = place.filter(|byte| **byte >> (block % 8) & 1 == 0) else {
                continue;
            };
            *byte |= 1 << (block % 8);
            let page = (block / PAGE_BITS) as usize;
            if pages.last() != Some(&page) {
                pages.push(page);
            }
        }
        pages
    }

    /// Content of a page.
    pub(super) fn page(&self, page: usize) -> &[u8] {
        let start = page.saturating_mul(PAGE_BYTES);
        let rest = self.bytes.get(start..).unwrap_or_default();
        rest.get(..PAGE_BYTES).unwrap_or_default()
    }

    /// Sets what is set in `content`, a page.
    pub(super) fn merge(&mut self, page: usize, content: &[u8]) {
        let start = page.saturating_mul(PAGE_BYTES);
        let place = self.bytes.get_mut(start..).unwrap_or_default();
        for (byte, more) in place.iter_mut().zip(content) {
            *byte |= more;
        }
    }

    /// Blocks that are set, ascending.
    pub(super) fn ranges(&self) -> Vec<Range<u64>> {
        let mut ranges: Vec<Range<u64>> = Vec::new();
        let mut block = 0;
        while block < self.blocks {
            // Bytes without a block are most of them.
            if block.is_multiple_of(8) && self.bytes.get((block / 8) as usize) == Some(&0) {
                block += 8;
                continue;
            }
            if self.get(block) {
                match ranges.last_mut().filter(|last| last.end == block) {
                    Some(last) => last.end += 1,
                    None => ranges.push(block..block + 1),
                }
            }
            block += 1;
        }
        ranges
    }
}
