//! Tests of the whole, and the simulator.

pub mod simulator;
