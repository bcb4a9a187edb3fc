//! A side's disk: an image with a volatile cache, and who carries requests out. The order of
//! requests is the real one.
//!
//! What is done is in the cache; a flush moves all of it to the medium. Where the host loses its
//! power, each block in the cache survives or does not, whenever it was written. What is being done
//! when its process dies is done, in part, or not at all.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use lockstep_core::machine::disk::{Operation, Request};
use lockstep_core::replica::disk_order::{DiskOrder, Held};
use lockstep_core::replica::replayer::OwnRead;
use lockstep_logging_channel::ReadData;

use super::plan::US;
use super::rng::Rng;

/// Blocks of a disk: few, so that requests are in each other's way.
pub const BLOCKS: usize = 8;

/// Bytes of a block.
pub const BLOCK_BYTES: usize = 8;

/// Shortest and longest time that a request takes.
const TAKES_NS: (u64, u64) = (5 * US, 900 * US);

/// Time after which a side that waits for a shared image looks again.
const LOOKS_AGAIN_NS: u64 = 200 * US;

/// Content of a disk.
#[derive(Clone, Debug, Default)]
pub struct Image {
    medium: [u64; BLOCKS],
    /// Blocks that were changed since the last flush, in order.
    cache: Vec<(usize, u64)>,
}

/// Blocks that an operation is about.
pub fn blocks(operation: &Operation) -> std::ops::Range<usize> {
    operation.range().map_or(0..0, |range| {
        range.start as usize / BLOCK_BYTES..range.end as usize / BLOCK_BYTES
    })
}

/// Blocks that an operation changes, each with what it has then.
pub fn changes(operation: &Operation) -> Vec<(usize, u64)> {
    let word = |nth: usize| match operation {
        Operation::Write { bytes, .. } => {
            let (words, _) = bytes.as_chunks::<BLOCK_BYTES>();
            words.get(nth).map_or(0, |word| u64::from_le_bytes(*word))
        }
        _ => 0,
    };
    if !operation.changes() {
        return Vec::new();
    }
    blocks(operation)
        .enumerate()
        .map(|(nth, block)| (block, word(nth)))
        .collect()
}

impl Image {
    /// What a block has.
    #[must_use]
    pub fn word(&self, block: usize) -> u64 {
        let newest = self.cache.iter().rfind(|(changed, _)| *changed == block);
        newest.map_or(self.medium[block], |(_, word)| *word)
    }

    fn flush(&mut self) {
        for (block, word) in std::mem::take(&mut self.cache) {
            self.medium[block] = word;
        }
    }

    fn carry_out(&mut self, operation: &Operation) -> ReadData {
        match operation {
            Operation::Read { .. } => {
                let words = blocks(operation).flat_map(|block| self.word(block).to_le_bytes());
                return ReadData::Bytes(words.collect());
            }
            Operation::Flush => self.flush(),
            _ => self.cache.extend(changes(operation)),
        }
        ReadData::Nothing
    }

    /// Carries out a part of a change.
    fn tear(&mut self, operation: &Operation, rng: &mut Rng) {
        let changes = changes(operation).into_iter();
        self.cache.extend(changes.filter(|_| rng.once_in(2)));
    }

    /// The host loses its power.
    fn lose_power(&mut self, rng: &mut Rng) {
        let mut left = std::mem::take(&mut self.cache);
        while !left.is_empty() {
            let (block, word) = left.swap_remove(rng.below(left.len() as u64) as usize);
            if rng.once_in(2) {
                self.medium[block] = word;
            }
        }
    }

    /// A copy of it, on a medium.
    fn copied(&self) -> Self {
        let mut copied = self.clone();
        copied.flush();
        copied
    }
}

/// What two sides share: the image, and the process that has it open.
#[derive(Clone, Debug, Default)]
pub struct Place {
    image: Rc<RefCell<Image>>,
    opened_by: Rc<Cell<Option<u32>>>,
}

/// The disk of a process.
#[derive(Debug)]
pub struct Disk {
    /// What may be done.
    pub order: DiskOrder,
    held: Held,
    process: u32,
    place: Place,
    /// What is being done, each with the time at which it is.
    busy: Vec<(u64, Request)>,
    /// Another process has the image open.
    waits: bool,
    /// Reads of a replay until one gives something else than it should.
    misreads_in: Option<u32>,
    /// It has.
    pub misread: bool,
    rng: Rng,
}

