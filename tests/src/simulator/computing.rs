//! Stretches in which the model guest computes without an exit, and the common points in them: they
//! are made and met by the machine's own code.
//!
//! Each step reads a word of memory into the chain and writes one. How many steps there are between
//! two exits depends on the host, where a common point ends the stretch: a page or a register that
//! is not the live guest's shows in the chain of a later step.

use lockstep_core::machine::common::{self, CommonPoints, Still};
use lockstep_core::machine::cpu::{Registers, SavedCpu};
use lockstep_core::machine::devices::saved::SavedDevice;
use lockstep_core::machine::door::{Door, DoorError, Horizon, Kick, Kicked, Readiness};
use lockstep_core::machine::gathering::Shares;
use lockstep_core::machine::page_set::PageSet;
use lockstep_core::machine::saved::pages::PAGE_BYTES;
use lockstep_core::machine::saved::{Page, SavedMachine, SavedPosition};
use lockstep_logging_channel::ExecutionPoint;

use super::guest::{Guest, PAGE_ENTRIES, Phase, Progress};
use super::plan::{Fault, Plan, Planned};
use super::rng::{Rng, mix};
use std::mem::take;

/// Makes the draws of this file others than those of the rest of the plan, which stays as it is for
/// every seed without stretches.
const DRAWS: u64 = 0x7374_7265_7463_6865;

/// One seed in so many has them.
const SEEDS_A_STRETCH: u64 = 10;

/// Words that it computes with, each in a page of its own. Its log has the pages behind.
const WORDS: usize = 8;

/// Most steps of a stretch.
pub const STEPS_MAX: u64 = 32;

/// Bytes of its memory: room for a log of some 64,000 entries, far more than a run writes.
pub const MEMORY_BYTES: u64 = (16 << 10) * PAGE_BYTES as u64;

/// Its memory, and what is kept of it for common points.
#[derive(Clone, Debug, Default)]
pub struct Memory {
    words: [u64; WORDS],
    /// Pages that were written, while that is logged.
    written: Option<PageSet>,
    common_points: CommonPoints,
}

impl Plan {
    /// Lets the guests of some seeds compute without exits.
    pub(super) fn draw_stretches(&mut self, seed: u64) {
        let mut rng = Rng::new(mix(seed ^ DRAWS));
        // A plan in which the connection breaks is rare, and shows what no other does: a guest that
        // answers later shows less of it.
        let breaks = |planned: &Planned| matches!(planned.fault, Fault::Break { .. });
        let breaks = !self.heals && self.faults.iter().any(breaks);
        let only = self.only_narrow || self.only_crowded;
        self.stretches = rng.once_in(SEEDS_A_STRETCH) && !only && !breaks;
    }
}

impl Memory {
    /// The same content in another machine.
    pub fn forget_writes(&mut self) {
        (self.written, self.common_points) = (None, CommonPoints::default());
    }

    fn note(&mut self, index: usize) {
        if let Some(written) = &mut self.written {
            written.insert(index as u64);
        }
    }

    /// The words that it computes with.
    #[must_use]
    pub fn words(&self) -> [u64; WORDS] {
        self.words
    }

    /// The entry of the log with this number was written.
    pub fn note_entry(&mut self, number: usize) {
        self.note(WORDS + number / PAGE_ENTRIES);
    }
}

impl Guest {
    /// Runs to the next exit, or a step of a stretch.
    pub(super) fn run(&mut self, door: &mut dyn Door) -> Result<Progress, DoorError> {
        if door.horizon(self.point())? == Horizon::CommonPoint {
            self.with_common_points(|guest, points| common::meet(guest, points, door))?;
            return Ok(Progress::Exit);
        }
        if self.memory.common_points.stands() {
            return self.make_common_point(door);
        }
        if self.steps > 0 {
            self.compute();
            if self.steps > 0 {
                self.phase = Phase::Run { between: true };
                return self.kicked(door);
            }
        }
        self.exits += 1;
        self.phase = self.work.pop_front().map_or(Phase::Digests, Phase::Work);
        Ok(Progress::Between)
    }

    /// True where pages have been taken for a common point that is not made yet.
    #[must_use]
    pub fn runs_between_parts(&self) -> bool {
        self.memory.common_points.has_begun()
    }

    fn compute(&mut self) {
        let place = |chain: u64| (chain % WORDS as u64) as usize;
        self.steps -= 1;
        let read = self.memory.words[place(self.chain)];
        self.chain = mix(self.chain ^ mix(read));
        let written = place(self.chain);
        self.memory.words[written] = self.chain;
        self.memory.note(written);
    }

    /// The host looks whether something has waited for long.
    fn kicked(&mut self, door: &mut dyn Door) -> Result<Progress, DoorError> {
        let kick = Kick {
            interruptible: true,
            interrupt_pending: false,
            readiness: Readiness {
                closed: false,
                idle: false,
                takers: &self.takers(),
            },
        };
        match door.kicked(kick)? {
            Kicked::CommonPoint => self.make_common_point(door),
            Kicked::Exit => {
                self.pass_exit()?;
                Ok(Progress::Exit)
            }
            Kicked::RunsOn => Ok(Progress::Step),
        }
    }

