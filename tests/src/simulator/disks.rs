//! Disks of a run: which seeds have them, what becomes of them when their processes end, and what is
//! judged.

use lockstep_core::machine::disk::{DiskShape, Operation, Request};
use lockstep_core::machine::divergence::Divergence;
use lockstep_core::machine::door::DoorError;
use lockstep_core::machine::following::ask_again;
use lockstep_core::replica::disk_changes::{Blocks, may_differ};
use lockstep_core::replica::disk_order::Held;
use lockstep_core::replica::role::Input;
use lockstep_logging_channel::{DeviceId, OutputKind};

use super::beside::{Marks, begun};
use super::check::Checker;
use super::cpu::Cpu;
use super::disk::{BLOCK_BYTES, BLOCKS, Disk, Place};
use super::disk_guest::DISK;
use super::marks::Mark;
use super::node::Node;
use super::plan::{Fault, Plan, Planned, Side};
use super::rng::{Rng, mix};
use super::world::World;

/// Makes the draws of this file others than those of the rest of the plan. The seeds of the first
/// 3,000 that alone show a defect of the others have no disk by it, and run as they always did.
const DRAWS: u64 = 0x6469_736b_7320_419a;

/// One seed in so many has a disk.
const SEEDS_A_DISK: u64 = 3;

/// Of those with a disk on each side, in one of so many a replay reads something else.
const SEEDS_A_MISREAD: u64 = 8;

/// Of those in checkpoint mode, one in so many has a disk.
const SEEDS_A_DISK_IN_EPOCHS: u64 = 4;

/// Disk of a plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PlannedDisk {
    /// Whose it is.
    pub held: Held,
    /// The read of the first backup that is wrong, if one is.
    pub misreads_in: Option<u32>,
}

/// Shape of a disk, in sectors that are larger than its few blocks.
pub const SHAPE: DiskShape = DiskShape {
    sectors: 1,
    block_bytes: BLOCK_BYTES as u32,
    read_only: false,
    serial: [0; 20],
};

const _: () = assert!(BLOCKS * BLOCK_BYTES <= 512);

impl Plan {
    /// Gives the guests of some seeds a disk.
    pub(super) fn draw_disk(&mut self, seed: u64) {
        let mut rng = Rng::new(mix(seed ^ DRAWS));
        // Mail that comes later than a timeout is rare, and shows what no other plan does.
        let late = |planned: &Planned| matches!(planned.fault, Fault::Delay { by_ns, .. } if by_ns >= self.timeout_ns);
        let seeds = if self.epoch_ns.is_some() {
            SEEDS_A_DISK_IN_EPOCHS
        } else {
            SEEDS_A_DISK
        };
        if !rng.once_in(seeds) || self.faults.iter().any(late) {
            return;
        }
        let held = if rng.once_in(2) { Held::Alone } else { Held::Shared };
        let jumps = |planned: &Planned| matches!(planned.fault, Fault::Jump { .. });
        let only = self.only_narrow || self.only_crowded;
        let may = !only && self.expected.is_none() && !self.faults.iter().any(jumps);
        let misreads = held == Held::Alone && rng.once_in(SEEDS_A_MISREAD) && may;
        // Who does not run reads nothing.
        let misreads = misreads && self.epoch_ns.is_none();
        self.disk = Some(PlannedDisk {
            held,
            misreads_in: misreads.then(|| rng.below(6) as u32),
        });
    }
}

impl Cpu {
    /// Lets the disk do what it can by now.
    pub(super) fn advance_disk(&mut self) {
        let (clock_ns, live) = (self.clock_ns, self.live);
        if let Some(wrong) = self.disk.as_mut().and_then(|disk| disk.advance(clock_ns, live)) {
            self.wrong.get_or_insert_with(|| wrong.to_owned());
        }
    }

    /// The guest asks its disk for something.
    pub(super) fn ask_disk(&mut self, request: Request) -> Result<(), DoorError> {
        let disk = self.disk.as_mut().ok_or(DoorError::no_disk(DISK))?;
        disk.ask(request);
        self.advance_disk();
        Ok(())
    }

