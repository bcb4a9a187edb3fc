//! The model guest's side of its disk: what it asks, what it must be answered, and what must be on
//! the medium when its host has lost its power.

use std::collections::VecDeque;

use lockstep_core::machine::disk::{Operation, Request};
use lockstep_core::machine::door::{Door, DoorError, Taker, Takes};
use lockstep_logging_channel::{Completion, DeviceId, ExecutionPoint, ReadData};

use super::disk::{BLOCK_BYTES, BLOCKS, BUSY_BLOCKS, Disk, blocks, changes};
use super::rng::mix;

/// Its disk.
pub const DISK: DeviceId = DeviceId(4);

/// Requests that it has under way, at most.
const OUTSTANDING_MAX: usize = 8;

/// Something that is read, as it may be: the words of each block when it was asked for, and those
/// that were written since. Who reads and writes the same at once may get either.
type MayBe = Vec<Vec<u64>>;

/// The guest's knowledge of its disk.
#[derive(Clone, Debug)]
pub struct GuestDisk {
    next: u64,
    outstanding: VecDeque<(Request, MayBe)>,
    /// For each block what it may be found with after a loss of power: what it had at the last
    /// flush that is done, and what was written since, each with the number of the request.
    versions: [Vec<(u64, u64)>; BLOCKS],
}

impl Default for GuestDisk {
    fn default() -> Self {
        Self {
            next: 0,
            outstanding: VecDeque::new(),
            versions: std::array::from_fn(|_| vec![(0, 0)]),
        }
    }
}

impl GuestDisk {
    /// What it takes.
    pub(super) fn taker(&self) -> Taker {
        Taker {
            device: DISK,
            takes: Takes::Completions {
                outstanding: self.outstanding.len(),
            },
        }
    }

    /// True where it may ask for more.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.outstanding.len() < OUTSTANDING_MAX
    }

    /// Requests that are not done.
    pub fn outstanding(&self) -> impl Iterator<Item = &Request> {
        self.outstanding.iter().map(|(request, _)| request)
    }

    fn newest(&self, block: usize) -> u64 {
        self.versions[block].last().map_or(0, |(_, word)| *word)
    }

    /// Asks for something that `chance` says.
    ///
    /// # Errors
    /// The door's; nothing has changed then.
    pub(super) fn ask(
        &mut self,
        door: &mut dyn Door,
        point: ExecutionPoint,
        chance: u64,
    ) -> Result<(), DoorError> {
        let request = Request {
            number: self.next,
            operation: operation(mix(chance)),
        };
        door.disk_request(point, DISK, request.clone())?;
        self.next += 1;
        for (block, word) in changes(&request.operation) {
            self.versions[block].push((request.number, word));
            for (read, may_be) in &mut self.outstanding {
                let place = blocks(&read.operation).position(|read| read == block);
                if let Some(words) = place.and_then(|place| may_be.get_mut(place)) {
                    words.push(word);
                }
            }
        }
        let may_be = match request.operation {
            Operation::Read { .. } => blocks(&request.operation)
                .map(|block| vec![self.newest(block)])
                .collect(),
            _ => Vec::new(),
        };
        self.outstanding.push_back((request, may_be));
        Ok(())
    }

    /// A request is done. Gives a word for what came of it and the request, or what no disk may do.
    pub(super) fn done(&mut self, completion: &Completion) -> Result<(u64, Request), &'static str> {
        let number = completion.number;
        let is_it = |(request, _): &(Request, MayBe)| request.number == number;
        let Some(index) = self.outstanding.iter().position(is_it) else {
            return Err("a disk has done what it was not asked for");
        };
        let Some((request, may_be)) = self.outstanding.remove(index) else {
            return Err("a disk has done what it was not asked for");
        };
        if request.operation == Operation::Flush {
            for versions in &mut self.versions {
                while versions.get(1).is_some_and(|(asked, _)| *asked < number) {
                    versions.remove(0);
                }
            }
        }
        let read = match &completion.read {
            ReadData::Bytes(bytes) => bytes.as_slice(),
            ReadData::Nothing => &[],
            ReadData::Digest(_) => return Err("a disk has read no bytes"),
        };
        let (words, _) = read.as_chunks::<BLOCK_BYTES>();
        let words: Vec<_> = words.iter().map(|word| u64::from_le_bytes(*word)).collect();
        let right = words
            .iter()
            .zip(&may_be)
            .all(|(word, may_be)| may_be.contains(word));
        if words.len() != may_be.len() || !right {
            return Err("a disk has read something else than was written last");
        }
        let word = words.into_iter().fold(number, |all, word| mix(all ^ word));
        Ok((word, request))
    }

    /// The saved form, as words.
    pub(super) fn words(&self) -> Vec<u64> {
        let mut words = vec![self.next, self.outstanding.len() as u64];
        for (request, may_be) in &self.outstanding {
            words.push(request.number);
            words.extend(operation_words(&request.operation));
            words.push(may_be.len() as u64);
            for may in may_be {
                words.push(may.len() as u64);
                words.extend(may);
            }
        }
        for versions in &self.versions {
            words.push(versions.len() as u64);
            words.extend(versions.iter().flat_map(|(number, word)| [*number, *word]));
        }
        words
    }

    /// The same disk, from its saved form; none where that is of no disk.
    pub(super) fn restored(mut words: impl Iterator<Item = u64>) -> Option<Self> {
        let mut next = || words.next();
        let mut disk = Self {
            next: next()?,
            ..Self::default()
        };
        for _ in 0..next()? {
            let number = next()?;
            let operation = read_operation(&mut next)?;
            let mut may_be = MayBe::new();
            for _ in 0..next()? {
                let mut may = Vec::new();
                for _ in 0..next()? {
                    may.push(next()?);
                }
                may_be.push(may);
            }
            disk.outstanding
                .push_back((Request { number, operation }, may_be));
        }
        for versions in &mut disk.versions {
            versions.clear();
            for _ in 0..next()? {
                versions.push((next()?, next()?));
            }
        }
        Some(disk)
    }

    /// What is wrong with a medium whose host has lost its power, if anything is.
    #[must_use]
    pub fn lost_on(&self, disk: &Disk) -> Option<String> {
        let block = (0..BLOCKS).find(|block| {
            let word = disk.on_medium(*block);
            !self.versions[*block].iter().any(|(_, version)| *version == word)
        })?;
        Some(format!(
            "block {block} of a disk has lost what was flushed, and has {:#x}",
            disk.on_medium(block)
        ))
    }

    /// What is wrong with a disk on which nothing but these requests is left to be done.
    #[must_use]
    pub fn differs_from(&self, disk: &Disk) -> Option<String> {
        let touched = |block: &usize| {
            let mut left = self.outstanding();
            left.any(|request| request.operation.changes() && blocks(&request.operation).contains(block))
        };
        let wrong = |block: &usize| disk.word(*block) != self.newest(*block) && !touched(block);
        let block = (0..BLOCKS).find(wrong)?;
        Some(format!(
            "block {block} of a disk has {:#x}, and {:#x} was written last",
            disk.word(block),
            self.newest(block)
        ))
    }
}

