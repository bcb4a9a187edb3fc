//! What the end-to-end tests and benchmarks stand on. Public interfaces only.

pub mod harness;
