//! The load of one disk.
//!
//! ```text
//!   header ─► manners ─► survey ─► work ─► seal ─► review ─► over
//!      read, then     the area is     requests     flushed    the area is compared
//!      one refused    compared                                once more
//!
//!   of a disk that cannot be written:  header ─► manners ─► survey ─► over
//! ```
//!
//! While it works, a flush that is complete has made durable whatever was complete when it was
//! made. That is written into the header, and another flush makes the header durable. Requests are
//! never more than [`WINDOW`] ahead of that: a guest that begins again knows which requests may
//! have been done.

use crate::content;
use crate::header::Header;
use crate::ledger::{Difference, Held, Ledger};
use crate::options::Options;
use crate::outcome::{Note, Wrong};
use crate::plan::{Operation, Plan, STEP_SECTORS_MAX, Step};
use alloc::collections::{BTreeMap, VecDeque};
use alloc::vec;
use alloc::vec::Vec;
use core::ops::Range;
use lockstep_guest_runtime::digest::Digest;
use lockstep_guest_runtime::requests::{self, Completed, Failed, Request, SECTOR_BYTES, Shape};

/// Requests that may have been done beyond those that the header says are durable.
pub const WINDOW: u64 = 4096;
/// Sectors before the area: the header, alone in its page.
pub const HEADER_SECTORS: u64 = 8;
const HEADER_BYTES: usize = HEADER_SECTORS as usize * SECTOR_BYTES;

/// Marks of requests that are not of the plan, whose marks are their numbers.
const MARK_HEADER: u64 = 1 << 63;
const MARK_FLUSH: u64 = 1 << 62;
const MARK_MANNERS: u64 = 1 << 61;
/// With the first sector that is read.
const MARK_AREA: u64 = 1 << 60;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Header,
    Manners,
    Survey,
    Work,
    Seal,
    Review,
    Over,
}

/// A request of the plan on its way.
struct Outstanding {
    step: Step,
    /// Content that a read must find.
    marks: Vec<u64>,
    /// Requests before this one were complete when a flush was made.
    covers: u64,
}

/// The load of one disk.
pub struct Load {
    options: Options,
    plan: Plan,
    shape: Shape,
    phase: Phase,
    ledger: Ledger,
    header: Header,
    /// Sectors that a request after the flushed ones may have filled with zeros.
    zeroable: Vec<bool>,
    newer: u64,
    /// False for a disk that cannot be written and is of no load.
    is_compared: bool,
    /// Value of `flushed` in the header that was written last.
    written: u64,
    /// Value of `flushed` in the header that is durable.
    durable: u64,
    /// Requests of the plan before this one were issued.
    next: u64,
    first: u64,
    /// Next sector of the area to be read, while all of it is.
    area_next: u64,
    /// Digests of its pieces, by their first sectors.
    pieces: BTreeMap<u64, u64>,
    outstanding: BTreeMap<u64, Outstanding>,
    /// Requests on their way that are not of the plan.
    others: usize,
    header_is_wanted: bool,
    flush_is_wanted: bool,
    done: u64,
    read_bytes: u64,
    read: u64,
    notes: VecDeque<Note>,
}

impl Load {
    /// The load of a disk, with a seed of its own.
    ///
    /// # Errors
    /// The disk is too small.
    pub fn new(options: Options, seed: u64, shape: Shape) -> Result<Self, Wrong> {
        let block_sectors = u64::from(shape.block_bytes) / SECTOR_BYTES as u64;
        let sectors = shape.sectors.saturating_sub(HEADER_SECTORS);
        let sectors = sectors.min(options.area_bytes / SECTOR_BYTES as u64);
        let sectors = sectors / block_sectors * block_sectors;
        if sectors == 0 {
            return Err(Wrong::TooSmall);
        }
        let plan = Plan {
            seed,
            sectors,
            block_sectors,
            discards: u64::from(shape.discard_sectors_max) >= STEP_SECTORS_MAX,
            zeroes: u64::from(shape.zeroed_sectors_max) >= STEP_SECTORS_MAX,
        };
        Ok(Self {
            options,
            plan,
            shape,
            phase: Phase::Header,
            ledger: Ledger::new(seed, sectors),
            header: Header {
                seed,
                sectors,
                kinds: plan.kinds(),
                flushed: 0,
                boots: 0,
            },
            zeroable: Vec::new(),
            newer: 0,
            is_compared: true,
            written: 0,
            durable: 0,
            next: 0,
            first: 0,
            area_next: 0,
            pieces: BTreeMap::new(),
            outstanding: BTreeMap::new(),
            others: 0,
            header_is_wanted: true,
            flush_is_wanted: false,
            done: 0,
            read_bytes: 0,
            read: 0,
            notes: VecDeque::new(),
        })
    }

