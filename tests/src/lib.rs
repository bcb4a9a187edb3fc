//! What the end-to-end tests and benchmarks stand on, and the simulator. Public interfaces only.

pub mod campaign;
pub mod fuzz;
pub mod harness;
pub mod simulator;
