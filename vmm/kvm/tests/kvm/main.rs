//! Guests of a few instructions on a real vCPU see nothing that a replay would not see too. Needs
//! `/dev/kvm`; where there is none, each test says on standard error that it was skipped.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod access;
mod code;
mod digests;
mod faults;
#[allow(dead_code, reason = "the tests and the bench of live machines use more of it")]
mod guest;
mod images;
mod interrupts;
mod kicks;
mod landing;
mod moving;
mod parts;
mod processor;
mod saved;
