//! Compares two images, whatever their formats. What is a hole in both is not read.

use super::kinds::COPY_BLOCK_BYTES;
use super::opened::Image;
use super::ranges::DataRanges;
use std::io;
use std::iter::Peekable;
use std::ops::Range;

/// Result of comparing two images. Blocks have [`COPY_BLOCK_BYTES`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Compared {
    /// Sizes of the two disks. Only what both have is compared.
    pub sizes_bytes: [u64; 2],
    /// Blocks that differ.
    pub blocks: u64,
    /// Bytes that differ.
    pub bytes: u64,
    /// Place of the first byte that differs.
    pub first_byte: Option<u64>,
}

impl Compared {
    /// True if there is no difference.
    #[must_use]
    pub fn is_equal(&self) -> bool {
        let [left, right] = self.sizes_bytes;
        left == right && self.blocks == 0
    }

    /// Number of the first block that differs.
    #[must_use]
    pub fn first_block(&self) -> Option<u64> {
        self.first_byte.map(|byte| byte / COPY_BLOCK_BYTES)
    }
}

/// Compares two images. `at` is told each block before it is read.
///
/// # Errors
/// The system's.
pub fn compare(left: &Image, right: &Image, mut at: impl FnMut(u64)) -> io::Result<Compared> {
    let sizes_bytes = [left.size_bytes(), right.size_bytes()];
    let both = left.size_bytes().min(right.size_bytes());
    let mut compared = Compared {
        sizes_bytes,
        blocks: 0,
        bytes: 0,
        first_byte: None,
    };
    let mut buffers = [(); 2].map(|()| vec![0; COPY_BLOCK_BYTES as usize]);
    for block in BlocksOfEither::new([left, right], both) {
        let block = block?;
        at(block);
        let start = block * COPY_BLOCK_BYTES;
        let length = COPY_BLOCK_BYTES.min(both - start) as usize;
        let [one, other] = &mut buffers;
        let one = one.get_mut(..length).unwrap_or_default();
        let other = other.get_mut(..length).unwrap_or_default();
        left.read_at(start, one)?;
        right.read_at(start, other)?;
        if one == other {
            continue;
        }
        compared.blocks += 1;
        for (index, _) in one
            .iter()
            .zip(other.iter())
            .enumerate()
            .filter(|(_, (a, b))| a != b)
        {
            compared.bytes += 1;
            compared.first_byte.get_or_insert(start + index as u64);
        }
    }
    Ok(compared)
}

/// Numbers of the blocks in which one of two images may have data, ascending.
struct BlocksOfEither<'a> {
    ranges: [Peekable<DataRanges<'a>>; 2],
    next: u64,
    end: u64,
}

impl<'a> BlocksOfEither<'a> {
    fn new(images: [&'a Image; 2], size_bytes: u64) -> Self {
        Self {
            ranges: images.map(|image| image.data_ranges().peekable()),
            next: 0,
            end: size_bytes.div_ceil(COPY_BLOCK_BYTES),
        }
    }

    /// The first block of an image's data from the next one on.
    fn first(ranges: &mut Peekable<DataRanges<'a>>, next: u64) -> io::Result<Option<u64>> {
        let is_before = |range: &io::Result<Range<u64>>| {
            let last = |range: &Range<u64>| (range.end - 1) / COPY_BLOCK_BYTES;
            range.as_ref().is_ok_and(|range| last(range) < next)
        };
        while ranges.next_if(is_before).is_some() {}
        match ranges.peek() {
            None => Ok(None),
            Some(Ok(range)) => Ok(Some((range.start / COPY_BLOCK_BYTES).max(next))),
            Some(Err(_)) => ranges.next().transpose().map(|_| None),
        }
    }
}

impl Iterator for BlocksOfEither<'_> {
    type Item = io::Result<u64>;

    fn next(&mut self) -> Option<Self::Item> {
        let next = self.next;
        let [left, right] = &mut self.ranges;
        let found = Self::first(left, next).and_then(|left| Ok((left, Self::first(right, next)?)));
        let block = match found {
            Ok((left, right)) => left.into_iter().chain(right).min()?,
            Err(error) => {
                self.end = 0;
                self.next = u64::MAX;
                return Some(Err(error));
            }
        };
        self.next = block.saturating_add(1);
        (block < self.end).then_some(Ok(block))
    }
}
