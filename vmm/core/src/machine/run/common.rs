//! Common points: a point of the execution without an exit, made on a live machine and met by one
//! that replays (docs/determinism.md, Common points).
//!
//! ```text
//!   live:      exit n --runs--> kick: parts, machine --> exit n + 1
//!   replaying: exit n -----------------------------> takes their content: exit n + 1
//! ```
//!
//! The replaying machine does not run from exit n: pages that were written on the live one since
//! they were last sent are in the parts, with what they contain at the common point; all others are
//! the same on both. Devices change only at exits, and are compared.

use super::{Machine, MachineError, Step};
use crate::machine::cpu::Vcpu;
use crate::machine::devices::DeviceSet;
use crate::machine::door::{Door, Kick, Kicked, Readiness};
use crate::machine::saved::pages::PAGES_PER_PART;
use crate::machine::saved::{Page, SavedMachine};

impl<V: Vcpu> Machine<V> {
    /// A kick found the guest between two execution points. What waits outside may enter only at
    /// one: the door says whether to make it.
    pub(super) fn kicked(&mut self, door: &mut dyn Door) -> Result<Step, MachineError> {
        self.devices.takers(&self.memory, self.expired, &mut self.takers);
        let interruptible = self.vcpu.interruptible()?;
        let kick = Kick {
            interruptible,
            interrupt_pending: self.devices.interrupt_pending(),
            readiness: Readiness {
                closed: !interruptible,
                idle: false,
                takers: &self.takers,
            },
        };
        match door.kicked(kick)? {
            Kicked::CommonPoint if self.vcpu.is_whole()? => self.make_common_point(door),
            Kicked::CommonPoint | Kicked::RunsOn => Ok(Step::Continues),
        }
    }

    /// Makes a common point, or takes the next pages for it and lets the guest run on.
    pub(super) fn make_common_point(&mut self, door: &mut dyn Door) -> Result<Step, MachineError> {
        if !door.is_followed() {
            // Nobody has to come here by another way.
            self.gathering = None;
            self.vcpu.log_writes(false)?;
            self.pass_exit()?;
            return Ok(Step::Continues);
        }
        let mut gathering = match self.gathering.take() {
            Some(gathering) => gathering,
            None => {
                self.vcpu.log_writes(true)?;
                let mut gathering = super::Gathering::default();
                gathering.add(&self.vcpu.given_pages());
                gathering
            }
        };
        gathering.add(&self.vcpu.written_pages()?);
        let share = gathering.take();
        self.gathering = Some(gathering);
        let point = self.point();
        for indices in share.pages.chunks(PAGES_PER_PART) {
            // A page beyond the end is in no memory: the set has a bit for it, no more.
            let pages = indices.iter().filter_map(|index| Page::of(&self.memory, *index));
            door.part(point, pages.collect())?;
        }
        if share.is_last {
            self.pass_exit()?;
            let machine = self.save()?;
            door.common_point(self.point(), machine)?;
        }
        Ok(Step::Continues)
    }

    fn pass_exit(&mut self) -> Result<(), MachineError> {
        self.vcpu.count_exit()?;
        self.exits += 1;
        self.instructions = 0;
        self.between = false;
        self.expired = DeviceSet::default();
        Ok(())
    }

    /// Meets the common point that comes next: the guest does not run there, it is put there.
    pub(super) fn meet_common_point(&mut self, door: &mut dyn Door) -> Result<Step, MachineError> {
        // First, because it completes the pending access, which may write to memory.
        self.vcpu.settle()?;
        let devices = self.devices.saved()?;
        let point = self.point();
        let met = door.meet(point, &devices)?;
        let SavedMachine {
            memory_bytes: _,
            position,
            policy: _,
            cpu,
            // Compared.
            devices: _,
            sites: _,
        } = *met.machine;
        for page in &met.pages {
            page.put(&self.memory)?;
        }
        self.vcpu.load(&cpu)?;
        self.exits = position.exits;
        self.instructions = 0;
        self.between = false;
        self.expired = DeviceSet::default();
        Ok(Step::Continues)
    }
}
