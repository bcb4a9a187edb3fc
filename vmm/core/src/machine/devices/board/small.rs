//! The small board: what [docs/guest-interface.md](../../../../../../docs/guest-interface.md)
//! lists.

use super::{Board, BoardError, Kind, Model, at_ports, in_memory};
use lockstep_logging_channel::DeviceId;

/// Its interval timer.
pub const TIMER: DeviceId = DeviceId(1);
/// Its serial console.
pub const CONSOLE: DeviceId = DeviceId(3);
/// Its network device.
pub const NETWORK: DeviceId = DeviceId(4);
/// Address of the network device's registers.
pub const NETWORK_ADDRESS: u64 = 0xd000_0000;

impl Board {
    /// The small board, whose network device has this Ethernet address.
    ///
    /// # Errors
    /// Never: its parts are constants, and a test builds it.
    pub fn small(mac: [u8; 6]) -> Result<Self, BoardError> {
        let network = Model::Network { mac };
        let devices = vec![
            at_ports(
                "interrupt controller",
                Model::InterruptController,
                &[0x20..=0x21, 0xa0..=0xa1, 0x4d0..=0x4d1],
                None,
            ),
            at_ports(
                "interval timer",
                Model::IntervalTimer,
                &[0x40..=0x43, 0x61..=0x61],
                Some(0),
            ),
            at_ports("clock", Model::Clock, &[0x508..=0x523], None),
            at_ports("serial console", Model::SerialConsole, &[0x3f8..=0x3ff], Some(4)),
            in_memory("network device", network, NETWORK_ADDRESS, 5),
            at_ports("power", Model::PowerOff, &[0xf4..=0xf4], None),
        ];
        Self::new(Kind::Small, devices)
    }
}
