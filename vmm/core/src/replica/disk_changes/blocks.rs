//! A set of a disk's blocks.

use std::ops::Range;

/// A set of blocks, a bit for each of the disk: 32 MiB for 16 TiB in blocks of 64 KiB.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Blocks {
    words: Vec<u64>,
    count: u64,
    length: u64,
}

impl Blocks {
    /// No block of a disk that has `count`.
    #[must_use]
    pub fn new(count: u64) -> Self {
        Self {
            words: vec![0; count.div_ceil(64) as usize],
            count,
            length: 0,
        }
    }

    /// These blocks of a disk that has `count`.
    #[must_use]
    pub fn of(count: u64, ranges: impl IntoIterator<Item = Range<u64>>) -> Self {
        let mut blocks = Self::new(count);
        ranges.into_iter().for_each(|range| blocks.insert(range));
        blocks
    }

    /// Adds blocks; those beyond the end of the disk are not.
    pub fn insert(&mut self, range: Range<u64>) {
        for block in range.start..range.end.min(self.count) {
            let Some(word) = self.words.get_mut((block / 64) as usize) else {
                return;
            };
            self.length += u64::from(*word >> (block % 64) & 1 == 0);
            *word |= 1 << (block % 64);
        }
    }

    /// Adds the blocks of another set.
    pub fn add(&mut self, other: &Self) {
        other.ranges().into_iter().for_each(|range| self.insert(range));
    }

    /// Number of blocks in it.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.length
    }

    /// True where there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// True where `block` is in it.
    #[must_use]
    pub fn has(&self, block: u64) -> bool {
        let word = self.words.get((block / 64) as usize);
        word.is_some_and(|word| word >> (block % 64) & 1 == 1)
    }

    /// The blocks, ascending.
    pub fn iter(&self) -> impl Iterator<Item = u64> {
        let words = (0_u64..).zip(&self.words).filter(|(_, word)| **word != 0);
        words.flat_map(|(place, word)| {
            let bits = (0..64).filter(move |bit| word >> bit & 1 == 1);
            bits.map(move |bit| place * 64 + bit)
        })
    }

    /// The same, as ranges that do not touch.
    #[must_use]
    pub fn ranges(&self) -> Vec<Range<u64>> {
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for block in self.iter() {
            match ranges.last_mut().filter(|last| last.end == block) {
                Some(last) => last.end += 1,
                None => ranges.push(block..block + 1),
            }
        }
        ranges
    }
}
