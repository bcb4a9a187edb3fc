//! Common points of the machine: its kicks, and what making and meeting take of it.

use super::{Machine, MachineError, Step};
use crate::machine::common::{self, CommonPoints, Still};
use crate::machine::cpu::Vcpu;
use crate::machine::devices::DeviceSet;
use crate::machine::devices::saved::SavedDevice;
use crate::machine::door::{Door, Kick, Kicked, Readiness};
use crate::machine::page_set::PageSet;
use crate::machine::saved::{Page, SavedMachine};
use lockstep_logging_channel::ExecutionPoint;
use std::mem::take;

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
            Kicked::Exit if self.vcpu.is_whole()? => {
                self.pass_exit()?;
                Ok(Step::Continues)
            }
            Kicked::CommonPoint | Kicked::Exit | Kicked::RunsOn => Ok(Step::Continues),
        }
    }

    /// Does `work` with the common points, which are not part of the machine meanwhile.
    fn with_common_points(
        &mut self,
        work: impl FnOnce(&mut Self, &mut CommonPoints) -> Result<(), MachineError>,
    ) -> Result<(), MachineError> {
        let mut points = take(&mut self.common_points);
        let outcome = work(self, &mut points);
        self.common_points = points;
        outcome
    }

    /// Makes a common point, or takes the next pages for it and lets the guest run on.
    pub(super) fn make_common_point(&mut self, door: &mut dyn Door) -> Result<Step, MachineError> {
        self.with_common_points(|machine, points| common::make(machine, points, door))?;
        Ok(Step::Continues)
    }

    /// Meets the common point that comes next.
    pub(super) fn meet_common_point(&mut self, door: &mut dyn Door) -> Result<Step, MachineError> {
        // First, because it completes the pending access, which may write to memory.
        self.vcpu.settle()?;
        self.with_common_points(|machine, points| common::meet(machine, points, door))?;
        Ok(Step::Continues)
    }

    /// Whoever follows begins with the same memory, and the guest is one that will need common
    /// points: the first has what is written from now on.
    ///
    /// # Errors
    /// The host's failure.
    pub fn is_begun_with(&mut self) -> Result<(), MachineError> {
        self.with_common_points(common::begin)
    }

    /// Has the next common point begin at this moment, at which the machine was captured. `is_alone`:
    /// nobody followed until then.
    ///
    /// # Errors
    /// The host's failure.
    pub fn was_captured(&mut self, door: &dyn Door, is_alone: bool) -> Result<(), MachineError> {
        self.with_common_points(|machine, points| common::captured(machine, points, door, is_alone))
    }

    /// Brings whoever follows without running to this moment, at which the guest is to stand.
    ///
    /// # Errors
    /// The host's failure, or the door's.
    pub fn bring_along(&mut self, door: &mut dyn Door) -> Result<(), MachineError> {
        self.with_common_points(|machine, points| common::bring_along(machine, points, door))
    }

    fn is_at_exit(&mut self, exits: u64) {
        self.exits = exits;
        self.instructions = 0;
        self.between = false;
        self.expired = DeviceSet::default();
    }
}

impl<V: Vcpu> Still for Machine<V> {
    type Error = MachineError;

    fn point(&mut self) -> ExecutionPoint {
        Self::point(self)
    }

    fn log_writes(&mut self, on: bool) -> Result<(), MachineError> {
        Ok(self.vcpu.log_writes(on)?)
    }

    fn written_pages(&mut self) -> Result<PageSet, MachineError> {
        Ok(self.vcpu.written_pages()?)
    }

    fn given_pages(&self) -> PageSet {
        self.vcpu.given_pages()
    }

    fn page(&self, index: u64) -> Option<Page> {
        Page::of(&self.memory, index)
    }

    fn pass_exit(&mut self) -> Result<(), MachineError> {
        self.vcpu.count_exit()?;
        self.is_at_exit(self.exits + 1);
        Ok(())
    }

    fn save(&mut self) -> Result<SavedMachine, MachineError> {
        Self::save(self)
    }

    fn devices(&self) -> Result<Vec<SavedDevice>, MachineError> {
        Ok(self.devices.saved()?)
    }

    fn put(&mut self, page: &Page) -> Result<(), MachineError> {
        Ok(page.put(&self.memory)?)
    }

    fn load(&mut self, machine: SavedMachine) -> Result<(), MachineError> {
        let SavedMachine {
            memory_bytes: _,
            position,
            policy: _,
            cpu,
            // Compared.
            devices: _,
            sites: _,
        } = machine;
        self.vcpu.load(&cpu)?;
        self.is_at_exit(position.exits);
        Ok(())
    }
}
