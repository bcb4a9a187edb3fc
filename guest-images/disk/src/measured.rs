//! Load that measures a disk: blocks of one size, read or written as fast as the disk takes them.
//! Nothing is compared.

use crate::random::mixed;
use alloc::vec;
use alloc::vec::Vec;
use lockstep_guest_runtime::requests::{BUFFER_BYTES_MAX, Completed, Operation, Request, SECTOR_BYTES};

/// Action of the requests, and their order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Reads blocks anywhere in the area.
    RandomRead,
    /// Writes them.
    RandomWrite,
    /// Reads block after block, over and over.
    SequentialRead,
    /// Writes them.
    SequentialWrite,
}

impl Kind {
    /// The one that an option names.
    #[must_use]
    pub fn named(name: &str) -> Option<Self> {
        match name {
            "random-read" => Some(Self::RandomRead),
            "random-write" => Some(Self::RandomWrite),
            "sequential-read" => Some(Self::SequentialRead),
            "sequential-write" => Some(Self::SequentialWrite),
            _ => None,
        }
    }

    fn writes(self) -> bool {
        matches!(self, Self::RandomWrite | Self::SequentialWrite)
    }

    fn is_random(self) -> bool {
        matches!(self, Self::RandomRead | Self::RandomWrite)
    }
}

/// Settings of such a load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Measure {
    /// Action and order.
    pub kind: Kind,
    /// Bytes of a block: a multiple of 4,096.
    pub block_bytes: usize,
    /// Blocks in all.
    pub blocks: u64,
    /// Blocks after which everything is flushed before the next one; 0 for no flush.
    pub flush: u64,
}

/// The load of one disk.
#[derive(Debug)]
pub struct Measured {
    measure: Measure,
    seed: u64,
    in_flight: usize,
    /// Blocks of the area.
    area_blocks: u64,
    /// Number of the next block.
    next: u64,
    /// Bytes of it that were asked for.
    asked_bytes: usize,
    unflushed: u64,
    is_flushing: bool,
    outstanding: usize,
    failed: u64,
    /// Buffers of requests that are done.
    buffers: Vec<Vec<u8>>,
}

impl Measured {
    /// The load of a disk of `disk_bytes`, of which an area is used. `None`: there is no room for a
    /// block.
    #[must_use]
    pub fn new(
        measure: Measure,
        seed: u64,
        in_flight: usize,
        area_bytes: u64,
        disk_bytes: u64,
    ) -> Option<Self> {
        let area_blocks = area_bytes.min(disk_bytes) / measure.block_bytes as u64;
        (area_blocks > 0).then_some(Self {
            measure,
            seed,
            in_flight,
            area_blocks,
            next: 0,
            asked_bytes: 0,
            unflushed: 0,
            is_flushing: false,
            outstanding: 0,
            failed: 0,
            buffers: Vec::new(),
        })
    }

