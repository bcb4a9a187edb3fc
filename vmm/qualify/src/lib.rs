//! Qualification: what this host's KVM does exactly, found by small self-test guests instead of
//! assumed.
//!
//! ```text
//!   programs, stage -> bench::Bench -> bench::Subject <- probes: observe, then judge -> finding::Finding -> verdict, strategy
//!                       (KVM: subject, state)                                              suite: all of them
//! ```
//!
//! A probe knows its guest's every state beforehand, so that what the host does can be compared
//! with what is right. Judgements are functions of what was observed; unit tests run the probes on
//! a vCPU that misbehaves in each of the ways they are to catch. [`start`] asks before every
//! machine for what it depends on.

#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod bench;
pub mod finding;
pub mod load;
pub mod platform;
pub mod probes;
pub mod programs;
pub mod stage;
pub mod start;
pub mod strategy;
pub mod subject;
pub mod suite;
#[cfg(test)]
mod tests;
pub mod verdict;

pub use finding::{Finding, Judgement, Property};
pub use probes::Effort;
pub use strategy::{KERNEL_OPTION, Reach, Request, Strategy};
pub use subject::KvmBench;