impl Disk {
    /// The disk of a process that is live, or not.
    #[must_use]
    pub fn new(held: Held, live: bool, process: u32, place: Place, seed: u64) -> Self {
        Self {
            order: DiskOrder::new(held, live),
            held,
            process,
            place,
            busy: Vec::new(),
            waits: false,
            misreads_in: None,
            misread: false,
            rng: Rng::new(seed),
        }
    }

    /// The same, which gives something else than it should in the place of a read of its replay.
    #[must_use]
    pub fn misreading(self, misreads_in: Option<u32>) -> Self {
        Self { misreads_in, ..self }
    }

    /// True where both sides have the same.
    #[must_use]
    pub fn is_shared(&self) -> bool {
        self.held == Held::Shared
    }

    /// The place of a newcomer's: the same, or one with a copy.
    #[must_use]
    pub fn place_of_newcomer(&self) -> Place {
        match self.held {
            Held::Shared => self.place.clone(),
            Held::Alone => Place {
                image: Rc::new(RefCell::new(self.place.image.borrow().copied())),
                opened_by: Rc::default(),
            },
        }
    }

    /// Does what is due, and begins what may be. Gives what no host may do, where it did.
    pub fn advance(&mut self, clock_ns: u64, live: bool) -> Option<&'static str> {
        self.busy
            .sort_by_key(|(done_ns, request)| (*done_ns, request.number));
        while self.busy.first().is_some_and(|(done_ns, _)| *done_ns <= clock_ns) {
            let (_, request) = self.busy.remove(0);
            self.finish(&request);
        }
        self.waits = self.is_shared() && live && !self.open();
        if self.waits {
            return None;
        }
        while let Some(request) = self.order.start() {
            if self.is_shared() && !live {
                return Some("who replays touches a shared disk");
            }
            let (shortest_ns, longest_ns) = TAKES_NS;
            let takes_ns = self.rng.within(shortest_ns, longest_ns);
            self.busy.push((clock_ns + takes_ns, request));
        }
        None
    }

    fn finish(&mut self, request: &Request) {
        let read = self.place.image.borrow_mut().carry_out(&request.operation);
        self.order.done(request.number, read);
    }

    /// Opens a shared image, unless another process has it.
    fn open(&self) -> bool {
        let by = &self.place.opened_by;
        if by.get().is_none() {
            by.set(Some(self.process));
        }
        by.get() == Some(self.process)
    }

    /// Time at which something is due.
    #[must_use]
    pub fn next_ns(&self, clock_ns: u64) -> Option<u64> {
        let again_ns = self.waits.then_some(clock_ns + LOOKS_AGAIN_NS);
        let due_ns = self.busy.iter().map(|(done_ns, _)| *done_ns);
        due_ns.chain(again_ns).min()
    }

    /// The log says that this request is done. None where this disk is not ready.
    pub fn replayed(&mut self, number: u64) -> Option<Option<OwnRead>> {
        if !self.is_shared() && !self.order.is_done(number) {
            return None;
        }
        let mut own = self.order.replayed(number);
        if let (Some(read), Some(left)) = (&mut own, &mut self.misreads_in) {
            if *left == 0 {
                read.bytes[0] ^= 1;
                self.misread = true;
                self.misreads_in = None;
            } else {
                *left -= 1;
            }
        }
        Some(own)
    }

    /// The process ends in good order: what was begun is done.
    pub fn close(&mut self) {
        for (_, request) in std::mem::take(&mut self.busy) {
            self.finish(&request);
        }
        self.leave();
    }

    /// The process dies, and with it, where `power` is lost, its host. What is shared is elsewhere.
    pub fn crash(&mut self, power: bool) {
        let place = self.place.clone();
        let image = &mut *place.image.borrow_mut();
        for (_, request) in std::mem::take(&mut self.busy) {
            match self.rng.below(3) {
                0 => drop(image.carry_out(&request.operation)),
                1 => image.tear(&request.operation, &mut self.rng),
                _ => (),
            }
        }
        if power && self.held == Held::Alone {
            image.lose_power(&mut self.rng);
        }
        self.leave();
    }

    fn leave(&self) {
        if self.place.opened_by.get() == Some(self.process) {
            self.place.opened_by.set(None);
        }
    }

    /// What a block has on the medium.
    #[must_use]
    pub fn on_medium(&self, block: usize) -> u64 {
        self.place.image.borrow().medium[block]
    }

    /// What a block has.
    #[must_use]
    pub fn word(&self, block: usize) -> u64 {
        self.place.image.borrow().word(block)
    }
}
