//! The disks of a board, behind its other devices.

use super::{At, Board, BoardError, Model, Placed, in_memory};
use crate::machine::devices::virtio::mmio;
use crate::machine::disk::{DISKS_MAX, DiskShape};
use lockstep_logging_channel::DeviceId;

/// Names and interrupt lines. None of these lines is another device's on either board, nor 7 or 15,
/// on which a controller reports interrupts that are none.
const DISKS: [(&str, u8); DISKS_MAX] = [("disk 0", 11), ("disk 1", 12), ("disk 2", 14), ("disk 3", 6)];

impl Board {
    /// The same board with these disks behind its devices, each in the device memory behind that of
    /// the one before.
    ///
    /// # Errors
    /// [`BoardError`]: too many disks, or one that cannot be.
    pub fn with_disks(self, disks: &[DiskShape]) -> Result<Self, BoardError> {
        let found = disks.len();
        if found > DISKS_MAX {
            return Err(BoardError::Disks { found });
        }
        let kind = self.kind;
        let mut devices = self.devices;
        let mut address = devices.iter().filter_map(behind).max().unwrap_or_default();
        for (shape, (name, line)) in disks.iter().zip(DISKS) {
            shape.check().map_err(|why| BoardError::Disk { name, why })?;
            devices.push(in_memory(name, Model::Disk(*shape), address, line));
            address += mmio::REGISTERS;
        }
        Self::new(kind, devices)
    }

    /// Its disks.
    pub fn disks(&self) -> impl Iterator<Item = (DeviceId, DiskShape)> {
        let devices = self.devices.iter().zip((0..).map(DeviceId));
        devices.filter_map(|(placed, device)| match placed.model {
            Model::Disk(shape) => Some((device, shape)),
            _ => None,
        })
    }
}

/// The first address of device memory behind this device.
fn behind(placed: &Placed) -> Option<u64> {
    match placed.at {
        At::Memory(address) => address.checked_add(placed.model.registers()),
        At::Ports(_) => None,
    }
}
