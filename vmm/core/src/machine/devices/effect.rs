//! Effects that devices request outside themselves.

use lockstep_logging_channel::OutputTarget;

/// An effect that a device requests as the result of an access. Several are given in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// These bytes leave.
    Output(OutputTarget, Vec<u8>),
    /// The guest ends itself with this status.
    PowerOff(u32),
    /// The guest wants to begin anew.
    Reset,
}
