//! Tasks of a machine beside executing its guest.

/// Settings of the machine's behaviour; the same on both sides, so part of the environment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Registers and devices are digested every so many exits; 0 for never.
    pub digest_interval_exits: u64,
    /// IRQ-window exits are exact on this host, and count as exits.
    pub window_exits: bool,
}