    /// The disk does what that of the guest has done that is followed without running.
    pub(super) fn change_disk(&mut self, changes: Vec<(DeviceId, Operation)>) -> Result<(), DoorError> {
        let disk = self.disk.as_mut().ok_or(DoorError::no_disk(DISK))?;
        for (_, operation) in &changes {
            disk.change(operation);
        }
        self.marks.reach(Mark::DiskChangedBehind);
        Ok(())
    }

    /// True where the disk is that of both sides.
    pub(super) fn shares_disk(&self) -> bool {
        self.disk.as_ref().is_some_and(Disk::is_shared)
    }

    /// The guest goes live: what its disk has left is done.
    pub(super) fn disk_goes_live(&mut self) {
        if let Some(disk) = &mut self.disk {
            let left = !disk.order.is_idle();
            disk.order.go_live();
            if left && self.shares_disk() {
                self.marks.reach(Mark::DiskAskedAgain);
            }
            self.advance_disk();
        }
    }

    /// Time at which the disk is due, on the side's clock.
    pub(super) fn disk_due_ns(&self) -> Option<u64> {
        self.disk.as_ref()?.next_ns(self.clock_ns)
    }
}

/// Gives both sides of a run their disks.
pub(super) fn attach(nodes: &mut [Node; 2], plan: &Plan, seed: u64) {
    let Some(PlannedDisk { held, misreads_in }) = plan.disk else {
        return;
    };
    let shared = Place::default();
    for node in nodes {
        let place = match held {
            Held::Shared => shared.clone(),
            Held::Alone => Place::default().with(begun(0)),
        };
        let live = node.side == Side::Primary;
        let seed = mix(seed ^ DRAWS ^ u64::from(node.process));
        let disk = Disk::new(held, live, node.process, place, &[], seed);
        node.cpu.borrow_mut().disk = Some(disk.misreading(misreads_in.filter(|_| !live)));
    }
}

impl Node {
    /// Gives a newcomer, which has loaded a guest, its disk: at `place`, and asked for what is not
    /// done.
    pub(super) fn with_disk(self, place: Option<Place>, plan: &Plan, seed: u64) -> Self {
        if let (Some(place), Some(planned)) = (place, plan.disk) {
            // Who follows without running asks for it when it goes live.
            let asks = self.following.is_none();
            let outstanding: Vec<_> = self.guest.disk.outstanding().filter(|_| asks).cloned().collect();
            let seed = mix(seed ^ DRAWS);
            let disk = Disk::new(planned.held, false, self.process, place, &outstanding, seed);
            self.cpu.borrow_mut().disk = Some(disk);
        }
        self
    }

    /// The guest that follows without running goes live: its disk is asked for what was not done.
    pub(super) fn ask_disk_again(&mut self) -> Result<(), DoorError> {
        let outstanding: Vec<_> = self.guest.disk.outstanding().cloned().collect();
        if !outstanding.is_empty() && self.cpu.borrow().shares_disk() {
            self.cpu.borrow_mut().marks.reach(Mark::DiskAskedAgain);
        }
        let outstanding = outstanding.into_iter().map(|request| (DISK, request));
        ask_again(outstanding, self.guest.point(), &mut *self.door)
    }

    /// The disk of a guest that follows without running, and was put to a common point, has what it
    /// had there.
    pub(super) fn judge_disk_of_follower(&self, checker: &mut Checker) {
        let cpu = self.cpu.borrow();
        if let Some(disk) = cpu.disk.as_ref().filter(|disk| !disk.is_shared())
            && let Some(differs) = self.guest.disk.differs_from(disk)
        {
            checker.fail(|| format!("where the {:?} follows {differs}", self.side));
        }
    }

    /// A replay differs from the log. True where its disk was to read something else.
    pub(super) fn is_misread(&mut self, report: &Divergence) -> bool {
        let misread = self.cpu.borrow().disk.as_ref().is_some_and(|disk| disk.misread);
        if report.part != "disk" || !misread {
            return false;
        }
        let cpu = &mut *self.cpu.borrow_mut();
        cpu.marks.reach(Mark::DiskDiffered);
        cpu.disk
            .iter_mut()
            .for_each(|disk| disk.with_marks(Marks::forget));
        self.guest_over = true;
        self.inbox.put(Input::Diverged {
            sequence: report.sequence,
            part: report.part.clone(),
            again: self.heals,
        });
        true
    }
}