    /// True if there is nothing more to do.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.outstanding == 0 && self.next == self.measure.blocks && self.unflushed == 0
    }

    /// Requests that the disk refused.
    #[must_use]
    pub fn failed(&self) -> u64 {
        self.failed
    }

    /// Bytes that all blocks have.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.measure.blocks * self.measure.block_bytes as u64
    }

    /// The next request for the disk, if there is one to be made now.
    pub fn next_request(&mut self) -> Option<Request> {
        if self.is_flushing || self.outstanding >= self.in_flight {
            return None;
        }
        let is_last = self.next == self.measure.blocks;
        let is_due = self.unflushed > 0 && (is_last || self.unflushed == self.measure.flush);
        if is_due {
            return (self.outstanding == 0).then(|| self.flush());
        }
        if is_last {
            return None;
        }
        let block = if self.measure.kind.is_random() {
            mixed(self.seed, self.next) % self.area_blocks
        } else {
            self.next % self.area_blocks
        };
        let left = self.measure.block_bytes - self.asked_bytes;
        let length = left.min(BUFFER_BYTES_MAX);
        let place = block * self.measure.block_bytes as u64 + self.asked_bytes as u64;
        let sector = place / SECTOR_BYTES as u64;
        let mut buffer = self.buffers.pop().unwrap_or_default();
        buffer.resize(length, 0);
        let operation = if self.measure.kind.writes() {
            fill(&mut buffer, self.seed ^ place ^ self.next << 40);
            Operation::Write { sector }
        } else {
            Operation::Read { sector }
        };
        self.asked_bytes += length;
        if length == left {
            self.asked_bytes = 0;
            self.next += 1;
            let is_to_flush = self.measure.flush > 0 && self.measure.kind.writes();
            self.unflushed += u64::from(is_to_flush);
        }
        Some(self.made(operation, buffer))
    }

    /// Takes a request that the disk has given back.
    pub fn completed(&mut self, done: Completed) {
        self.outstanding -= 1;
        self.failed += u64::from(done.result.is_err());
        if done.request.operation == Operation::Flush {
            self.is_flushing = false;
            self.unflushed = 0;
        } else {
            self.buffers.push(done.request.buffer);
        }
    }

    fn flush(&mut self) -> Request {
        self.is_flushing = true;
        self.made(Operation::Flush, vec![])
    }

    fn made(&mut self, operation: Operation, buffer: Vec<u8>) -> Request {
        self.outstanding += 1;
        Request {
            operation,
            buffer,
            mark: 0,
        }
    }
}

/// Fills a buffer with what does not compress (xorshift64).
fn fill(buffer: &mut [u8], seed: u64) {
    let mut state = seed | 1;
    for word in buffer.chunks_exact_mut(8) {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        word.copy_from_slice(&state.to_le_bytes());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn measured(kind: Kind, block_bytes: usize, blocks: u64, flush: u64) -> Measured {
        let measure = Measure {
            kind,
            block_bytes,
            blocks,
            flush,
        };
        Measured::new(measure, 1, 4, 4 << 20, 8 << 20).unwrap()
    }

    /// Everything that it asks for, each request being done at once.
    fn all(mut load: Measured) -> Vec<(Operation, usize)> {
        let mut all = Vec::new();
        while let Some(request) = load.next_request() {
            all.push((request.operation, request.buffer.len()));
            let result = Ok(());
            load.completed(Completed { request, result });
        }
        assert!(load.is_over());
        assert_eq!(load.failed(), 0);
        all
    }

    #[test]
    fn a_long_block_is_read_in_pieces_that_follow_each_other() {
        let pieces = all(measured(Kind::SequentialRead, 1 << 20, 2, 0));
        let mut place = 0;
        for (operation, length) in &pieces {
            let sector = place / SECTOR_BYTES as u64;
            assert_eq!(*operation, Operation::Read { sector });
            place += *length as u64;
        }
        assert_eq!((pieces.len(), place), (18, 2 << 20));
    }

    #[test]
    fn each_flush_waits_for_what_was_written_before_it() {
        let mut load = measured(Kind::RandomWrite, 4096, 3, 2);
        let two = [load.next_request().unwrap(), load.next_request().unwrap()];
        assert_eq!(load.next_request(), None);
        for request in two {
            let result = Ok(());
            load.completed(Completed { request, result });
        }
        let rest = all(load);
        let flushes = rest.iter().map(|(operation, _)| *operation == Operation::Flush);
        assert_eq!(flushes.collect::<Vec<_>>(), [true, false, true]);
    }

    #[test]
    fn random_blocks_are_in_the_area_and_not_the_same() {
        let mut sectors: Vec<u64> = all(measured(Kind::RandomRead, 4096, 100, 0))
            .iter()
            .map(|(operation, _)| match operation {
                Operation::Read { sector } => *sector,
                _ => u64::MAX,
            })
            .collect();
        assert!(sectors.iter().all(|sector| *sector < 8192 && sector % 8 == 0));
        sectors.sort_unstable();
        sectors.dedup();
        assert!(sectors.len() > 50);
    }
}
