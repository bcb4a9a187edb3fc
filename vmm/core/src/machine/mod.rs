//! The deterministic machine: vCPU, memory, devices, boot and image rewriting.
//!
//! Everything here is a function of the machine's state and of what came through the [`door`].
//! There is no clock, no thread, no socket, no file, no randomness and no iteration over a hash
//! map.
//!
//! ```text
//!   guest <-> cpu::Vcpu <-> run::Machine (memory, devices) <-> door::Door
//! ```

#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

pub mod acpi;
pub mod boot;
pub mod common;
pub mod cpu;
pub mod devices;
pub mod disk;
pub mod divergence;
pub mod door;
pub mod following;
pub mod gathering;
pub mod horizon;
pub mod image;
pub mod memory;
pub mod page_set;
pub mod paging;
mod policy;
pub mod run;
pub mod saved;

pub use run::{Ended, Machine, MachineError};

#[cfg(test)]
mod tests;
