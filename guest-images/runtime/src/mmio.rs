//! The transport of every virtio device here: virtio-mmio version 2 (virtio 1.2, section 4.2).
#![allow(unsafe_code)]

use crate::virtqueue::{ENTRIES, QueueMemory};
use core::ptr;

/// Registers, as distances from a device's first.
pub(crate) mod registers {
    pub const MAGIC: u32 = 0x000;
    pub const VERSION: u32 = 0x004;
    pub const DEVICE: u32 = 0x008;
    pub const DEVICE_FEATURES: u32 = 0x010;
    pub const DEVICE_FEATURES_SELECT: u32 = 0x014;
    pub const DRIVER_FEATURES: u32 = 0x020;
    pub const DRIVER_FEATURES_SELECT: u32 = 0x024;
    pub const QUEUE_SELECT: u32 = 0x030;
    pub const QUEUE_SIZE_MAX: u32 = 0x034;
    pub const QUEUE_SIZE: u32 = 0x038;
    pub const QUEUE_READY: u32 = 0x044;
    pub const QUEUE_NOTIFY: u32 = 0x050;
    pub const INTERRUPT_ACKNOWLEDGE: u32 = 0x064;
    pub const STATUS: u32 = 0x070;
    pub const QUEUE_ADDRESSES: [u32; 3] = [0x080, 0x090, 0x0A0];
    pub const CONFIGURATION: u32 = 0x100;
}
use registers::*;

/// "virt", little-endian.
const VIRTIO_MAGIC: u32 = 0x7472_6976;
const VIRTIO_VERSION: u32 = 2;

const STATUS_ACKNOWLEDGE: u32 = 1;
const STATUS_DRIVER: u32 = 2;
const STATUS_DRIVER_OK: u32 = 4;
const STATUS_FEATURES_OK: u32 = 8;

/// Feature bit of virtio 1, which every device here has.
const FEATURE_VERSION_1: u64 = 1 << 32;

/// One device's registers.
#[derive(Clone, Copy)]
pub(crate) struct Transport {
    base: u32,
}

impl Transport {
    /// The registers at `base`.
    pub(crate) const fn at(base: u32) -> Self {
        Self { base }
    }

    /// Number of the device's kind; none where there is no device.
    pub(crate) fn device(self) -> Option<u32> {
        ([self.read(MAGIC), self.read(VERSION)] == [VIRTIO_MAGIC, VIRTIO_VERSION]).then(|| self.read(DEVICE))
    }

    /// Resets the device and takes those of the features in `wanted` that it has. None where it
    /// lacks one of those in `needed`, or refuses.
    pub(crate) fn negotiate(self, needed: u64, wanted: u64) -> Option<u64> {
        self.write(STATUS, 0);
        self.write(STATUS, STATUS_ACKNOWLEDGE);
        self.write(STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER);
        let [low, high] = [0, 1].map(|half| {
            self.write(DEVICE_FEATURES_SELECT, half);
            u64::from(self.read(DEVICE_FEATURES))
        });
        let needed = needed | FEATURE_VERSION_1;
        let taken = (low | high << 32) & (needed | wanted);
        if taken & needed != needed {
            return None;
        }
        for (half, features) in [(0, taken as u32), (1, (taken >> 32) as u32)] {
            self.write(DRIVER_FEATURES_SELECT, half);
            self.write(DRIVER_FEATURES, features);
        }
        self.write(STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK);
        (self.read(STATUS) & STATUS_FEATURES_OK != 0).then_some(taken)
    }

    /// Gives `memory` to the device as its queue of this number. False where its queue is shorter.
    #[must_use]
    pub(crate) fn start_queue(self, queue: u32, memory: &QueueMemory) -> bool {
        self.write(QUEUE_SELECT, queue);
        if self.read(QUEUE_SIZE_MAX) < ENTRIES as u32 {
            return false;
        }
        self.write(QUEUE_SIZE, ENTRIES as u32);
        for (register, address) in QUEUE_ADDRESSES.into_iter().zip(memory.addresses()) {
            self.write(register, address as u32);
            self.write(register + 4, (address >> 32) as u32);
        }
        self.write(QUEUE_READY, 1);
        true
    }

    /// Ends the set-up: the device may work.
    pub(crate) fn go(self) {
        self.write(
            STATUS,
            STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK | STATUS_DRIVER_OK,
        );
    }

    /// Tells the device of what was offered in one of its queues.
    pub(crate) fn notify(self, queue: u32) {
        self.write(QUEUE_NOTIFY, queue);
    }

    /// The 32-bit word at `offset` of the device's configuration.
    pub(crate) fn configuration(self, offset: u32) -> u32 {
        self.read(CONFIGURATION + offset)
    }

    /// The byte at `offset` of the device's configuration.
    pub(crate) fn configuration_byte(self, offset: u32) -> u8 {
        // SAFETY: a byte register of the device.
        unsafe { ptr::read_volatile((self.base + CONFIGURATION + offset) as usize as *const u8) }
    }

    fn read(self, register: u32) -> u32 {
        // SAFETY: a register of the device.
        unsafe { ptr::read_volatile((self.base + register) as usize as *const u32) }
    }

    fn write(self, register: u32, value: u32) {
        // SAFETY: a register of the device; it touches only memory that has been handed to it.
        unsafe { ptr::write_volatile((self.base + register) as usize as *mut u32, value) };
    }
}
