//! The MMIO transport, version 2 (VIRTIO 1.2, 4.2.2), of a device.

use super::Virtio;
use super::queue::{Notify, QUEUE_SIZE};
use crate::machine::devices::saved::Impossible;
use serde::{Deserialize, Serialize};
use virtio_bindings::virtio_config::{
    VIRTIO_CONFIG_S_DRIVER_OK, VIRTIO_CONFIG_S_FEATURES_OK, VIRTIO_CONFIG_S_NEEDS_RESET, VIRTIO_F_VERSION_1,
};
use virtio_bindings::virtio_mmio::{
    VIRTIO_MMIO_CONFIG, VIRTIO_MMIO_CONFIG_GENERATION, VIRTIO_MMIO_DEVICE_FEATURES,
    VIRTIO_MMIO_DEVICE_FEATURES_SEL, VIRTIO_MMIO_DEVICE_ID, VIRTIO_MMIO_DRIVER_FEATURES,
    VIRTIO_MMIO_DRIVER_FEATURES_SEL, VIRTIO_MMIO_INT_VRING, VIRTIO_MMIO_INTERRUPT_ACK,
    VIRTIO_MMIO_INTERRUPT_STATUS, VIRTIO_MMIO_MAGIC_VALUE, VIRTIO_MMIO_QUEUE_AVAIL_HIGH,
    VIRTIO_MMIO_QUEUE_AVAIL_LOW, VIRTIO_MMIO_QUEUE_DESC_HIGH, VIRTIO_MMIO_QUEUE_DESC_LOW,
    VIRTIO_MMIO_QUEUE_NOTIFY, VIRTIO_MMIO_QUEUE_NUM, VIRTIO_MMIO_QUEUE_NUM_MAX, VIRTIO_MMIO_QUEUE_READY,
    VIRTIO_MMIO_QUEUE_SEL, VIRTIO_MMIO_QUEUE_USED_HIGH, VIRTIO_MMIO_QUEUE_USED_LOW, VIRTIO_MMIO_STATUS,
    VIRTIO_MMIO_VENDOR_ID, VIRTIO_MMIO_VERSION,
};
use virtio_queue::QueueT;

/// Bytes of registers.
pub const REGISTERS: u64 = 0x1000;

const MAGIC: u32 = u32::from_le_bytes(*b"virt");
const TRANSPORT_VERSION: u32 = 2;
const VENDOR: u32 = u32::from_le_bytes(*b"LSTP");

/// The transport's own registers; queues and configuration are the device's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Registers {
    status: u32,
    interrupt_status: u32,
    device_features_select: u32,
    driver_features_select: u32,
    driver_features: u64,
    queue_select: u32,
}

/// A device on the MMIO bus.
pub struct Mmio<D> {
    registers: Registers,
    pub(super) device: D,
}

/// The state of both.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedMmio<S> {
    registers: SavedRegisters,
    device: S,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct SavedRegisters {
    status: u32,
    interrupt_status: u32,
    device_features_select: u32,
    driver_features_select: u32,
    driver_features: u64,
    queue_select: u32,
}

impl<D: Virtio> Mmio<D> {
    /// The transport of `device`.
    #[must_use]
    pub fn new(device: D) -> Self {
        Self {
            registers: Registers::default(),
            device,
        }
    }

    /// Level of the interrupt line.
    #[must_use]
    pub fn line(&self) -> bool {
        self.registers.interrupt_status != 0
    }

    pub(super) fn is_live(&self) -> bool {
        self.registers.status & VIRTIO_CONFIG_S_DRIVER_OK != 0
            && self.registers.status & VIRTIO_CONFIG_S_NEEDS_RESET == 0
    }

    /// Reads `size_bytes` at `offset`. Registers are read whole; only the configuration has bytes.
    #[must_use]
    pub fn read(&self, offset: u64, size_bytes: u8) -> u64 {
        let Ok(offset) = u32::try_from(offset) else {
            return 0;
        };
        if let Some(at) = offset.checked_sub(VIRTIO_MMIO_CONFIG) {
            return self.device.read_configuration(at, size_bytes);
        }
        u64::from(self.read_register(offset))
    }

    fn read_register(&self, offset: u32) -> u32 {
        let registers = &self.registers;
        match offset {
            VIRTIO_MMIO_MAGIC_VALUE => MAGIC,
            VIRTIO_MMIO_VERSION => TRANSPORT_VERSION,
            VIRTIO_MMIO_DEVICE_ID => D::DEVICE_ID,
            VIRTIO_MMIO_VENDOR_ID => VENDOR,
            VIRTIO_MMIO_DEVICE_FEATURES => match registers.device_features_select {
                0 => self.device.features() as u32,
                1 => (self.device.features() >> 32) as u32,
                _ => 0,
            },
            VIRTIO_MMIO_QUEUE_NUM_MAX => self
                .device
                .queue(registers.queue_select)
                .map_or(0, |_| u32::from(QUEUE_SIZE)),
            VIRTIO_MMIO_QUEUE_READY => self
                .device
                .queue(registers.queue_select)
                .map_or(0, |queue| u32::from(queue.ready())),
            VIRTIO_MMIO_INTERRUPT_STATUS => registers.interrupt_status,
            VIRTIO_MMIO_STATUS => registers.status,
            VIRTIO_MMIO_CONFIG_GENERATION => 0,
            _ => 0,
        }
    }