    /// Does `work` with the common points, which are not part of the guest meanwhile.
    fn with_common_points(
        &mut self,
        work: impl FnOnce(&mut Self, &mut CommonPoints) -> Result<(), DoorError>,
    ) -> Result<(), DoorError> {
        let mut points = take(&mut self.memory.common_points);
        let outcome = work(self, &mut points);
        self.memory.common_points = points;
        outcome
    }

    /// Has the next common point begin at this moment, at which it was captured. `is_alone`: nobody
    /// followed until then.
    ///
    /// # Errors
    /// The door's.
    pub fn was_captured(&mut self, door: &dyn Door, is_alone: bool) -> Result<(), DoorError> {
        self.with_common_points(|guest, points| common::captured(guest, points, door, is_alone))
    }

    /// Brings whoever follows without running to this moment. True where that made a common point.
    ///
    /// # Errors
    /// The door's.
    pub fn bring_along(&mut self, door: &mut dyn Door) -> Result<bool, DoorError> {
        let exits = self.exits;
        self.with_common_points(|guest, points| common::bring_along(guest, points, door))?;
        Ok(self.exits > exits)
    }

    pub(super) fn make_common_point(&mut self, door: &mut dyn Door) -> Result<Progress, DoorError> {
        let exits = self.exits;
        self.with_common_points(|guest, points| common::make(guest, points, door))?;
        Ok(if self.exits > exits {
            Progress::CommonPoint
        } else {
            Progress::Step
        })
    }

    pub(super) fn put_page(&mut self, page: &Page) {
        let (places, _) = page.bytes.as_chunks::<8>();
        let index = page.index as usize;
        if let Some(word) = self.memory.words.get_mut(index) {
            *word = u64::from_le_bytes(places[0]);
        } else if let Some(entries) = self.log.chunks_mut(PAGE_ENTRIES).nth(index - WORDS) {
            for ((client, number), place) in entries.iter_mut().zip(places) {
                let word = u64::from_le_bytes(*place);
                (*client, *number) = (word as u8, (word >> 8) as u32);
            }
        } else {
            self.wrong = Some("a page that it does not have");
        }
    }

    fn is_at_exit(&mut self, exits: u64) {
        self.exits = exits;
        self.phase = Phase::Arrivals { entered: false };
    }
}

impl Still for Guest {
    type Error = DoorError;

    const SHARES: Shares = Shares {
        pages: 2,
        at_once_max: 3,
    };

    fn point(&mut self) -> ExecutionPoint {
        Self::point(self)
    }

    fn log_writes(&mut self, on: bool) -> Result<(), DoorError> {
        self.memory.written = on.then(PageSet::default);
        Ok(())
    }

    fn written_pages(&mut self) -> Result<PageSet, DoorError> {
        let written = self.memory.written.as_mut();
        Ok(written.map(std::mem::take).unwrap_or_default())
    }

    fn given_pages(&self) -> PageSet {
        PageSet::first((WORDS + self.log.len().div_ceil(PAGE_ENTRIES)) as u64)
    }

    fn page(&self, index: u64) -> Option<Page> {
        let mut bytes = [0; PAGE_BYTES];
        let (places, _) = bytes.as_chunks_mut::<8>();
        let index = index as usize;
        if let Some(word) = self.memory.words.get(index) {
            places[0] = word.to_le_bytes();
        } else {
            let entries = self.log.chunks(PAGE_ENTRIES).nth(index - WORDS)?;
            for (place, (client, number)) in places.iter_mut().zip(entries) {
                *place = (u64::from(*number) << 8 | u64::from(*client)).to_le_bytes();
            }
        }
        let index = index as u64;
        Some(Page { index, bytes })
    }

    fn put(&mut self, page: &Page) -> Result<(), DoorError> {
        self.put_page(page);
        Ok(())
    }

    fn pass_exit(&mut self) -> Result<(), DoorError> {
        self.is_at_exit(self.exits + 1);
        Ok(())
    }

    fn save(&mut self) -> Result<SavedMachine, DoorError> {
        Ok(SavedMachine {
            memory_bytes: MEMORY_BYTES,
            position: SavedPosition {
                exits: self.exits,
                ..SavedPosition::default()
            },
            cpu: SavedCpu {
                registers: Registers {
                    rax: self.chain,
                    rcx: self.steps,
                    ..Registers::default()
                },
                ..SavedCpu::default()
            },
            devices: self.devices()?,
            ..SavedMachine::default()
        })
    }

    fn devices(&self) -> Result<Vec<SavedDevice>, DoorError> {
        Ok(self.saved_devices())
    }

    fn load(&mut self, machine: SavedMachine) -> Result<(), DoorError> {
        let registers = machine.cpu.registers;
        (self.chain, self.steps) = (registers.rax, registers.rcx);
        self.is_at_exit(machine.position.exits);
        Ok(())
    }
}
