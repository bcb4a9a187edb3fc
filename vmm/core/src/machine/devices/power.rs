//! Power-off port: what the guest writes is its exit status.

/// Writing here ends the machine.
pub const POWER_PORT: u16 = 0xf4;
