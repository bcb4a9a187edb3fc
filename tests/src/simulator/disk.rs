//! A side's disk: an image with a volatile cache, and who carries requests out. The order of
//! requests is the real one, and so are the marks of what may differ from the other side's image.
//!
//! What is done is in the cache; a flush moves all of it to the medium. Where the host loses its
//! power, each block in the cache survives or does not, whenever it was written. What is being done
//! when its process dies is done, in part, or not at all.

use std::cell::{Cell, RefCell};
use std::rc::Rc;

use lockstep_core::machine::disk::{Operation, Request};
use lockstep_core::replica::disk_changes::{Part, changed, parts};
use lockstep_core::replica::disk_order::{DiskOrder, Held};
use lockstep_core::replica::replayer::OwnRead;
use lockstep_logging_channel::{ReadData, Sequence};

use super::beside::{BesidePlace, Marks, State};
use super::plan::US;
use super::rng::Rng;

/// Blocks of a disk: most are written seldom, so that what one side has missed is not marked by what
/// comes later.
pub const BLOCKS: usize = 32;

/// Those of them that half of the requests are for: few, so that they are in each other's way.
pub const BUSY_BLOCKS: usize = 8;

/// Bytes of a block.
pub const BLOCK_BYTES: usize = 8;

/// Shortest and longest time that a request takes.
const TAKES_NS: (u64, u64) = (5 * US, 900 * US);

/// Longest time that a mark takes: until a disk that is busy has synced it.
const MARK_TAKES_NS: u64 = 5_000 * US;

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

    /// Puts a block of the holder's there.
    pub fn put(&mut self, block: usize, word: u64) {
        self.cache.push((block, word));
    }

    /// Moves everything to the medium.
    pub fn flush(&mut self) {
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
    /// The image.
    pub image: Rc<RefCell<Image>>,
    /// What is kept beside it.
    pub beside: BesidePlace,
    opened_by: Rc<Cell<Option<u32>>>,
}

impl Place {
    /// The same, with this beside the image.
    #[must_use]
    pub fn with(self, beside: BesidePlace) -> Self {
        Self { beside, ..self }
    }
}

/// A request that is being carried out.
#[derive(Clone, Debug)]
struct Busy {
    /// Time at which this part of it is done.
    done_ns: u64,
    request: Request,
    /// The parts that are done.
    parts: usize,
}

/// The disk of a process.
#[derive(Debug)]
pub struct Disk {
    /// What may be done.
    pub order: DiskOrder,
    held: Held,
    process: u32,
    place: Place,
    /// What is being done.
    busy: Vec<Busy>,
    /// Blocks that may differ from the other side's image, where that has its own.
    marks: Option<Marks>,
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
    pub fn new(
        held: Held,
        live: bool,
        process: u32,
        place: Place,
        outstanding: &[Request],
        seed: u64,
    ) -> Self {
        let mut order = DiskOrder::new(held, live);
        outstanding.iter().for_each(|request| order.ask(request.clone()));
        let marks = (held == Held::Alone).then(|| Marks::new(place.beside.clone(), outstanding));
        Self {
            marks,
            order,
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

    /// The guest asks for this.
    pub fn ask(&mut self, request: Request) {
        if let Some(marks) = &mut self.marks {
            marks.ask(&request);
        }
        self.order.ask(request);
    }

    /// The place of a newcomer's: the same, or one with a copy, and with what is known of it.
    /// Nothing is under way: what was begun is begun again.
    #[must_use]
    pub fn captured<'a>(&mut self, outstanding: impl Iterator<Item = &'a Request>) -> Place {
        let Some(marks) = &mut self.marks else {
            return self.place.clone();
        };
        self.busy.iter_mut().for_each(|busy| busy.parts = 0);
        Place {
            image: Rc::new(RefCell::new(self.place.image.borrow().copied())),
            beside: Rc::new(RefCell::new(marks.captured(outstanding))),
            opened_by: Rc::default(),
        }
    }

    /// Its place.
    #[must_use]
    pub fn place(&self) -> Place {
        self.place.clone()
    }

    /// Makes the image durable, and records the state of the join of `process`, whose image has these
    /// states.
    pub fn record_join(&mut self, process: u32, theirs: &[State]) {
        self.place.image.borrow_mut().flush();
        self.with_marks(|marks| marks.record_join(process, theirs));
    }

    /// Does something with the marks, where there are some.
    pub fn with_marks(&mut self, what: impl FnOnce(&mut Marks)) {
        if let Some(marks) = &mut self.marks {
            what(marks);
        }
    }

    /// The log of this side says that a request is done.
    pub fn logged(&mut self, number: u64, sequence: Sequence) {
        self.with_marks(|marks| marks.logged(number, sequence));
    }

    /// Does what is due, and begins what may be. Gives what no host may do, where it did.
    pub fn advance(&mut self, clock_ns: u64, live: bool) -> Option<&'static str> {
        let order = |busy: &Busy| (busy.done_ns, busy.request.number);
        self.busy.sort_by_key(order);
        while self.busy.first().is_some_and(|busy| busy.done_ns <= clock_ns) {
            let busy = self.busy.remove(0);
            self.go_on(busy);
            self.busy.sort_by_key(order);
        }
        self.waits = self.is_shared() && live && !self.open();
        if self.waits {
            return None;
        }
        while let Some(request) = self.order.start() {
            if self.is_shared() && !live {
                return Some("who replays touches a shared disk");
            }
            self.begin(clock_ns, request, 0);
        }
        None
    }