    /// True if there is nothing more to do.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.phase == Phase::Over
    }

    /// The next thing there is to say.
    pub fn note(&mut self) -> Option<Note> {
        self.notes.pop_front()
    }

    /// The next request for the disk, if there is one to be made now.
    pub fn next_request(&mut self) -> Option<Request> {
        if self.others + self.outstanding.len() >= self.options.in_flight {
            return None;
        }
        match self.phase {
            Phase::Header => self.header_read(),
            Phase::Manners => self.bad_request(),
            Phase::Survey | Phase::Review => self.area_read(),
            Phase::Work | Phase::Seal => self
                .housekeeping()
                .or_else(|| (self.phase == Phase::Work).then(|| self.work()).flatten()),
            Phase::Over => None,
        }
    }

    /// Takes a request that the disk has given back.
    ///
    /// # Errors
    /// It is not as it must be.
    pub fn completed(&mut self, done: &Completed) -> Result<(), Wrong> {
        let mark = done.request.mark;
        if mark == MARK_MANNERS {
            self.others -= 1;
            self.phase = Phase::Survey;
            return match done.result {
                Err(Failed::Error) => Ok(()),
                _ => Err(Wrong::Accepted(done.request.operation)),
            };
        }
        done.result
            .map_err(|failed| Wrong::Failed(done.request.operation, failed))?;
        let buffer = done.request.buffer.as_slice();
        if mark < MARK_AREA {
            return self.step_completed(mark, buffer);
        }
        self.others -= 1;
        match mark {
            MARK_HEADER if self.phase == Phase::Header => self.header_found(buffer)?,
            MARK_HEADER => {
                let written = Header::read(buffer).map_err(|()| Wrong::Foreign)?;
                self.written = written.map_or(self.written, |header| header.flushed);
                self.flush_is_wanted = true;
            }
            MARK_FLUSH => self.durable = self.written,
            _ => self.area_completed(mark & !MARK_AREA, buffer)?,
        }
        if self.phase == Phase::Seal && self.is_sealed() {
            self.begin_reading(Phase::Review);
        }
        Ok(())
    }

    fn other(&mut self, operation: requests::Operation, buffer: Vec<u8>, mark: u64) -> Option<Request> {
        self.others += 1;
        Some(Request {
            operation,
            buffer,
            mark,
        })
    }

    fn header_read(&mut self) -> Option<Request> {
        if !core::mem::take(&mut self.header_is_wanted) {
            return None;
        }
        let operation = requests::Operation::Read { sector: 0 };
        self.other(operation, vec![0; HEADER_BYTES], MARK_HEADER)
    }

    /// One that a disk must refuse: to write what cannot be written, or to read what is not there.
    fn bad_request(&mut self) -> Option<Request> {
        if self.others > 0 {
            return None;
        }
        let operation = if self.shape.read_only {
            requests::Operation::Write { sector: 0 }
        } else {
            let sector = self.shape.sectors;
            requests::Operation::Read { sector }
        };
        self.other(operation, vec![0; HEADER_BYTES], MARK_MANNERS)
    }

    fn header_found(&mut self, buffer: &[u8]) -> Result<(), Wrong> {
        let found = Header::read(buffer);
        self.phase = Phase::Manners;
        if self.shape.read_only && !matches!(found, Ok(Some(_))) {
            self.is_compared = false;
            return Ok(());
        }
        if let Some(found) = found.map_err(|()| Wrong::Foreign)? {
            let is_own = (found.seed, found.sectors) == (self.header.seed, self.header.sectors);
            // One that cannot be written has fewer kinds than when it could.
            if !is_own || !self.shape.read_only && found.kinds != self.header.kinds {
                return Err(Wrong::Other(found));
            }
            self.plan = self.plan.with_kinds(found.kinds);
            self.header = found;
            self.recall();
        }
        self.header.boots += u64::from(!self.shape.read_only);
        Ok(())
    }

    /// Computes what the disk must hold by its header.
    fn recall(&mut self) {
        let flushed = self.header.flushed;
        for number in 0..flushed {
            self.ledger.apply(number, &self.plan.step(number));
        }
        self.zeroable = vec![false; self.plan.sectors as usize];
        for step in (flushed..flushed + WINDOW).map(|number| self.plan.step(number)) {
            if matches!(step.operation, Operation::Discard | Operation::WriteZeroes) {
                let range = step.sectors.start as usize..step.sectors.end as usize;
                self.zeroable.get_mut(range).unwrap_or_default().fill(true);
            }
        }
        (self.first, self.next) = (flushed, flushed);
        (self.written, self.durable) = (flushed, flushed);
    }

    fn begin_reading(&mut self, phase: Phase) {
        self.phase = phase;
        self.area_next = 0;
        self.pieces.clear();
    }

    fn area_read(&mut self) -> Option<Request> {
        let from = self.area_next;
        let count = STEP_SECTORS_MAX.min(self.plan.sectors - from);
        if count == 0 {
            return None;
        }
        self.area_next += count;
        let sector = HEADER_SECTORS + from;
        let buffer = vec![0; count as usize * SECTOR_BYTES];
        self.other(requests::Operation::Read { sector }, buffer, MARK_AREA | from)
    }

    fn area_completed(&mut self, from: u64, buffer: &[u8]) -> Result<(), Wrong> {
        self.read_bytes += buffer.len() as u64;
        let mut digest = Digest::default();
        digest.bytes(buffer);
        self.pieces.insert(from, digest.value());
        let marks = Vec::from(self.ledger.marks(from, (buffer.len() / SECTOR_BYTES) as u64));
        for compared in self.ledger.compared(from, &marks, buffer) {
            if compared.expected == compared.found || !self.is_compared {
                continue;
            }
            if self.phase != Phase::Survey || !self.may_be_newer(&compared) {
                return Err(Wrong::Differs(compared));
            }
            self.newer += 1;
            self.ledger.found(compared.sector, compared.found);
        }
        if self.area_next == self.plan.sectors && self.others == 0 {
            self.area_is_read();
        }
        Ok(())
    }

    /// True if a request that was not flushed explains what a sector holds.
    fn may_be_newer(&self, compared: &Difference) -> bool {
        let flushed = self.durable;
        match compared.found {
            Held::Of(number) => {
                let step = self.plan.step(number);
                !self.zeroable.is_empty()
                    && (flushed..flushed + WINDOW).contains(&number)
                    && step.operation == Operation::Write
                    && step.sectors.contains(&compared.sector)
            }
            Held::Zeros => self.zeroable.get(compared.sector as usize) == Some(&true),
            Held::Nonsense => false,
        }
    }

    fn area_is_read(&mut self) {
        let (header, newer) = (self.header, self.newer);
        if self.phase == Phase::Survey {
            self.notes.push_back(Note::Begins { header, newer });
            if !self.shape.read_only {
                self.phase = Phase::Work;
                // Before any request of the plan: a disk without header was never written.
                self.header_is_wanted = true;
                return;
            }
        }
        self.phase = Phase::Over;
        let mut content = Digest::default();
        self.pieces.values().for_each(|piece| content.number(*piece));
        self.notes.push_back(Note::Over {
            requests: self.done,
            read_bytes: self.read_bytes,
            read: self.read,
            content: content.value(),
        });
    }

    /// The header and its flush, one at a time.
    fn housekeeping(&mut self) -> Option<Request> {
        if self.others > 0 {
            return None;
        }
        if core::mem::take(&mut self.flush_is_wanted) {
            return self.other(requests::Operation::Flush, Vec::new(), MARK_FLUSH);
        }
        if core::mem::take(&mut self.header_is_wanted) {
            let mut buffer = vec![0; HEADER_BYTES];
            self.header.write(&mut buffer);
            return self.other(requests::Operation::Write { sector: 0 }, buffer, MARK_HEADER);
        }
        None
    }

    fn work(&mut self) -> Option<Request> {
        let is_begun = self.next > self.first || self.is_sealed();
        let end = self.first.saturating_add(self.options.requests);
        if self.next == end {
            if self.outstanding.is_empty() {
                // All of them are complete: one flush makes them durable, then the header says so.
                self.phase = Phase::Seal;
                self.header.flushed = end;
                self.flush_is_wanted = true;
                self.header_is_wanted = true;
                return self.housekeeping();
            }
            return None;
        }
        let step = self.plan.step(self.next);
        if !is_begun || self.next >= self.durable.saturating_add(WINDOW) || self.must_wait(&step) {
            return None;
        }
        let number = self.next;
        self.next += 1;
        Some(self.issue(number, step))
    }

    /// True if nothing is on its way, and the header is durable.
    fn is_sealed(&self) -> bool {
        self.others == 0 && !self.header_is_wanted && !self.flush_is_wanted
    }

    fn must_wait(&self, step: &Step) -> bool {
        let overlaps = |other: &Outstanding| {
            let both_read = [step.operation, other.step.operation] == [Operation::Read; 2];
            !both_read && intersect(&step.sectors, &other.step.sectors)
        };
        !self.options.overlap && self.outstanding.values().any(overlaps)
    }

    fn issue(&mut self, number: u64, step: Step) -> Request {
        let (sector, count) = (
            HEADER_SECTORS + step.sectors.start,
            step.sectors.end - step.sectors.start,
        );
        let sectors = count as u32;
        let mut marks = Vec::new();
        let mut buffer = Vec::new();
        let operation = match step.operation {
            Operation::Read => {
                marks.extend_from_slice(self.ledger.marks(step.sectors.start, count));
                buffer.resize(count as usize * SECTOR_BYTES, 0xAA);
                requests::Operation::Read { sector }
            }
            Operation::Write => {
                buffer.resize(count as usize * SECTOR_BYTES, 0);
                let places = step.sectors.clone().zip(buffer.chunks_exact_mut(SECTOR_BYTES));
                places.for_each(|(place, bytes)| content::fill(self.plan.seed, number, place, bytes));
                requests::Operation::Write { sector }
            }
            Operation::Flush => requests::Operation::Flush,
            Operation::Discard => requests::Operation::Discard { sector, sectors },
            Operation::WriteZeroes => requests::Operation::WriteZeroes {
                sector,
                sectors,
                may_unmap: number.is_multiple_of(2),
            },
        };
        self.ledger.apply(number, &step);
        let covers = self.outstanding.keys().next().copied().unwrap_or(number);
        let outstanding = Outstanding { step, marks, covers };
        self.outstanding.insert(number, outstanding);
        Request {
            operation,
            buffer,
            mark: number,
        }
    }

    fn step_completed(&mut self, number: u64, buffer: &[u8]) -> Result<(), Wrong> {
        let Some(Outstanding { step, marks, covers }) = self.outstanding.remove(&number) else {
            return Ok(());
        };
        self.done += 1;
        if self.options.report > 0 && self.done.is_multiple_of(self.options.report) {
            self.notes.push_back(Note::Progress(self.done));
        }
        match step.operation {
            Operation::Flush if covers > self.header.flushed => {
                self.header.flushed = covers;
                self.header_is_wanted = true;
            }
            Operation::Read => {
                let mut compared = self.ledger.compared(step.sectors.start, &marks, buffer);
                if let Some(difference) = compared.find(|compared| compared.expected != compared.found) {
                    return Err(Wrong::Differs(difference));
                }
                let mut digest = Digest::default();
                digest.number(number);
                digest.bytes(buffer);
                self.read = self.read.wrapping_add(digest.value());
                self.read_bytes += buffer.len() as u64;
            }
            _ => {}
        }
        Ok(())
    }
}

fn intersect(one: &Range<u64>, other: &Range<u64>) -> bool {
    one.start < other.end && other.start < one.end
}
