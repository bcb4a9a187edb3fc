//! The start: which half counts, its records replayed, and a torn end cut.

use super::layout::{DISK_BYTES_MIN, FRONT_BYTES, PAGE_BYTES, Superblock, Unreadable};
use super::log::{Policy, UNFLUSHED_BYTES_MAX, write_at};
use super::record::{self, BODY_BYTES_MAX, Found, HEAD_BYTES, Kind, WORD_BYTES, record_bytes};
use super::{AppendOnly, Storage, StorageError};
use crate::client::Client;
use crate::command;
use crate::context::{Context, Moment};
use crate::database::{Clock, Database};
use crate::reply::Reply;
use crate::session::Next;
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

/// Bytes that are read at a time.
const PIECE_BYTES: usize = 1 << 20;
const NS_PER_MS: u64 = 1_000_000;

/// Why there is no file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OpenError {
    /// The disk cannot be written.
    ReadOnly,
    /// The disk has too few bytes.
    TooSmall(u64),
    /// The disk holds something else.
    Foreign,
    /// The file has a version that is not known.
    Version(u64),
    /// The disk is smaller than when the file was made: then, and now.
    Shrunk(u64, u64),
    /// A record is broken that a later one says was durable: their numbers.
    Damaged(u64, u64),
    /// The disk did not do what it was asked.
    Storage(StorageError),
}

impl fmt::Display for OpenError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::ReadOnly => formatter.write_str("the disk cannot be written"),
            Self::TooSmall(bytes) => write!(
                formatter,
                "the disk has {bytes} bytes, and the file needs {DISK_BYTES_MIN}"
            ),
            Self::Foreign => formatter.write_str(
                "the disk holds something else than an append-only file; one is made where its first 8 KiB are zeros",
            ),
            Self::Version(version) => write!(formatter, "the file's format has the unknown version {version}"),
            Self::Shrunk(then, now) => {
                write!(formatter, "the disk had {then} bytes when the file was made, and has {now}")
            }
            Self::Damaged(broken, later) => write!(
                formatter,
                "the file is damaged: record {broken} is broken, and record {later} says that it was durable"
            ),
            Self::Storage(error) => error.fmt(formatter),
        }
    }
}

impl From<StorageError> for OpenError {
    fn from(error: StorageError) -> Self {
        Self::Storage(error)
    }
}

/// Content that was found.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// The disk was empty, and the file was made.
    pub is_new: bool,
    /// Records that were replayed.
    pub records: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Bytes of records that were cut behind them: they were not durable.
    pub cut_bytes: u64,
    /// Milliseconds since 1970 of the last record; 0 without one.
    pub last_ms: u64,
}

/// The clock as it was when a command was done.
struct Then {
    time_ms: u64,
    wall_ns: u64,
}

impl Clock for Then {
    fn monotonic_ns(&mut self) -> u64 {
        self.time_ms.saturating_mul(NS_PER_MS)
    }

    fn wall_ns(&mut self) -> u64 {
        self.wall_ns
    }
}

/// Remains of what was being written when the power went, behind the last record.
struct Behind {
    /// Bytes up to the end of the last whole record.
    cut_bytes: u64,
    /// Bytes up to the last that is not zero: parts of records too, which the next record could make
    /// whole when the power goes while it is written.
    used_bytes: u64,
}

impl AppendOnly {
    /// Opens the file on a disk and replays it into an empty database, or makes one on an empty
    /// disk.
    ///
    /// # Errors
    /// The disk holds no such file, and is not empty; the file is damaged; or the disk fails.
    pub fn open(
        mut storage: Box<dyn Storage>,
        policy: Policy,
        database: &mut Database,
    ) -> Result<(Self, Opened), OpenError> {
        let disk_bytes = storage.size_bytes();
        if !storage.is_writable() {
            return Err(OpenError::ReadOnly);
        }
        if disk_bytes < DISK_BYTES_MIN {
            return Err(OpenError::TooSmall(disk_bytes));
        }
        let found = find(&mut *storage)?;
        let superblock = match found {
            Some(superblock) if superblock.disk_bytes > disk_bytes => {
                return Err(OpenError::Shrunk(superblock.disk_bytes, disk_bytes));
            }
            Some(superblock) => superblock,
            None => Superblock {
                disk_bytes,
                generation: 1,
                salt: storage.random(),
                sequence: 0,
            },
        };
        let mut file = Self {
            storage,
            policy,
            superblock,
            end: 0,
            tail: Vec::new(),
            pending: Vec::new(),
            sequence: superblock.sequence,
            previous: superblock.first_previous(),
            durable: superblock.sequence,
            committed_ms: 0,
            base_bytes: 0,
            rewrites: 0,
            too_large_at: None,
            failed: None,
        };
        let mut opened = Opened::default();
        if found.is_some() {
            file.replay(database, &mut opened)?;
        } else {
            file.write_superblock(&superblock)?;
            opened.is_new = true;
        }
        file.committed_ms = opened.last_ms;
        Ok((file, opened))
    }

