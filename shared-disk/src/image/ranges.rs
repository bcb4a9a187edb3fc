//! What of an image may hold data, and digests of its blocks. Holes are not read.

use super::kinds::COPY_BLOCK_BYTES;
use super::opened::{Content, Image};
use nix::unistd::{Whence, lseek64};
use std::io;
use std::ops::Range;

/// Bytes of a mapping that are asked for at a time.
const MAPPED_BYTES: u64 = 1 << 30;

/// Ranges of bytes that may hold data, ascending. The rest reads as zeroes.
#[derive(Debug)]
pub struct DataRanges<'a> {
    image: &'a Image,
    at_bytes: u64,
}

impl Iterator for DataRanges<'_> {
    type Item = io::Result<Range<u64>>;

    fn next(&mut self) -> Option<Self::Item> {
        let size = self.image.size_bytes();
        if self.at_bytes >= size {
            return None;
        }
        let found = match &self.image.content {
            Content::Raw(_) => self.image.seek(self.at_bytes),
            Content::Qcow2(_) => self.image.walk(self.at_bytes),
        };
        self.at_bytes = match &found {
            Ok(Some(range)) => range.end,
            // After an error nothing is known of the rest.
            Ok(None) | Err(_) => size,
        };
        found.transpose()
    }
}

impl Image {
    /// Ranges that may hold data.
    #[must_use]
    pub fn data_ranges(&self) -> DataRanges<'_> {
        DataRanges {
            image: self,
            at_bytes: 0,
        }
    }

    /// Blocks of [`COPY_BLOCK_BYTES`] that it has. The last may be shorter.
    #[must_use]
    pub fn copy_blocks(&self) -> u64 {
        self.size_bytes().div_ceil(COPY_BLOCK_BYTES)
    }

    /// Digests of the blocks in a range of their numbers, ascending.
    #[must_use]
    pub fn block_digests(&self, blocks: Range<u64>) -> BlockDigests<'_> {
        BlockDigests {
            image: self,
            blocks: blocks.start..blocks.end.min(self.copy_blocks()),
            data: 0..0,
            buffer: vec![0; COPY_BLOCK_BYTES as usize],
            zeroes: *blake3::hash(&[0; COPY_BLOCK_BYTES as usize]).as_bytes(),
        }
    }

    /// Digest of the whole content: of the size and the digests of all blocks, whatever the format.
    ///
    /// # Errors
    /// The system's.
    pub fn digest(&self) -> io::Result<[u8; 32]> {
        self.digest_telling(|_| ())
    }

    /// The same. `at` is told each block that was read.
    ///
    /// # Errors
    /// The system's.
    pub fn digest_telling(&self, mut at: impl FnMut(u64)) -> io::Result<[u8; 32]> {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.size_bytes().to_le_bytes());
        for digest in self.block_digests(0..self.copy_blocks()) {
            let (block, digest) = digest?;
            at(block);
            hasher.update(&digest);
        }
        Ok(*hasher.finalize().as_bytes())
    }

    /// Bytes of a block of its number.
    fn copy_block(&self, block: u64) -> Range<u64> {
        let start = block.saturating_mul(COPY_BLOCK_BYTES);
        start..start.saturating_add(COPY_BLOCK_BYTES).min(self.size_bytes())
    }

    /// The next range with data in the file of a raw image.
    fn seek(&self, at_bytes: u64) -> io::Result<Option<Range<u64>>> {
        let all = Some(at_bytes..self.size_bytes());
        let Ok(at) = i64::try_from(at_bytes) else {
            return Ok(all);
        };
        let start = match lseek64(self.file(), at, Whence::SeekData) {
            Ok(start) => start,
            // No data up to the end.
            Err(nix::Error::ENXIO) => return Ok(None),
            // A file system that does not know has data everywhere.
            Err(nix::Error::EINVAL | nix::Error::EOPNOTSUPP) => return Ok(all),
            Err(error) => return Err(error.into()),
        };
        let end = lseek64(self.file(), start, Whence::SeekHole)?;
        let end = u64::try_from(end)
            .unwrap_or(self.size_bytes())
            .min(self.size_bytes());
        let start = u64::try_from(start).unwrap_or(at_bytes);
        Ok((start < end).then_some(start..end))
    }

    /// The next range with data in a qcow2 image.
    fn walk(&self, at_bytes: u64) -> io::Result<Option<Range<u64>>> {
        let Content::Qcow2(qcow2) = &self.content else {
            return Ok(Some(at_bytes..self.size_bytes()));
        };
        let mut at = at_bytes;
        while at < self.size_bytes() {
            let (is_zero, length) = qcow2.mapping(at, (self.size_bytes() - at).min(MAPPED_BYTES))?;
            if length == 0 {
                return Ok(None);
            }
            if !is_zero {
                return Ok(Some(at..at.saturating_add(length).min(self.size_bytes())));
            }
            at = at.saturating_add(length);
        }
        Ok(None)
    }
}

/// Digests of blocks: their numbers and BLAKE3.
#[derive(Debug)]
pub struct BlockDigests<'a> {
    image: &'a Image,
    blocks: Range<u64>,
    /// The last range with data that was found; what is between the block before and it is a hole.
    data: Range<u64>,
    buffer: Vec<u8>,
    zeroes: [u8; 32],
}

impl Iterator for BlockDigests<'_> {
    type Item = io::Result<(u64, [u8; 32])>;

    fn next(&mut self) -> Option<Self::Item> {
        let block = self.blocks.next()?;
        let digest = self.digest(block);
        if digest.is_err() {
            self.blocks = 0..0;
        }
        Some(digest.map(|digest| (block, digest)))
    }
}

impl BlockDigests<'_> {
    fn digest(&mut self, block: u64) -> io::Result<[u8; 32]> {
        let range = self.image.copy_block(block);
        let length = (range.end - range.start) as usize;
        let buffer = self.buffer.get_mut(..length).unwrap_or_default();
        if !self.data.contains(&range.start) && self.data.start < range.end {
            // What was found ends before or within this block.
            let at = range.start;
            let mut rest = DataRanges {
                image: self.image,
                at_bytes: at,
            };
            self.data = rest.next().transpose()?.unwrap_or(u64::MAX..u64::MAX);
        }
        if self.data.start >= range.end {
            if length as u64 == COPY_BLOCK_BYTES {
                return Ok(self.zeroes);
            }
            buffer.fill(0);
        } else {
            self.image.read_at(range.start, buffer)?;
        }
        Ok(*blake3::hash(buffer).as_bytes())
    }
}
