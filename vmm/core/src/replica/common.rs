//! Common points as entries of the log: the sections of a saved state, cut into parts
//! (docs/log-format.md, Parts and common points).
//!
//! A part of pages is one section; the machine without memory comes last, in as many parts as it
//! takes. Nothing of them counts before the entry that ends them.

use crate::machine::door::Met;
use crate::machine::memory::MEMORY_BYTES_MAX;
use crate::machine::saved::arriving::Arriving;
use crate::machine::saved::format::{Kind, Section};
use crate::machine::saved::pages::PAGE_BYTES;
use crate::machine::saved::{Page, SavedError, SavedMachine};
use crate::replica::mutant::{self, Mutant};
use crate::replica::transfer::RAW_BYTES_MAX;
use lockstep_logging_channel::{CommonPoint, Digest, ExecutionPoint, Generation, Part, Sequence};
use std::collections::BTreeMap;

/// How many times as many pages as the machine has may come before a common point: the sender
/// sweeps twice over what there is (`machine::gathering`), then the guest stands.
const SWEEPS_MAX: u64 = 4;
/// Name of a part, in messages.
const PART: &str = "part";
/// Name of the entry that ends them, in messages.
const COMMON_POINT: &str = "common point";

/// The making side.
#[derive(Debug, Default)]
pub struct Parts {
    /// Number of the first part since the last common point, or since the machine was captured.
    first: Option<Sequence>,
    pages: u64,
    sections: Box<blake3::Hasher>,
}

impl Parts {
    /// A part with these pages, as entry `sequence`.
    pub fn pages(&mut self, sequence: Sequence, pages: Vec<Page>) -> Part {
        self.first.get_or_insert(sequence);
        self.pages += pages.len() as u64;
        let (bytes, digest) = Section::Pages(pages).encode();
        self.sections.update(&digest.0);
        part(&bytes)
    }

    /// The last parts, the first of them as entry `sequence`, and the common point.
    pub fn last(&mut self, sequence: Sequence, machine: SavedMachine) -> (Vec<Part>, CommonPoint) {
        let first = *self.first.get_or_insert(sequence);
        let (bytes, digest) = Section::Machine(Box::new(machine)).encode();
        self.sections.update(&digest.0);
        let common = CommonPoint {
            first,
            pages: self.pages,
            sections: Digest::from_hash(&self.sections.finalize()),
        };
        *self = Self::default();
        (bytes.chunks(RAW_BYTES_MAX).map(part).collect(), common)
    }

    /// The machine was captured: who goes on from there has what parts up to here say.
    pub fn captured(&mut self) {
        *self = Self::default();
    }
}

fn part(raw: &[u8]) -> Part {
    Part {
        raw_bytes: raw.len() as u32,
        block: lz4_flex::block::compress(raw),
    }
}

/// The meeting side: what parts have said since the last common point. It has each page once, and
/// at most as many as the machine's memory.
#[derive(Debug)]
pub struct Staged {
    pages_max: u64,
    /// Generation that parts are of. Whoever goes on in another generation begins anew.
    generation: Generation,
    pages: BTreeMap<u64, Box<Page>>,
    machine: Option<Box<SavedMachine>>,
    /// Pages that have come, each as often as it came.
    come: u64,
    /// Number, pages and digest of each section.
    sections: Vec<(Sequence, u64, Digest)>,
    arriving: Arriving,
}

impl Default for Staged {
    fn default() -> Self {
        Self::of_memory(MEMORY_BYTES_MAX)
    }
}

impl Staged {
    /// Nothing yet, for a machine with `memory_bytes` bytes of memory.
    #[must_use]
    pub fn of_memory(memory_bytes: u64) -> Self {
        Self {
            pages_max: memory_bytes / PAGE_BYTES as u64,
            generation: Generation::default(),
            pages: BTreeMap::new(),
            machine: None,
            come: 0,
            sections: Vec::new(),
            arriving: Arriving::default(),
        }
    }

