//! The log of a protected virtual machine and the channel that carries it: entries, their encoding, the
//! log file, the transport, handshake, acknowledgement, heartbeat and flow control.
//!
//! Knows nothing of KVM or of devices.

pub mod entry;

pub use entry::*;
