//! The requests that follow from a seed.

use crate::random::{mixed, step};
use core::ops::Range;

/// Sectors of 512 bytes that the longest request has: 126,976 bytes.
pub const STEP_SECTORS_MAX: u64 = 248;
/// Sectors of the short requests, which are three of four.
const SHORT_SECTORS_MAX: u64 = 16;

/// Action of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Reads.
    Read,
    /// Writes.
    Write,
    /// Flushes.
    Flush,
    /// Discards.
    Discard,
    /// Writes zeros.
    WriteZeroes,
}

/// A request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Its action.
    pub operation: Operation,
    /// To which sectors of the area; none for a flush.
    pub sectors: Range<u64>,
}

/// All requests to one disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Seed of the requests.
    pub seed: u64,
    /// Sectors of the area that they are for.
    pub sectors: u64,
    /// Sectors of a block of the disk.
    pub block_sectors: u64,
    /// True if the disk can discard.
    pub discards: bool,
    /// True if the disk can write zeros.
    pub zeroes: bool,
}

impl Plan {
    /// Whatever else the requests depend on, as a number: a block's sectors, and the kinds that
    /// there are.
    #[must_use]
    pub fn kinds(&self) -> u64 {
        self.block_sectors | u64::from(self.discards) << 32 | u64::from(self.zeroes) << 33
    }

    /// The plan with the kinds of another.
    #[must_use]
    pub fn with_kinds(self, kinds: u64) -> Self {
        Self {
            block_sectors: (kinds & 0xffff_ffff).max(1),
            discards: kinds >> 32 & 1 == 1,
            zeroes: kinds >> 33 & 1 == 1,
            ..self
        }
    }

    /// Request `number`.
    #[must_use]
    pub fn step(&self, number: u64) -> Step {
        let draw = mixed(self.seed, number);
        let operation = match draw % 32 {
            0..=14 => Operation::Write,
            15..=27 => Operation::Read,
            28 if self.discards => Operation::Discard,
            29 if self.zeroes => Operation::WriteZeroes,
            30 => Operation::Flush,
            _ => Operation::Write,
        };
        if operation == Operation::Flush {
            return Step {
                operation,
                sectors: 0..0,
            };
        }
        let most = if draw >> 8 & 3 == 0 {
            STEP_SECTORS_MAX
        } else {
            SHORT_SECTORS_MAX
        };
        let blocks = self.sectors / self.block_sectors;
        let blocks_max = (most / self.block_sectors).clamp(1, blocks.max(1));
        let count = 1 + step(draw) % blocks_max;
        let first = step(step(draw)) % (blocks - count + 1).max(1);
        Step {
            operation,
            sectors: first * self.block_sectors..(first + count) * self.block_sectors,
        }
    }
}