    /// Takes the part that is entry `sequence` of `generation`.
    ///
    /// # Errors
    /// [`SavedError`].
    pub fn take(
        &mut self,
        generation: Generation,
        sequence: Sequence,
        part: &Part,
    ) -> Result<(), SavedError> {
        if self.generation != generation {
            let memory_bytes = self.pages_max * PAGE_BYTES as u64;
            *self = Self {
                generation,
                ..Self::of_memory(memory_bytes)
            };
        }
        let malformed = SavedError::Malformed { section: PART };
        let raw_bytes = part.raw_bytes as usize;
        if raw_bytes == 0 || raw_bytes > RAW_BYTES_MAX {
            return Err(malformed);
        }
        let mut raw = vec![0; raw_bytes];
        match lz4_flex::block::decompress_into(&part.block, &mut raw) {
            Ok(bytes) if bytes == raw_bytes => {}
            _ => return Err(malformed),
        }
        self.arriving.put(&raw);
        while let Some(section) = self.arriving.take()? {
            self.put(sequence, section)?;
        }
        Ok(())
    }

    fn put(&mut self, sequence: Sequence, (section, digest): (Section, Digest)) -> Result<(), SavedError> {
        let mut count = 0;
        let is_open = self.machine.is_none() || mutant::is(Mutant::PutHalfAnEpoch);
        match section {
            Section::Pages(pages) if is_open => {
                count = pages.len() as u64;
                self.come += count;
                let come_max = SWEEPS_MAX * self.pages_max;
                if self.come > come_max {
                    return Err(SavedError::Length {
                        section: PART,
                        bytes: self.come * PAGE_BYTES as u64,
                        bytes_max: come_max * PAGE_BYTES as u64,
                    });
                }
                for page in pages {
                    if page.index >= self.pages_max {
                        return Err(SavedError::Page { index: page.index });
                    }
                    self.pages.insert(page.index, Box::new(page));
                }
            }
            Section::Machine(machine) if is_open => self.machine = Some(machine),
            other => {
                let section = other.kind().name();
                return Err(SavedError::Order { section });
            }
        }
        self.sections.push((sequence, count, digest));
        Ok(())
    }

    /// Takes the entry that ends them, which is at `point`.
    ///
    /// # Errors
    /// [`SavedError`]: it does not end exactly what has come, or the machine is not at that point.
    pub fn finish(&mut self, point: ExecutionPoint, common: &CommonPoint) -> Result<Met, SavedError> {
        let damaged = || SavedError::Damaged {
            section: COMMON_POINT,
        };
        let mut hasher = blake3::Hasher::new();
        let mut pages = 0;
        let covered = |(sequence, ..): &&(Sequence, u64, Digest)| *sequence >= common.first;
        for (_, count, digest) in self.sections.iter().filter(covered) {
            pages += count;
            hasher.update(&digest.0);
        }
        let sections = Digest::from_hash(&hasher.finalize());
        if (pages, sections) != (common.pages, common.sections) || !self.arriving.is_empty() {
            return Err(damaged());
        }
        let met = self.put_together().ok_or(SavedError::Cut {
            section: Kind::Machine.name(),
        })?;
        let position = &met.machine.position;
        if point.position() != (position.exits, position.instructions) {
            let why = "it is not at the point of its entry";
            return Err(SavedError::Position { why });
        }
        self.sections.clear();
        self.come = 0;
        Ok(met)
    }

    /// True where pages have come.
    #[must_use]
    pub fn has_pages(&self) -> bool {
        !self.pages.is_empty()
    }

    /// What has come of pages and of the machine, where there is one.
    pub(super) fn put_together(&mut self) -> Option<Met> {
        let machine = if mutant::is(Mutant::PutHalfAnEpoch) {
            self.machine.clone()
        } else {
            self.machine.take()
        }?;
        let pages = std::mem::take(&mut self.pages).into_values();
        Some(Met {
            pages: pages.map(|page| *page).collect(),
            machine,
        })
    }
}
