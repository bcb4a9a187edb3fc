//! Devices as a board has them: new, saved, and built from what was saved.

use super::{Device, Devices, Slot};
use crate::machine::devices::board::{Board, Model, Placed};
use crate::machine::devices::clock::Clock;
use crate::machine::devices::cmos::Cmos;
use crate::machine::devices::pic::Pic;
use crate::machine::devices::pit::Pit;
use crate::machine::devices::power::Power;
use crate::machine::devices::saved::{DeviceError, NoDigest, SavedDevice, Taken};
use crate::machine::devices::serial::Serial;
use crate::machine::devices::virtio::{Block, Entropy, Mmio, Net};
use lockstep_logging_channel::PartDigest;

impl Devices {
    /// The devices of this board, as they are when power comes on.
    ///
    /// # Errors
    /// Never for the constant queue size of virtio devices; the queue library's signature.
    pub fn new(board: &Board) -> Result<Self, virtio_queue::Error> {
        let mut pic = Pic::default();
        let level = board
            .devices()
            .iter()
            .filter(|placed| placed.model.is_level_triggered());
        for line in level.filter_map(|placed| placed.line) {
            pic.wire_level(line);
        }
        let slots = slots(board, |placed| {
            Ok(match placed.model {
                Model::InterruptController => Device::InterruptController,
                Model::IntervalTimer => Device::IntervalTimer(Pit::default()),
                Model::Clock => Device::Clock(Clock::default()),
                Model::Cmos => Device::Cmos(Cmos::default()),
                Model::SerialConsole => Device::SerialConsole(Serial::default()),
                Model::Network { mac } => Device::Network(Mmio::new(Net::new(mac)?)),
                Model::Entropy => Device::Entropy(Mmio::new(Entropy::new()?)),
                Model::Disk(shape) => Device::Disk(Mmio::new(Block::new(shape)?)),
                Model::PowerOff => Device::PowerOff,
                Model::PowerManagement => Device::PowerManagement(Power::default()),
            })
        })?;
        Ok(Self::wired(board, pic, slots))
    }

    fn wired(board: &Board, pic: Pic, slots: Vec<Slot>) -> Self {
        Self {
            kind: board.kind(),
            pic,
            slots,
            ports: board.ports().clone(),
            memory: board.memory().clone(),
        }
    }

    /// Each device that has a state in its saved form, in the order of the board.
    ///
    /// # Errors
    /// [`NoDigest`].
    pub fn saved(&self) -> Result<Vec<SavedDevice>, NoDigest> {
        let Self {
            // The board's.
            kind: _,
            pic,
            slots,
            // The board's.
            ports: _,
            memory: _,
        } = self;
        let mut saved = Vec::with_capacity(slots.len());
        for Slot {
            name,
            // The board's.
            line: _,
            device,
        } in slots
        {
            saved.push(match device {
                Device::InterruptController => SavedDevice::new(name, &pic.saved())?,
                Device::IntervalTimer(pit) => SavedDevice::new(name, &pit.saved())?,
                Device::Clock(clock) => SavedDevice::new(name, &clock.saved())?,
                Device::Cmos(cmos) => SavedDevice::new(name, &cmos.saved())?,
                Device::SerialConsole(serial) => SavedDevice::new(name, &serial.saved())?,
                Device::Network(net) => SavedDevice::new(name, &net.saved())?,
                Device::Entropy(entropy) => SavedDevice::new(name, &entropy.saved())?,
                Device::Disk(disk) => SavedDevice::new(name, &disk.saved())?,
                Device::PowerOff => continue,
                Device::PowerManagement(power) => SavedDevice::new(name, &power.saved())?,
            });
        }
        Ok(saved)
    }

    /// The devices of this board in a saved state.
    ///
    /// # Errors
    /// [`DeviceError`] unless every device is there once, in a state that it can have, and no
    /// other.
    pub fn restore(board: &Board, saved: &[SavedDevice]) -> Result<Self, DeviceError> {
        let mut taken = Taken::from(saved);
        let mut pic = Pic::default();
        let slots = slots(board, |&Placed { name, model, .. }| {
            Ok(match model {
                Model::InterruptController => {
                    pic = taken.device(name, Pic::restore)?;
                    Device::InterruptController
                }
                Model::IntervalTimer => Device::IntervalTimer(taken.device(name, Pit::restore)?),
                Model::Clock => Device::Clock(taken.device(name, Clock::restore)?),
                Model::Cmos => Device::Cmos(taken.device(name, Cmos::restore)?),
                Model::SerialConsole => Device::SerialConsole(taken.device(name, Serial::restore)?),
                Model::Network { mac } => {
                    Device::Network(taken.device(name, |saved| Mmio::restore(saved, mac))?)
                }
                Model::Entropy => Device::Entropy(taken.device(name, |saved| Mmio::restore(saved, ()))?),
                Model::Disk(shape) => Device::Disk(taken.device(name, |saved| Mmio::restore(saved, shape))?),
                Model::PowerOff => Device::PowerOff,
                Model::PowerManagement => Device::PowerManagement(taken.device(name, Power::restore)?),
            })
        })?;
        taken.finish()?;
        Ok(Self::wired(board, pic, slots))
    }

    /// Digest of each device's saved form, in the order of the board.
    ///
    /// # Errors
    /// [`NoDigest`].
    pub fn digests(&self) -> Result<Vec<PartDigest>, NoDigest> {
        Ok(self.saved()?.iter().map(SavedDevice::digest).collect())
    }
}

fn slots<E>(board: &Board, mut device: impl FnMut(&Placed) -> Result<Device, E>) -> Result<Vec<Slot>, E> {
    let slot = |placed: &Placed| {
        Ok(Slot {
            name: placed.name,
            line: placed.line,
            device: device(placed)?,
        })
    };
    board.devices().iter().map(slot).collect()
}
