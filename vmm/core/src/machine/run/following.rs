//! A machine that follows another one without running, until it runs live from the last common
//! point.

use super::saved::check;
use super::{Ended, Machine, MachineError};
use crate::machine::cpu::{SavedCpu, Vcpu};
use crate::machine::devices::{Board, DeviceSet, Devices};
use crate::machine::door::{Door, Met};
use crate::machine::following::{Follower, Step, ask_again, follow};
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
        let mut newest = None;
        let mut machine = OnBoard { machine: self, board };
        loop {
            match follow(&mut machine, &mut newest, door)? {
                Step::Put => {}
                Step::Live => {
                    ask_again(
                        machine.machine.outstanding_disk_requests(),
                        machine.followed_to(),
                        door,
                    )?;
                    return Ok(None);
                }
                Step::Runs => return Ok(None),
                Step::Ended(reason, point) => return Ok(Some(Ended { reason, point })),
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

/// A machine and the board of which its devices are restored.
struct OnBoard<'a, V> {
    machine: &'a mut Machine<V>,
    board: &'a Board,
}

impl<V: Vcpu> Follower for OnBoard<'_, V> {
    type Error = MachineError;

    fn followed_to(&self) -> ExecutionPoint {
        ExecutionPoint {
            exits: self.machine.exits,
            instructions: self.machine.instructions,
            rip: 0,
        }
    }

    fn be_put(&mut self, met: Met) -> Result<SavedCpu, MachineError> {
        self.machine.be_put(met, self.board)
    }

    fn load_cpu(&mut self, cpu: &SavedCpu) -> Result<(), MachineError> {
        Ok(self.machine.vcpu.load(cpu)?)
    }
}
