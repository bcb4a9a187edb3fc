//! The sending side: sections into records.

use super::{Capture, MAGIC, RAW_BYTES_MAX, RECORD_BYTES_MAX, RECORD_HEADER_BYTES, START_BYTES, VERSION};
use crate::machine::memory::Memory;
use crate::machine::page_set::PageSet;
use crate::machine::saved::Page;
use crate::machine::saved::format::{End, Section};
use crate::machine::saved::pages::PAGES_PER_PART;
use lockstep_logging_channel::Digest;

/// Pages that one step of a round looks at: 4 MiB, about a millisecond, where all of them are
/// zeros.
const LOOKED_AT_MAX: usize = 1024;

/// Makes the records of one transfer.
pub struct Sender {
    number: u64,
    sections: blake3::Hasher,
    pages: u64,
}

impl Sender {
    /// A transfer of the machine of pair `pair` with `memory_bytes` bytes of memory, and its first
    /// record.
    #[must_use]
    pub fn new(pair: [u8; 16], memory_bytes: u64) -> (Self, Vec<u8>) {
        let start = start(pair, memory_bytes);
        let mut sections = blake3::Hasher::new();
        sections.update(&start);
        let mut sender = Self {
            number: 0,
            sections,
            pages: 0,
        };
        let record = sender.record(&start);
        (sender, record)
    }

    /// Pages sent so far.
    #[must_use]
    pub fn pages_sent(&self) -> u64 {
        self.pages
    }

    /// A record of pages, [`PAGES_PER_PART`] at most; none without a page.
    pub fn pages(&mut self, pages: Vec<Page>) -> Option<Vec<u8>> {
        debug_assert!(pages.len() <= PAGES_PER_PART);
        if pages.is_empty() {
            return None;
        }
        self.pages += pages.len() as u64;
        let section = self.section(&Section::Pages(pages));
        Some(self.record(&section))
    }

    /// The last records, when the last page was sent.
    #[must_use]
    pub fn last(mut self, capture: Capture) -> Vec<Vec<u8>> {
        let Capture { machine, position } = capture;
        let mut bytes = self.section(&Section::Machine(Box::new(machine)));
        bytes.extend(self.section(&Section::Log(position)));
        let end = End {
            pages: self.pages,
            sections: Digest::from_hash(&self.sections.finalize()),
        };
        bytes.extend(Section::End(end).encode().0);
        bytes
            .chunks(RAW_BYTES_MAX)
            .map(|piece| self.record(piece))
            .collect()
    }

    fn section(&mut self, section: &Section) -> Vec<u8> {
        let (bytes, digest) = section.encode();
        self.sections.update(&digest.0);
        bytes
    }

    fn record(&mut self, raw: &[u8]) -> Vec<u8> {
        let number = self.number;
        self.number += 1;
        let mut record = Vec::with_capacity(RECORD_HEADER_BYTES + raw.len());
        record.extend_from_slice(&number.to_le_bytes());
        record.extend_from_slice(&(raw.len() as u32).to_le_bytes());
        record.extend(lz4_flex::block::compress(raw));
        debug_assert!(record.len() <= RECORD_BYTES_MAX);
        record
    }
}

pub(super) fn start(pair: [u8; 16], memory_bytes: u64) -> Vec<u8> {
    let mut start = Vec::with_capacity(START_BYTES);
    start.extend_from_slice(&MAGIC);
    start.extend_from_slice(&VERSION.to_le_bytes());
    start.extend_from_slice(&[0; 2]);
    start.extend_from_slice(&pair);
    start.extend_from_slice(&memory_bytes.to_le_bytes());
    start
}

/// One round over memory: the pages of a set, read as they are when their turn comes.
pub struct Round {
    memory: Memory,
    pages: PageSet,
    next: Option<u64>,
    left: u64,
    /// The receiver may have something else there.
    with_zeros: bool,
}

impl Round {
    /// The first round: those of `pages` that are not zeros, which is how the receiver's memory
    /// begins.
    #[must_use]
    pub fn first(memory: Memory, pages: PageSet) -> Self {
        Self::over(memory, pages, false)
    }

    /// A later round: all of `pages`.
    #[must_use]
    pub fn again(memory: Memory, pages: PageSet) -> Self {
        Self::over(memory, pages, true)
    }

    fn over(memory: Memory, pages: PageSet, with_zeros: bool) -> Self {
        let next = pages.next_from(0);
        Self {
            memory,
            left: pages.len(),
            pages,
            next,
            with_zeros,
        }
    }

    /// Pages that it has not looked at.
    #[must_use]
    pub fn left(&self) -> u64 {
        self.left
    }

    /// Pages that it has not looked at, where it is ended early.
    #[must_use]
    pub fn into_rest(mut self) -> PageSet {
        self.pages.keep_from(self.next.unwrap_or(u64::MAX));
        self.pages
    }

    /// The next pages: none of them where many were looked at and all were zeros; no answer when
    /// the round is over.
    pub fn next_pages(&mut self) -> Option<Vec<Page>> {
        self.next?;
        let mut pages = Vec::with_capacity(PAGES_PER_PART);
        for _ in 0..LOOKED_AT_MAX {
            let Some(index) = self.next.filter(|_| pages.len() < PAGES_PER_PART) else {
                break;
            };
            self.next = self.pages.next_from(index + 1);
            self.left -= 1;
            // A page beyond the end is in no memory: the set has a bit for it, no more.
            pages.extend(Page::of(&self.memory, index).filter(|page| self.with_zeros || !page.is_zero()));
        }
        Some(pages)
    }
}