    fn replay(&mut self, database: &mut Database, opened: &mut Opened) -> Result<(), OpenError> {
        let mut window = Window::new(self.superblock);
        let mut replayer = Replayer::new(database);
        while let Some(found) = window.whole_record(&mut *self.storage, self.end)? {
            if found.head.sequence != self.sequence + 1 || found.head.previous != self.previous {
                break;
            }
            let body_place = self.end + HEAD_BYTES as u64;
            let body = window.get(&mut *self.storage, body_place, found.body_bytes)?;
            replayer.apply(&found, body.unwrap_or_default());
            self.end += record_bytes(found.body_bytes) as u64;
            (self.sequence, self.previous) = (found.head.sequence, found.check);
            opened.records += 1;
            opened.last_ms = opened.last_ms.max(found.head.time_ms);
        }
        replayer.finish();
        opened.bytes = self.end;
        self.durable = self.sequence;
        self.base_bytes = self.end;
        let behind = self.look_behind()?;
        opened.cut_bytes = behind.cut_bytes;
        self.cut(behind.used_bytes)
    }

    /// Looks at what was being written behind the last record when the power went.
    fn look_behind(&mut self) -> Result<Behind, OpenError> {
        let half_bytes = self.superblock.half_bytes();
        let until = half_bytes.min(self.end + UNFLUSHED_BYTES_MAX as u64);
        // A window of its own: the first one has passed over some of it.
        let mut window = Window::new(self.superblock);
        let (mut place, mut cut_end, mut used_end) = (self.end, self.end, self.end);
        while place < until {
            let Some(found) = window.whole_record(&mut *self.storage, place)? else {
                let word = window.get(&mut *self.storage, place, WORD_BYTES)?;
                place += WORD_BYTES as u64;
                if word.is_some_and(|word| word.iter().any(|byte| *byte != 0)) {
                    used_end = place;
                }
                continue;
            };
            if found.head.durable > self.sequence {
                return Err(OpenError::Damaged(self.sequence + 1, found.head.sequence));
            }
            place += record_bytes(found.body_bytes) as u64;
            (cut_end, used_end) = (place, place);
        }
        Ok(Behind {
            cut_bytes: cut_end - self.end,
            used_bytes: used_end - self.end,
        })
    }

    /// Writes zeros over so many bytes behind the last record, so that none of them is taken for a
    /// record later. Keeps what the last block holds.
    fn cut(&mut self, bytes: u64) -> Result<(), OpenError> {
        let block_bytes = self.storage.block_bytes() as u64;
        let half_place = self.superblock.half_place();
        let begin = self.end / block_bytes * block_bytes;
        let mut block = vec![0; block_bytes as usize];
        if begin < self.end {
            self.storage.read(half_place + begin, &mut block)?;
        }
        block.truncate((self.end - begin) as usize);
        self.tail = block;
        if bytes > 0 {
            let mut tail = self.tail.clone();
            let mut place = half_place + self.end;
            let end = place + bytes;
            while place < end {
                let length = (end - place).min(PIECE_BYTES as u64);
                let zeros = vec![0; length as usize];
                write_at(&mut *self.storage, place, &mut tail, &zeros)?;
                place += length;
            }
            self.storage.flush()?;
        }
        Ok(())
    }
}

