//! The instruction clocks there are ([`InstructionClock`]).
//!
//! | clock | exact | where it was found so |
//! | --- | --- | --- |
//! | `none` | events enter at exits only | everywhere |
//! | `step` | in both rings of upstream KVM, in CPL 0 of software-assisted KVM; slow | both |
//! | `statistic` | in CPL 0 | software-assisted KVM, which emulates CPL 0 and counts what it emulates |
//!
//! A clock that cannot say exactly where the guest is says so ([`Exit::Kicked`]), and nothing
//! enters there.
//!
//! [`Exit::Kicked`]: lockstep_core::machine::cpu::Exit::Kicked

pub mod none;
mod passage;
mod probe;
pub mod statistic;
pub mod step;

use super::host::HostError;
use super::vcpu::clock::{ClockKind, InstructionClock};
use kvm_ioctls::VcpuFd;

/// The clock of this kind on this vCPU.
///
/// # Errors
/// [`HostError::Clock`] where the host does not offer it.
pub fn open(kind: ClockKind, vcpu: &VcpuFd) -> Result<Box<dyn InstructionClock>, HostError> {
    Ok(match kind {
        ClockKind::None => Box::new(none::NoClock),
        ClockKind::Step => Box::new(step::StepClock::open()?),
        ClockKind::Statistic => Box::new(statistic::StatisticClock::open(vcpu)?),
    })
}
