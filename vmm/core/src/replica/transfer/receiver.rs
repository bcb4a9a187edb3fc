//! The receiving side: records into a machine, or one refusal.

use super::rounds::ROUNDS_MAX;
use super::{
    MAGIC, RAW_BYTES_MAX, RECORD_HEADER_BYTES, START, START_BYTES, TransferError, VERSION, sender::start,
};
use crate::machine::memory::Memory;
use crate::machine::saved::arriving::Arriving;
use crate::machine::saved::format::{End, Kind, LogPosition, Section};
use crate::machine::saved::pages::PAGE_BYTES;
use crate::machine::saved::{Loading, SavedError, SavedMachine};
use lockstep_logging_channel::Digest;

/// A whole machine that was received and verified.
#[derive(Debug)]
pub struct Received {
    /// The machine without its memory.
    pub machine: SavedMachine,
    /// Its memory.
    pub memory: Memory,
    /// Its position in the log.
    pub position: LogPosition,
}

/// Result of a record.
#[derive(Debug)]
pub enum Taken {
    /// More has to come.
    More,
    /// It was the last.
    All(Box<Received>),
}

/// Parts behind the memory that have come so far.
#[derive(Debug)]
enum Stage {
    Start,
    Memory,
    Machine(Box<SavedMachine>),
    Position(Box<SavedMachine>, LogPosition),
    Ended,
}

/// Takes the records of one transfer. Memory in use: the machine's, and one section.
#[derive(Debug)]
pub struct Receiver {
    pair: [u8; 16],
    memory_bytes: u64,
    number: u64,
    stage: Stage,
    memory: Option<Loading>,
    pages: u64,
    sections: blake3::Hasher,
    arriving: Arriving,
}

impl Receiver {
    /// A receiver of the machine of pair `pair` with `memory_bytes` bytes of memory.
    #[must_use]
    pub fn new(pair: [u8; 16], memory_bytes: u64) -> Self {
        Self {
            pair,
            memory_bytes,
            number: 0,
            stage: Stage::Start,
            memory: None,
            pages: 0,
            sections: blake3::Hasher::new(),
            arriving: Arriving::default(),
        }
    }

    /// Pages that have come, each as often as it came.
    #[must_use]
    pub fn pages(&self) -> u64 {
        self.pages
    }

    /// The error of a transfer that ends here.
    #[must_use]
    pub fn cut(&self) -> TransferError {
        let section = match self.stage {
            Stage::Start => START,
            Stage::Memory => Kind::Machine.name(),
            Stage::Machine(_) => Kind::Log.name(),
            Stage::Position(..) | Stage::Ended => Kind::End.name(),
        };
        TransferError::Cut { section }
    }

    /// Takes the next record. After an error the transfer is over: nothing of it may be used.
    ///
    /// # Errors
    /// [`TransferError`]: whatever is not the next record of one whole transfer of this machine.
    pub fn take(&mut self, record: &[u8]) -> Result<Taken, TransferError> {
        if matches!(self.stage, Stage::Ended) {
            return Err(TransferError::BehindEnd);
        }
        let raw = self.open(record)?;
        self.number += 1;
        if matches!(self.stage, Stage::Start) {
            self.begin(&raw)?;
            return Ok(Taken::More);
        }
        self.arriving.put(&raw);
        while let Some(section) = self.arriving.take()? {
            if let Some(received) = self.put(section)? {
                return Ok(Taken::All(Box::new(received)));
            }
        }
        Ok(Taken::More)
    }

    /// Returns the contents of a record, if it is the next.
    fn open(&self, record: &[u8]) -> Result<Vec<u8>, TransferError> {
        let malformed = |why| TransferError::Malformed {
            number: self.number,
            why,
        };
        let short = || malformed("it is too short");
        let (number, rest) = record.split_first_chunk::<8>().ok_or_else(short)?;
        let (length, block) = rest.split_first_chunk::<4>().ok_or_else(short)?;
        debug_assert_eq!(record.len() - block.len(), RECORD_HEADER_BYTES);
        let (found, expected) = (u64::from_le_bytes(*number), self.number);
        if found < expected {
            return Err(TransferError::Repeated { found, expected });
        }
        if found > expected {
            return Err(TransferError::Missing { expected, found });
        }
        let length = u32::from_le_bytes(*length) as usize;
        if length == 0 || length > RAW_BYTES_MAX {
            return Err(malformed("its length is impossible"));
        }
        let mut raw = vec![0; length];
        match lz4_flex::block::decompress_into(block, &mut raw) {
            Ok(bytes) if bytes == length => Ok(raw),
            _ => Err(malformed("it is not compressed as it has to be")),
        }
    }

