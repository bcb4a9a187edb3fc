//! Recorder, replayer, roles, output gate and going live. Knows no KVM ioctl, socket, thread or
//! clock.

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod batcher;
pub mod common;
pub mod cpu;
pub mod disk_changes;
pub mod disk_order;
pub mod divergences;
pub mod driving;
pub mod epochs;
pub mod following;
pub mod gate;
pub mod history;
pub mod recorder;
pub mod replayer;
pub mod role;
pub mod snapshot;
pub mod standby;
pub mod time_floor;
pub mod transfer;
pub mod unprotected;

pub use crate::mutant;
pub use batcher::{BATCH_BYTES_MAX, BATCH_OUTPUT_BYTES_MAX, Batcher, output_bytes};
pub use gate::Gate;
pub use recorder::{CaptureJournal, Journal, LiveDoor, Outside, Recorder, SavedAt};
pub use replayer::{Fed, Feed, Replayer};
pub use standby::Standby;
pub use unprotected::Unprotected;

#[cfg(test)]
mod tests;
