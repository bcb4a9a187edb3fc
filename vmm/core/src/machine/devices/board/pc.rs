//! The board of a PC, as far as a Linux kernel without APIC and PCI needs one: what
//! [docs/guest-interface.md](../../../../../../docs/guest-interface.md) lists.
//!
//! Devices that the small board has too have its numbers.

use super::{
    Board, BoardError, Kind, Model, at_ports, in_memory, interrupt_controller, interval_timer, serial_console,
};
use crate::machine::devices::virtio::mmio;

/// Address of the first virtio device's registers; those of the others follow.
const VIRTIO_ADDRESS: u64 = 0xd000_0000;

/// Configuration of a PC's board.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Configuration {
    /// Ethernet address of the network device.
    pub mac: [u8; 6],
}

impl Board {
    /// The board of a PC.
    ///
    /// # Errors
    /// Never: its parts are constants, and a test builds it.
    pub fn pc(configuration: Configuration) -> Result<Self, BoardError> {
        let Configuration { mac } = configuration;
        let devices = vec![
            interrupt_controller(),
            interval_timer(),
            at_ports("real-time clock", Model::Cmos, &[0x70..=0x71], None),
            serial_console(),
            in_memory("network device", Model::Network { mac }, VIRTIO_ADDRESS, 5),
            // Where the reset register of PC chipsets is, beside the registers of ACPI.
            at_ports(
                "power management",
                Model::PowerManagement,
                &[0x600..=0x60b, 0xcf9..=0xcf9],
                Some(9),
            ),
            in_memory(
                "entropy device",
                Model::Entropy,
                VIRTIO_ADDRESS + mmio::REGISTERS,
                10,
            ),
        ];
        Self::new(Kind::Pc, devices)
    }
}