    fn begin(&mut self, clock_ns: u64, request: Request, parts_done: usize) {
        let (shortest_ns, longest_ns) = TAKES_NS;
        let is_mark = self.marks.is_some()
            && changed(&request.operation).is_some()
            && parts().get(parts_done) == Some(&Part::Mark);
        let longest_ns = if is_mark { MARK_TAKES_NS } else { longest_ns };
        self.busy.push(Busy {
            done_ns: clock_ns + self.rng.within(shortest_ns, longest_ns),
            request,
            parts: parts_done,
        });
    }

    /// A part of a request is done; the next begins.
    fn go_on(&mut self, busy: Busy) {
        let (done_ns, parts) = (busy.done_ns, busy.parts + 1);
        if self.does_part(&busy) {
            self.begin(done_ns, busy.request, parts);
        }
    }

    /// Does the next part of a request. True where another one follows.
    fn does_part(&mut self, busy: &Busy) -> bool {
        let Busy {
            request, parts: done, ..
        } = busy;
        let image = &self.place.image;
        let (Some(marks), Some(range)) = (&mut self.marks, changed(&request.operation)) else {
            let read = image.borrow_mut().carry_out(&request.operation);
            if request.operation == Operation::Flush {
                self.with_marks(|marks| marks.flushed(request.number));
            }
            self.order.done(request.number, read);
            return false;
        };
        match parts()[*done] {
            Part::Mark => marks.mark(request.number, &range),
            Part::Change => drop(image.borrow_mut().carry_out(&request.operation)),
        }
        let is_last = done + 1 == parts().len();
        if is_last {
            self.order.done(request.number, ReadData::Nothing);
        }
        !is_last
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
        let due_ns = self.busy.iter().map(|busy| busy.done_ns);
        due_ns.chain(again_ns).min()
    }

    /// The log says that this request is done. None where this disk is not ready.
    pub fn replayed(&mut self, number: u64) -> Option<Option<OwnRead>> {
        if !self.is_shared() && !self.order.is_done(number) {
            return None;
        }
        let mut own = self.order.replayed(number);
        self.with_marks(|marks| marks.completed(number));
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

    /// What the disk of a guest that is followed without running has done is done here too.
    pub fn change(&mut self, operation: &Operation) {
        if let (Some(marks), Some(range)) = (&mut self.marks, changed(operation)) {
            // Numbers of the guest's requests are not known here, so no state is chosen by them.
            marks.alone();
            marks.mark(0, &range);
        }
        self.place.image.borrow_mut().carry_out(operation);
    }

    /// The process ends in good order: what was begun is done.
    pub fn close(&mut self) {
        for mut busy in std::mem::take(&mut self.busy) {
            while self.does_part(&busy) {
                busy.parts += 1;
            }
        }
        self.leave();
    }

    /// The process dies, and with it, where `power` is lost, its host. What is shared is elsewhere.
    pub fn crash(&mut self, power: bool) {
        let place = self.place.clone();
        let image = &mut *place.image.borrow_mut();
        for Busy {
            request, parts: done, ..
        } in std::mem::take(&mut self.busy)
        {
            if let (Some(marks), Some(range)) = (&mut self.marks, changed(&request.operation))
                && parts()[done] == Part::Mark
            {
                if self.rng.once_in(2) {
                    marks.mark(request.number, &range);
                }
                continue;
            }
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
