//! A machine that follows another one without running, from common point to common point, until it
//! runs live from the last.
//!
//! ```text
//!   live:       runs --> common point --> runs --> common point --> runs --> gone
//!   following:           is put there              is put there              runs from there
//! ```

use super::saved::check;
use super::{Ended, Machine, MachineError};
use crate::machine::cpu::{SavedCpu, Vcpu};
use crate::machine::devices::{Board, DeviceSet, Devices};
use crate::machine::door::{Door, Followed, Met};
use crate::machine::memory;
use crate::machine::saved::{SavedError, SavedMachine};
use lockstep_logging_channel::ExecutionPoint;

impl<V: Vcpu> Machine<V> {
    /// Follows as long as the door says so. Gives the end of the machine that was followed, or none
    /// where this one is to run on.
    ///
    /// # Errors
    /// [`MachineError`].
    pub fn follow(&mut self, door: &mut dyn Door, board: &Board) -> Result<Option<Ended>, MachineError> {
        let mut newest: Option<SavedCpu> = None;
        loop {
            let point = ExecutionPoint {
                exits: self.exits,
                instructions: self.instructions,
                rip: 0,
            };
            match door.follow(point)? {
                Followed::Met(met) => {
                    let cpu = self.be_put(met, board)?;
                    // A host that does not take this vCPU is known now, and not at the failover.
                    // Later ones wait until they are needed: each makes KVM forget its page tables.
                    if newest.is_none() {
                        self.vcpu.load(&cpu)?;
                    }
                    newest = Some(cpu);
                }
                Followed::Live => {
                    if let Some(cpu) = newest {
                        self.vcpu.load(&cpu)?;
                    }
                    return Ok(None);
                }
                Followed::Ended(reason, point) => return Ok(Some(Ended { reason, point })),
            }
        }
    }

    /// Takes over everything of a common point but the vCPU, which it gives.
    fn be_put(&mut self, met: Met, board: &Board) -> Result<SavedCpu, MachineError> {
        let SavedMachine {
            memory_bytes,
            position,
            // The same image and settings: compared before anything began.
            policy: _,
            sites: _,
            cpu,
            devices,
        } = *met.machine;
        let expected = memory::size_bytes(&self.memory);
        if memory_bytes != expected {
            let found = memory_bytes;
            return Err(SavedError::MemorySize { found, expected }.into());
        }
        check(&position, &cpu.clock)?;
        let devices = Devices::restore(board, &devices).map_err(SavedError::from)?;
        let why = "more timers have expired than there are";
        self.expired =
            DeviceSet::restored(position.expired, devices.timers()).ok_or(SavedError::Position { why })?;
        self.devices = devices;
        for page in &met.pages {
            page.put(&self.memory)?;
        }
        self.exits = position.exits;
        self.instructions = position.instructions;
        self.halted = position.halted;
        self.between = position.between;
        self.digest_due = position.digest_due;
        Ok(cpu)
    }
}
