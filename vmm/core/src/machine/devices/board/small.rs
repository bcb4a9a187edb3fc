//! The small board: what [docs/guest-interface.md](../../../../../../docs/guest-interface.md)
//! lists.

use super::{
    Board, BoardError, Kind, Model, at_ports, in_memory, interrupt_controller, interval_timer, serial_console,
};
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
            interrupt_controller(),
            interval_timer(),
            at_ports("clock", Model::Clock, &[0x508..=0x523], None),
            serial_console(),
            in_memory("network device", network, NETWORK_ADDRESS, 5),
            at_ports("power", Model::PowerOff, &[0xf4..=0xf4], None),
        ];
        Self::new(Kind::Small, devices)
    }
}