/// An operation as words: its sort, its place, and what it writes or how much it is about.
fn operation_words(operation: &Operation) -> Vec<u64> {
    let range = operation.range().unwrap_or(0..0);
    let sort = match operation {
        Operation::Read { .. } => 0,
        Operation::Write { .. } => 1,
        Operation::Flush => 2,
        Operation::Discard { .. } => 3,
        Operation::WriteZeroes { may_unmap, .. } => 4 + u64::from(*may_unmap),
    };
    let mut words = vec![sort, range.start, range.end - range.start];
    if let Operation::Write { bytes, .. } = operation {
        let (written, _) = bytes.as_chunks::<BLOCK_BYTES>();
        words.extend(written.iter().map(|word| u64::from_le_bytes(*word)));
    }
    words
}

fn read_operation(next: &mut impl FnMut() -> Option<u64>) -> Option<Operation> {
    let (sort, offset_bytes, length_bytes) = (next()?, next()?, next()?);
    Some(match sort {
        0 => Operation::Read {
            offset_bytes,
            length_bytes: length_bytes as u32,
        },
        1 => {
            let mut bytes = Vec::new();
            for _ in 0..length_bytes / BLOCK_BYTES as u64 {
                bytes.extend(next()?.to_le_bytes());
            }
            Operation::Write { offset_bytes, bytes }
        }
        2 => Operation::Flush,
        3 => Operation::Discard {
            offset_bytes,
            length_bytes,
        },
        4 | 5 => Operation::WriteZeroes {
            offset_bytes,
            length_bytes,
            may_unmap: sort == 5,
        },
        _ => return None,
    })
}

/// An operation of one to three blocks.
fn operation(chance: u64) -> Operation {
    let among = if chance >> 40 & 1 == 0 {
        BUSY_BLOCKS
    } else {
        BLOCKS
    };
    let first = chance % among as u64;
    let count = (1 + (chance >> 8) % 3).min(BLOCKS as u64 - first);
    let offset_bytes = first * BLOCK_BYTES as u64;
    let length_bytes = count * BLOCK_BYTES as u64;
    match (chance >> 16) % 10 {
        0..=3 => Operation::Write {
            offset_bytes,
            bytes: (0..count)
                .flat_map(|nth| (mix(chance) ^ nth).to_le_bytes())
                .collect(),
        },
        4..=6 => Operation::Read {
            offset_bytes,
            length_bytes: length_bytes as u32,
        },
        7..=8 => Operation::Flush,
        _ => Operation::WriteZeroes {
            offset_bytes,
            length_bytes,
            may_unmap: chance >> 32 & 1 == 0,
        },
    }
}