    /// Writes the register at `offset`. Gives the queue in which the guest says that there is
    /// something for the device.
    #[must_use]
    pub fn write(&mut self, offset: u64, value: u32) -> Option<u32> {
        let offset = u32::try_from(offset).ok()?;
        let registers = &mut self.registers;
        match offset {
            VIRTIO_MMIO_DEVICE_FEATURES_SEL => registers.device_features_select = value,
            VIRTIO_MMIO_DRIVER_FEATURES_SEL => registers.driver_features_select = value,
            VIRTIO_MMIO_DRIVER_FEATURES => self.write_features(value),
            VIRTIO_MMIO_QUEUE_SEL => registers.queue_select = value,
            VIRTIO_MMIO_QUEUE_NOTIFY => return self.is_live().then_some(value),
            VIRTIO_MMIO_INTERRUPT_ACK => registers.interrupt_status &= !value,
            VIRTIO_MMIO_STATUS => self.write_status(value),
            _ => self.write_queue(offset, value),
        }
        None
    }

    fn write_features(&mut self, value: u32) {
        let registers = &mut self.registers;
        let value = u64::from(value);
        match registers.driver_features_select {
            0 => registers.driver_features = registers.driver_features & !0xffff_ffff | value,
            1 => registers.driver_features = registers.driver_features & 0xffff_ffff | value << 32,
            _ => {}
        }
    }

    /// Forgets the driver, as when power comes on.
    pub fn power_on(&mut self) {
        self.registers = Registers::default();
        self.device.reset();
    }

    fn write_status(&mut self, value: u32) {
        if value == 0 {
            return self.power_on();
        }
        let unknown = self.registers.driver_features & !self.device.features();
        let modern = self.registers.driver_features & 1 << VIRTIO_F_VERSION_1 != 0;
        let refused = unknown != 0 || !modern;
        let needs_reset = self.registers.status & VIRTIO_CONFIG_S_NEEDS_RESET;
        // The driver reads FEATURES_OK back: a set it may not have is refused by leaving the bit
        // clear (3.1.1).
        self.registers.status = needs_reset
            | if refused {
                value & !VIRTIO_CONFIG_S_FEATURES_OK
            } else {
                value
            };
    }

    fn write_queue(&mut self, offset: u32, value: u32) {
        let live = self.is_live();
        let Some(queue) = self.device.queue_mut(self.registers.queue_select) else {
            return;
        };
        if live {
            return;
        }
        match offset {
            VIRTIO_MMIO_QUEUE_NUM => queue.set_size(value as u16),
            VIRTIO_MMIO_QUEUE_READY => queue.set_ready(value == 1),
            VIRTIO_MMIO_QUEUE_DESC_LOW => queue.set_desc_table_address(Some(value), None),
            VIRTIO_MMIO_QUEUE_DESC_HIGH => queue.set_desc_table_address(None, Some(value)),
            VIRTIO_MMIO_QUEUE_AVAIL_LOW => queue.set_avail_ring_address(Some(value), None),
            VIRTIO_MMIO_QUEUE_AVAIL_HIGH => queue.set_avail_ring_address(None, Some(value)),
            VIRTIO_MMIO_QUEUE_USED_LOW => queue.set_used_ring_address(Some(value), None),
            VIRTIO_MMIO_QUEUE_USED_HIGH => queue.set_used_ring_address(None, Some(value)),
            _ => {}
        }
    }

    /// Takes what the device did with a queue.
    pub(super) fn finish(&mut self, outcome: Result<Notify, virtio_queue::Error>) {
        match outcome {
            Ok(Notify::Yes) => self.registers.interrupt_status |= VIRTIO_MMIO_INT_VRING,
            Ok(Notify::No) => {}
            // The guest broke its own queue: the device stops until it is reset (2.1.2).
            Err(_) => self.registers.status |= VIRTIO_CONFIG_S_NEEDS_RESET,
        }
    }

    /// The state as a value.
    #[must_use]
    pub fn saved(&self) -> SavedMmio<D::Saved> {
        let Self { registers, device } = self;
        let Registers {
            status,
            interrupt_status,
            device_features_select,
            driver_features_select,
            driver_features,
            queue_select,
        } = *registers;
        SavedMmio {
            registers: SavedRegisters {
                status,
                interrupt_status,
                device_features_select,
                driver_features_select,
                driver_features,
                queue_select,
            },
            device: device.saved(),
        }
    }

    /// The device in a saved state. Whatever the registers are, a guest could have written them.
    ///
    /// # Errors
    /// [`Impossible`] for a value that it never has.
    pub fn restore(saved: SavedMmio<D::Saved>, made: D::Made) -> Result<Self, Impossible> {
        let SavedMmio { registers, device } = saved;
        let SavedRegisters {
            status,
            interrupt_status,
            device_features_select,
            driver_features_select,
            driver_features,
            queue_select,
        } = registers;
        Ok(Self {
            registers: Registers {
                status,
                interrupt_status,
                device_features_select,
                driver_features_select,
                driver_features,
                queue_select,
            },
            device: D::restore(device, made)?,
        })
    }
}
