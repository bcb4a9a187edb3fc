//! The probes on a host that does everything right, and on hosts that each do one thing wrong: the
//! checks can fail.
//!
//! Behind the bench is an interpreter of the few instructions that probe guests have ([`fake`]),
//! with a fault of choice ([`fault`]).

mod caught;
mod fake;
mod fault;
mod interpreter;

use super::bench::{Bench, ProbeError, Setup, Subject};
use fake::FakeSubject;
use fault::Fault;

/// A bench whose subjects all have the same faults.
pub struct FakeBench(pub Vec<Fault>);

impl Bench for FakeBench {
    fn subject(&self, setup: &Setup) -> Result<Box<dyn Subject>, ProbeError> {
        Ok(Box::new(FakeSubject::new(setup, &self.0)?))
    }
}
