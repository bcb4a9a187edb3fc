//! A machine as configured: its plan and environment, and the thread it runs on.

pub mod disks;
mod guest;
pub mod piece;
pub mod plan;
pub mod thread;
pub mod transfer;

pub use plan::Plan;
pub use thread::{MachineThread, start};
