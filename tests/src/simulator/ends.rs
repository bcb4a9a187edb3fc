//! A virtual CPU's end of what it shares with its replica loop: what journal and feed need of a host.

use lockstep_core::machine::disk::{Operation, Request};
use lockstep_core::machine::door::DoorError;
use lockstep_core::replica::cpu::{FeedHost, FromCpu, Item, JournalHost};
use lockstep_core::replica::replayer::OwnRead;
use lockstep_core::replica::role::Input;
use lockstep_logging_channel::{Completion, DeviceId, Sequence};

use super::cpu::{Shared, must_wait};

/// The end.
#[derive(Clone)]
pub struct End(pub Shared);

impl JournalHost for End {
    fn now_ns(&mut self) -> u64 {
        self.0.borrow().clock_ns
    }

    fn acts_alone(&self) -> bool {
        self.0.borrow().alone
    }

    fn tell(&mut self, what: FromCpu) -> Result<(), DoorError> {
        let mut cpu = self.0.borrow_mut();
        if let Input::Appended { batch, .. } = &what {
            cpu.handed = batch.last;
        }
        cpu.told.push_back(what);
        Ok(())
    }

    fn passed(&mut self, exits: u64) {
        self.0.borrow_mut().passed_exits = exits;
    }

    fn completed(&mut self, _: DeviceId, number: u64, sequence: Sequence) {
        if let Some(disk) = &mut self.0.borrow_mut().disk {
            disk.logged(number, sequence);
        }
    }

    fn is_throttled(&mut self) -> Result<bool, DoorError> {
        let cpu = self.0.borrow();
        // It stands within a common point, and does not wait there.
        Ok(cpu.throttled && !(cpu.epoch_ns.is_some() && cpu.has_parts))
    }

    fn wait(&mut self) -> Result<(), DoorError> {
        Err(must_wait())
    }
}

impl FeedHost for End {
    fn take(&mut self) -> Result<Option<Item>, DoorError> {
        Ok(self.0.borrow_mut().items.take())
    }

    fn wait(&mut self) -> Result<(), DoorError> {
        Err(must_wait())
    }

    fn tell(&mut self, what: FromCpu) -> Result<(), DoorError> {
        self.0.borrow_mut().told.push_back(what);
        Ok(())
    }

    fn obey(&mut self) -> Result<(), DoorError> {
        Ok(())
    }

    fn disk_request(&mut self, _: DeviceId, request: Request) -> Result<(), DoorError> {
        self.0.borrow_mut().ask_disk(request)
    }

    fn disk_is_done(&mut self, _: DeviceId, number: u64) -> bool {
        let cpu = self.0.borrow();
        let disk = cpu.disk.as_ref();
        disk.is_some_and(|disk| disk.is_shared() || disk.order.is_done(number))
    }

    fn disk_completed(
        &mut self,
        device: DeviceId,
        completion: &Completion,
    ) -> Result<Option<OwnRead>, DoorError> {
        let cpu = &mut *self.0.borrow_mut();
        let disk = cpu.disk.as_mut().ok_or(DoorError::no_disk(device))?;
        disk.replayed(completion.number).ok_or_else(must_wait)
    }

    fn change_disks(&mut self, changes: Vec<(DeviceId, Operation)>) -> Result<(), DoorError> {
        self.0.borrow_mut().change_disk(changes)
    }

    fn shares_disk(&self, _: DeviceId) -> bool {
        self.0.borrow().shares_disk()
    }
}
