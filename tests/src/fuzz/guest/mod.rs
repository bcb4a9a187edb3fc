//! Random guests on real KVM: code in both rings, with interrupts, frames, typed bytes, digests,
//! clocks and kicks at random points, recorded and replayed at once.
//!
//! Whatever the guest does: no panic, no hang, no error that blames the host, and a replay in which
//! every question, event, output, digest and the end are those of the recording, with all
//! registers, devices and memory. A case is a seed; one that fails is made smaller by leaving out
//! slots of its code ([`reduce`]).

mod layout;
mod outside;
mod pieces;
pub mod reduce;
mod twice;

pub use twice::{Case, Kept};

use lockstep_kvm::{ClockKind, Host};
use lockstep_qualify::bench::Ring;
use lockstep_qualify::{Effort, Judgement, KvmBench, Property, suite};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// The instruction clocks that a start on this host would accept: right in ring 0, right or silent
/// in ring 3.
pub fn clocks() -> Vec<ClockKind> {
    let mut clocks = vec![ClockKind::None];
    for clock in [ClockKind::Step, ClockKind::Statistic] {
        let found = |ring| {
            let host = Host::open().expect("KVM");
            suite::probe(&KvmBench::new(host), Property::Clock(clock, ring), &Effort::QUICK).judgement
        };
        if found(Ring::Zero) == Judgement::Yes && found(Ring::Three) != Judgement::Wrong {
            clocks.push(clock);
        }
    }
    clocks
}

/// Runs `case`; a panic is a broken promise like any other.
///
/// # Errors
/// The broken promise, in words.
pub fn run(host: &Host, case: &Case) -> Result<Kept, String> {
    catch_unwind(AssertUnwindSafe(|| case.run(host))).unwrap_or_else(|panic| {
        let text = panic
            .downcast_ref::<String>()
            .cloned()
            .or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
        Err(format!("panic: {}", text.unwrap_or_default()))
    })
}
