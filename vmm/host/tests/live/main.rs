//! Machines on a real vCPU that are captured while they run. Needs `/dev/kvm`; where there is none,
//! each test says on standard error that it was skipped.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "tests"
)]

mod capture;
#[allow(dead_code, reason = "the guests of KVM's own tests")]
#[path = "../../../kvm/tests/kvm/code.rs"]
mod code;
#[allow(dead_code, reason = "the guests of KVM's own tests")]
#[path = "../../../kvm/tests/kvm/guest.rs"]
mod guest;
#[allow(dead_code, reason = "the bench uses more of it")]
mod live;
#[allow(dead_code, reason = "the guests of KVM's own tests")]
#[path = "../../../kvm/tests/kvm/moving.rs"]
mod moving;