/// The superblock that counts; none where the disk is empty.
fn find(storage: &mut dyn Storage) -> Result<Option<Superblock>, OpenError> {
    let mut front = vec![0; FRONT_BYTES as usize];
    storage.read(0, &mut front)?;
    let (even, odd) = front.split_at(PAGE_BYTES as usize);
    let mut found = [even, odd].map(Superblock::read);
    // One that is in the other's place was never written there.
    for (parity, read) in found.iter_mut().enumerate() {
        if read.is_ok_and(|superblock| superblock.generation % 2 != parity as u64) {
            *read = Err(Unreadable::Foreign);
        }
    }
    match found {
        [Ok(one), Ok(other)] => Ok(Some(if one.generation > other.generation {
            one
        } else {
            other
        })),
        [Ok(only), Err(Unreadable::Zeros)] | [Err(Unreadable::Zeros), Ok(only)] => Ok(Some(only)),
        [Err(Unreadable::Zeros), Err(Unreadable::Zeros)] => Ok(None),
        [Err(Unreadable::Version(version)), _] | [_, Err(Unreadable::Version(version))] => {
            Err(OpenError::Version(version))
        }
        [Err(_), _] | [_, Err(_)] => Err(OpenError::Foreign),
    }
}

/// Part of a half, as it was read.
struct Window {
    superblock: Superblock,
    /// Its beginning, in the half.
    start: u64,
    bytes: Vec<u8>,
}

impl Window {
    fn new(superblock: Superblock) -> Self {
        Self {
            superblock,
            start: 0,
            bytes: Vec::new(),
        }
    }

    /// So many bytes from `place` of the half on, where it has them.
    fn get(
        &mut self,
        storage: &mut dyn Storage,
        place: u64,
        length: usize,
    ) -> Result<Option<&[u8]>, StorageError> {
        let half_bytes = self.superblock.half_bytes();
        let end = place + length as u64;
        if end > half_bytes {
            return Ok(None);
        }
        if place < self.start || end > self.start + self.bytes.len() as u64 {
            let block_bytes = storage.block_bytes() as u64;
            self.start = place / block_bytes * block_bytes;
            let wanted = (end - self.start).max(PIECE_BYTES as u64);
            let wanted = wanted.next_multiple_of(block_bytes).min(half_bytes - self.start);
            self.bytes.clear();
            self.bytes.resize(wanted as usize, 0);
            storage.read(self.superblock.half_place() + self.start, &mut self.bytes)?;
        }
        let from = (place - self.start) as usize;
        Ok(self.bytes.get(from..from + length))
    }

    /// The record at `place` of the half, if there is a whole one.
    fn whole_record(&mut self, storage: &mut dyn Storage, place: u64) -> Result<Option<Found>, StorageError> {
        let Some(found) = self.get(storage, place, HEAD_BYTES)?.and_then(record::read_head) else {
            return Ok(None);
        };
        let padded_bytes = record_bytes(found.body_bytes) - HEAD_BYTES;
        let salt = self.superblock.salt;
        let body = self.get(storage, place + HEAD_BYTES as u64, padded_bytes)?;
        Ok(body
            .is_some_and(|body| found.is_whole(salt, body))
            .then_some(found))
    }
}

/// Does again what the records say.
struct Replayer<'d> {
    database: &'d mut Database,
    client: Client,
    spans: Vec<crate::arguments::Span>,
    output: Vec<u8>,
}

impl<'d> Replayer<'d> {
    fn new(database: &'d mut Database) -> Self {
        database.is_replaying = true;
        Self {
            database,
            client: Client::new(0),
            spans: Vec::new(),
            output: Vec::new(),
        }
    }

    fn apply(&mut self, found: &Found, body: &[u8]) {
        if found.head.kind == Kind::Deadline {
            if let Some((deadline_ms, key)) = record::read_deadline(body) {
                self.database.keyspace.set_deadline(key, Some(deadline_ms));
            }
            return;
        }
        if record::read_command(body, &mut self.spans).is_none() {
            return;
        }
        let mut then = Then {
            time_ms: found.head.time_ms,
            wall_ns: found.head.wall_ns,
        };
        self.output.clear();
        let mut context = Context {
            database: &mut *self.database,
            client: &mut self.client,
            moment: &mut Moment::new(&mut then),
            reply: Reply::new(&mut self.output),
            next: Next::Open,
        };
        command::execute(&mut context, &record::arguments(body, &self.spans));
    }

    /// Ends the replay: what was counted is nobody's.
    fn finish(self) {
        self.database.is_replaying = false;
        self.database.commands_processed = 0;
        self.database.keyspace.forget_expired();
    }
}

const _: () = assert!(BODY_BYTES_MAX + HEAD_BYTES + WORD_BYTES <= UNFLUSHED_BYTES_MAX);
