//! A machine in its saved form, and built from it.

use super::{Machine, MachineError};
use crate::machine::common::CommonPoints;
use crate::machine::cpu::Vcpu;
use crate::machine::cpu::saved::SavedClock;
use crate::machine::devices::{Board, DeviceSet, Devices};
use crate::machine::disk::Request;
use crate::machine::memory::{self, Memory};
use crate::machine::saved::{SavedError, SavedMachine, SavedPosition, restore_sites, save_sites};
use lockstep_logging_channel::DeviceId;

/// The greatest count of exits or instructions: what counts on from there never overflows.
const COUNT_MAX: u64 = 1 << 62;

pub(super) fn check(position: &SavedPosition, clock: &SavedClock) -> Result<(), SavedError> {
    let SavedPosition {
        exits,
        instructions,
        halted,
        between,
        digest_due: _,
        // With the devices.
        expired: _,
    } = *position;
    let counted = match *clock {
        SavedClock::None => 0,
        SavedClock::Step { instructions, .. } | SavedClock::Statistic { instructions, .. } => instructions,
    };
    let impossible = [
        (halted && between, "it is halted where a kick found it running"),
        (
            exits.max(instructions).max(counted) > COUNT_MAX,
            "it has counted too much",
        ),
    ];
    match impossible.into_iter().find(|(is, _)| *is) {
        Some((_, why)) => Err(SavedError::Position { why }),
        None => Ok(()),
    }
}

impl<V: Vcpu> Machine<V> {
    /// The machine without its memory, which is that of [`Machine::memory`] at this moment. For use
    /// between two runs, wherever they stopped. Completes the pending access; the machine can run
    /// on.
    ///
    /// # Errors
    /// The host's failure; a state that has no saved form is one.
    pub fn save(&mut self) -> Result<SavedMachine, MachineError> {
        let Self {
            vcpu,
            memory,
            devices,
            sites,
            policy,
            // The plan's.
            firmware: _,
            exits,
            instructions,
            halted,
            between,
            digest_due,
            expired,
            // A machine that goes on from here has all of memory, and finds out about its guest.
            common_points: _,
            // Buffers: their content is of one step.
            takers: _,
            effects: _,
        } = self;
        Ok(SavedMachine {
            memory_bytes: memory::size_bytes(memory),
            position: SavedPosition {
                exits: *exits,
                instructions: *instructions,
                halted: *halted,
                between: *between,
                digest_due: *digest_due,
                expired: expired.saved(devices.timers()),
            },
            policy: (*policy).into(),
            cpu: vcpu.save()?,
            devices: devices.saved()?,
            sites: save_sites(sites),
        })
    }

    /// Exits that the guest has made.
    #[must_use]
    pub fn exits(&self) -> u64 {
        self.exits
    }

    /// Requests of its disks that are not done, in the order in which they were made: those of a
    /// machine that was restored have to be asked for again.
    #[must_use]
    pub fn outstanding_disk_requests(&self) -> Vec<(DeviceId, Request)> {
        self.devices.outstanding_disk_requests()
    }

    /// Its vCPU.
    pub fn vcpu(&self) -> &V {
        &self.vcpu
    }

    /// Its memory, for saving.
    pub fn memory(&self) -> &Memory {
        &self.memory
    }

    /// The machine that was saved, with the devices of `board`: on `vcpu`, which has not run yet
    /// and runs in `memory`, which has what was saved of it.
    ///
    /// # Errors
    /// [`SavedError`]: what cannot be restored. The vCPU is gone then.
    pub fn restore(vcpu: V, memory: Memory, board: &Board, saved: &SavedMachine) -> Result<Self, SavedError> {
        let SavedMachine {
            memory_bytes,
            position,
            policy,
            cpu,
            devices,
            sites,
        } = saved;
        let SavedPosition {
            exits,
            instructions,
            halted,
            between,
            digest_due,
            expired,
        } = *position;
        let expected = memory::size_bytes(&memory);
        if *memory_bytes != expected {
            return Err(SavedError::MemorySize {
                found: *memory_bytes,
                expected,
            });
        }
        check(position, &cpu.clock)?;
        let devices = Devices::restore(board, devices)?;
        let why = "more timers have expired than there are";
        let expired = DeviceSet::restored(expired, devices.timers()).ok_or(SavedError::Position { why })?;
        let sites = restore_sites(sites)?;
        Ok(Self {
            vcpu: vcpu.restore(cpu)?,
            memory,
            devices,
            sites,
            policy: (*policy).into(),
            firmware: None,
            exits,
            instructions,
            halted,
            between,
            digest_due,
            expired,
            common_points: CommonPoints::default(),
            takers: Vec::new(),
            effects: Vec::new(),
        })
    }
}
