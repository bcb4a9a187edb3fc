//! Effects that devices request outside themselves.

use crate::machine::disk::Request;
use lockstep_logging_channel::{DeviceId, OutputTarget};

/// An effect that a device requests as the result of an access. Several are given in order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// These bytes leave.
    Output(OutputTarget, Vec<u8>),
    /// This disk is asked for something.
    Disk(DeviceId, Request),
    /// This disk has changed what it has, or made it durable, as it was asked to.
    DiskDone(DeviceId, Request),
    /// The guest ends itself with this status.
    PowerOff(u32),
    /// The guest wants to begin anew.
    Reset,
}
