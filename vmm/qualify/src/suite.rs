//! All probes, in the order of the report.

use super::bench::{Bench, ProbeError, Ring};
use super::finding::{Finding, Judgement, Property};
use super::load::Load;
use super::probes::{
    Effort, breakpoint, clock, cost, determinism, dirty, instructions, step, transfer, visible, window,
};
use lockstep_kvm::ClockKind;

/// What is probed with guests.
pub const PROPERTIES: [Property; 28] = [
    Property::PortsOfRing3,
    Property::SingleStep(Ring::Zero),
    Property::SingleStep(Ring::Three),
    Property::Breakpoint(Ring::Zero),
    Property::Breakpoint(Ring::Three),
    Property::Window(Ring::Zero),
    Property::Window(Ring::Three),
    Property::Clock(ClockKind::Step, Ring::Zero),
    Property::Clock(ClockKind::Step, Ring::Three),
    Property::Clock(ClockKind::Statistic, Ring::Zero),
    Property::Clock(ClockKind::Statistic, Ring::Three),
    Property::CpuidTable(Ring::Zero),
    Property::CpuidTable(Ring::Three),
    Property::HiddenInstructions(Ring::Zero),
    Property::HiddenInstructions(Ring::Three),
    Property::TscForbidden,
    Property::Instructions,
    Property::Transfer,
    Property::DirtyLog,
    Property::Determinism,
    Property::ExitCost(Ring::Zero),
    Property::ExitCost(Ring::Three),
    Property::InterruptCost(Ring::Zero),
    Property::InterruptCost(Ring::Three),
    Property::StepCost(Ring::Zero),
    Property::StepCost(Ring::Three),
    Property::KickCost,
    Property::FirstWriteCost,
];

/// Probes `property`. What could not be tried is a finding too.
#[must_use]
pub fn probe(bench: &dyn Bench, property: Property, effort: &Effort) -> Finding {
    let once = || attempt(bench, property, effort).unwrap_or_else(|why| Finding::untried(property, &why));
    let alone = once();
    if !effort.under_load || !must_be_exact(property) {
        return alone;
    }
    let _load = Load::start();
    alone.and_under_load(once())
}

/// Whether load could make it wrong.
fn must_be_exact(property: Property) -> bool {
    matches!(
        property,
        Property::SingleStep(_) | Property::Breakpoint(_) | Property::Window(_) | Property::Clock(..)
    )
}

fn attempt(bench: &dyn Bench, property: Property, effort: &Effort) -> Result<Finding, ProbeError> {
    Ok(match property {
        Property::PortsOfRing3 => instructions::judge_ports(&instructions::observe_ports(bench)?),
        Property::SingleStep(ring) => step::judge(ring, &step::observe(bench, ring, effort)?),
        Property::Breakpoint(ring) => breakpoint::judge(ring, &breakpoint::observe(bench, ring, effort)?),
        Property::Window(ring) => window::judge(ring, &window::observe(bench, ring, effort)?),
        Property::Clock(kind, ring) => clock::judge(kind, ring, &clock::observe(bench, kind, ring, effort)?),
        Property::CpuidTable(ring) => visible::judge_table(ring, &visible::observe_table(bench, ring)?),
        Property::HiddenInstructions(ring) => visible::judge_hidden(ring, &visible::observe_hidden(bench, ring)?),
        Property::TscForbidden => visible::judge_tsc(&visible::observe_tsc(bench)?),
        Property::Instructions => instructions::judge(&instructions::observe(bench)?),
        Property::Transfer => transfer::judge(&transfer::observe(bench, effort)?),
        Property::DirtyLog => dirty::judge(&dirty::observe(bench)?),
        Property::Determinism => determinism::judge(&determinism::observe(bench, effort)?),
        Property::ExitCost(_)
        | Property::InterruptCost(_)
        | Property::StepCost(_)
        | Property::KickCost
        | Property::FirstWriteCost
        // These are seen without a guest.
        | Property::Access
        | Property::Version
        | Property::Capabilities
        | Property::PerformanceCounter
        | Property::IoUring => cost_of(bench, property, effort)?,
    })
}

fn cost_of(bench: &dyn Bench, property: Property, effort: &Effort) -> Result<Finding, ProbeError> {
    let (tried, times) = match property {
        Property::ExitCost(ring) => ("OUT in a loop", cost::observe_exits(bench, ring, effort)?),
        Property::InterruptCost(ring) => (
            "OUT in a loop, an interrupt and its IRETQ each time",
            cost::observe_interrupts(bench, ring, effort)?,
        ),
        Property::StepCost(ring) => match cost::observe_steps(bench, ring, effort)? {
            Ok(times) => ("single steps", times),
            Err(instead) => return Ok(not_stepped(property, instead)),
        },
        Property::FirstWriteCost => (
            "pages written from ring 3, logged and not",
            cost::observe_first_writes(bench, effort)?,
        ),
        _ => (
            "a guest in ring 3 kicked by a timer",
            cost::observe_kicks(bench, effort)?,
        ),
    };
    Ok(cost::judge(property, tried, &times))
}

fn not_stepped(property: Property, instead: String) -> Finding {
    Finding {
        property,
        judgement: Judgement::Untried,
        tried: "single steps".to_owned(),
        seen: instead,
        follows: "this ring is not stepped".to_owned(),
    }
}
