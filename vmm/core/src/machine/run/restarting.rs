//! A guest that restarts itself: the machine is as it was when power came on, and its execution
//! goes on counting.
//!
//! Nothing of it is in the log: who replays restarts at the same exit.

use super::{Machine, MachineError, Step};
use crate::machine::boot::linux::{RESTART_WORD_ADDRESS, WARM};
use crate::machine::cpu::Vcpu;
use crate::machine::door::Door;
use crate::machine::memory::PAGE_BYTES;
use lockstep_logging_channel::EndReason;
use vm_memory::{Bytes, GuestAddress, GuestMemoryError};

impl<V: Vcpu> Machine<V> {
    /// Restarts the guest, or ends it where it was a panic that asked.
    pub(super) fn restart(&mut self, door: &mut dyn Door) -> Result<Step, MachineError> {
        self.devices.flush_consoles(&mut self.effects);
        self.carry_out(door)?;
        let word: u16 = self
            .memory
            .read_obj(GuestAddress(RESTART_WORD_ADDRESS))
            .unwrap_or(0);
        if word == WARM {
            return Ok(Step::Ended(EndReason::GuestFault(
                "its kernel panicked".to_owned(),
            )));
        }
        let Some(firmware) = &self.firmware else {
            let why = "it restarted itself, and there is nothing to begin it from".to_owned();
            return Ok(Step::Ended(EndReason::GuestFault(why)));
        };
        self.vcpu.settle()?;
        self.clear_memory()
            .map_err(|why| MachineError::Restart(why.to_string()))?;
        let entry = firmware.boot(&self.memory).map_err(MachineError::Restart)?;
        self.devices
            .power_on(firmware.devices().map_err(MachineError::Restart)?);
        self.vcpu.power_on(&entry)?;
        Ok(Step::Continues)
    }

    /// Makes all of memory zeros. Pages that are zeros are not written: they would count as
    /// changed.
    fn clear_memory(&self) -> Result<(), GuestMemoryError> {
        const ZEROS: [u8; PAGE_BYTES as usize] = [0; PAGE_BYTES as usize];
        let mut page = ZEROS;
        for index in self.vcpu.given_pages().iter() {
            let address = GuestAddress(index * PAGE_BYTES);
            self.memory.read_slice(&mut page, address)?;
            if page != ZEROS {
                self.memory.write_slice(&ZEROS, address)?;
            }
        }
        Ok(())
    }
}