impl World {
    /// The place of the disk of `process`, which joins on `side`: its own image, in which what may
    /// differ has become what the holder's `captured` one has.
    pub(super) fn joined_place(&mut self, side: Side, captured: Place, process: u32) -> Place {
        let there = &self.nodes[side.index()].cpu;
        let there = there
            .borrow()
            .disk
            .as_ref()
            .map(|disk| (disk.place(), disk.is_shared()));
        let Some((own, false)) = there else {
            return captured;
        };
        let theirs = own.beside.take();
        let compared = match (&*captured.beside.borrow(), &theirs) {
            (Some(one), Some(other)) => {
                may_differ((&one.states, &one.blocks), (&other.states, &other.blocks))
            }
            _ => None,
        };
        let all = Blocks::of(BLOCKS as u64, Some(0..BLOCKS as u64));
        if compared.as_ref().is_some_and(|blocks| blocks.len() < all.len()) {
            self.marks.reach(Mark::DiskComparedInPart);
        }
        {
            let (from, image) = (captured.image.borrow(), &mut *own.image.borrow_mut());
            for block in compared.unwrap_or(all).iter() {
                image.put(block as usize, from.word(block as usize));
            }
            image.flush();
            if let Some(block) = (0..BLOCKS).find(|block| image.word(*block) != from.word(*block)) {
                self.checker
                    .fail(|| format!("block {block} of a newcomer's disk differs from the holder's"));
            }
        }
        let states = theirs.map_or(Vec::new(), |theirs| theirs.states);
        if let Some(disk) = &mut self.nodes[side.other().index()].cpu.borrow_mut().disk {
            disk.record_join(process, &states);
        }
        own.with(begun(process))
    }

    /// Does something with the marks of a side's disk, where it has some.
    pub(super) fn with_disk_marks(&mut self, side: Side, what: impl FnOnce(&mut Marks)) {
        if let Some(disk) = &mut self.nodes[side.index()].cpu.borrow_mut().disk {
            disk.with_marks(what);
        }
    }

    /// An output of a side is let out: a shared disk may do it.
    pub(super) fn release_disk(&mut self, side: Side, kind: OutputKind, payload: &[u8]) {
        if kind != OutputKind::Disk {
            return;
        }
        let number = lockstep_core::replica::recorder::disk_number(payload);
        let cpu = &mut *self.nodes[side.index()].cpu.borrow_mut();
        match (&mut cpu.disk, number) {
            (Some(disk), Some(number)) => disk.order.release(number),
            _ => self
                .checker
                .fail(|| "an output for a disk is no number".to_owned()),
        }
        cpu.advance_disk();
    }

    /// The process of a side ends in good order.
    pub(super) fn close_disk(&mut self, side: Side) {
        if let Some(disk) = &mut self.nodes[side.index()].cpu.borrow_mut().disk {
            disk.close();
        }
    }

    /// The process of a side dies, and with it, where `power` is lost, its host: what was flushed has
    /// to be there.
    pub(super) fn crash_disk(&mut self, side: Side, power: bool) {
        let node = &mut self.nodes[side.index()];
        let cpu = &mut *node.cpu.borrow_mut();
        let Some(disk) = &mut cpu.disk else { return };
        disk.crash(power);
        if power && !disk.is_shared() {
            self.marks.reach(Mark::DiskLostPower);
            if let Some(lost) = node.guest.disk.lost_on(disk) {
                self.checker.fail(|| format!("at the {side:?} {lost}"));
            }
        }
    }

    /// The disk of each side that runs has what its guest has written.
    pub(super) fn judge_disks(&mut self) {
        for side in Side::BOTH {
            let node = &self.nodes[side.index()];
            let cpu = node.cpu.borrow();
            let Some(disk) = cpu.disk.as_ref().filter(|_| node.is_up()) else {
                continue;
            };
            if disk.is_shared() && !cpu.live {
                continue;
            }
            if let Some(differs) = node.guest.disk.differs_from(disk) {
                self.checker.fail(|| format!("at the {side:?} {differs}"));
            }
        }
    }
}
