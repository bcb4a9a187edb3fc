//! Which port.

/// Ports at a time: 64 pairs, each at most 1.2 MiB of buffers.
pub(super) const PORTS_MAX: usize = 128;

/// A port, numbered in the order of attachment and never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct PortId(pub(super) u32);

impl PortId {
    /// The host's own station, which is attached to no socket.
    pub(super) const HOST: Self = Self(0);
}