    fn begin(&mut self, raw: &[u8]) -> Result<(), TransferError> {
        let Some((magic, rest)) = raw.split_first_chunk::<4>() else {
            return Err(TransferError::Foreign);
        };
        if *magic != MAGIC {
            return Err(TransferError::Foreign);
        }
        let number = 0;
        let malformed = TransferError::Malformed {
            number,
            why: "it is too short",
        };
        let Some((version, rest)) = rest.split_first_chunk::<2>() else {
            return Err(malformed);
        };
        let found = u16::from_le_bytes(*version);
        if found != VERSION {
            return Err(TransferError::Version {
                found,
                known: VERSION,
            });
        }
        let Some((pair, memory)) = rest.get(2..).and_then(<[u8]>::split_first_chunk::<16>) else {
            return Err(malformed);
        };
        if *pair != self.pair {
            return Err(TransferError::OtherMachine {
                found: hex::encode(pair),
                expected: hex::encode(self.pair),
            });
        }
        let found = memory.first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes));
        let expected = self.memory_bytes;
        if found != expected {
            return Err(SavedError::MemorySize { found, expected }.into());
        }
        let exact = start(self.pair, expected);
        debug_assert_eq!(exact.len(), START_BYTES);
        if raw != exact {
            return Err(TransferError::Malformed {
                number,
                why: "it has something else in it",
            });
        }
        self.sections.update(raw);
        self.memory = Some(Loading::new(expected)?);
        self.stage = Stage::Memory;
        Ok(())
    }

    /// Takes a section; the last one completes the machine.
    fn put(&mut self, (section, digest): (Section, Digest)) -> Result<Option<Received>, TransferError> {
        let name = section.kind().name();
        match (std::mem::replace(&mut self.stage, Stage::Ended), section) {
            (Stage::Memory, Section::Pages(pages)) => {
                self.count(pages.len() as u64)?;
                for page in &pages {
                    self.memory.as_mut().ok_or(TransferError::BehindEnd)?.put(page)?;
                }
                self.stage = Stage::Memory;
            }
            (Stage::Memory, Section::Machine(machine)) => {
                let (found, expected) = (machine.memory_bytes, self.memory_bytes);
                if found != expected {
                    return Err(SavedError::MemorySize { found, expected }.into());
                }
                self.stage = Stage::Machine(machine);
            }
            (Stage::Machine(machine), Section::Log(position)) => {
                self.stage = Stage::Position(machine, position);
            }
            (Stage::Position(machine, position), Section::End(end)) => {
                return self.finish(*machine, position, end).map(Some);
            }
            _ => return Err(SavedError::Order { section: name }.into()),
        }
        self.sections.update(&digest.0);
        Ok(None)
    }

    fn count(&mut self, pages: u64) -> Result<(), TransferError> {
        // Every page in every round, and once more as a copy.
        let pages_max = (u64::from(ROUNDS_MAX) + 1) * (self.memory_bytes / PAGE_BYTES as u64);
        self.pages += pages;
        if self.pages > pages_max {
            return Err(TransferError::TooLong { pages_max });
        }
        Ok(())
    }

    fn finish(
        &mut self,
        machine: SavedMachine,
        position: LogPosition,
        end: End,
    ) -> Result<Received, TransferError> {
        let expected = End {
            pages: self.pages,
            sections: Digest::from_hash(&self.sections.finalize()),
        };
        if end != expected {
            let section = Kind::End.name();
            return Err(SavedError::Damaged { section }.into());
        }
        if !self.arriving.is_empty() {
            return Err(TransferError::BehindEnd);
        }
        let memory = self.memory.take().ok_or(TransferError::BehindEnd)?.finish();
        Ok(Received {
            machine,
            memory,
            position,
        })
    }
}
