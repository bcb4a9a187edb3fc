//! Verdicts: what a host is good for, from its findings.

use super::bench::Ring;
use super::finding::{Finding, Judgement, Property, judgement_of};
use lockstep_kvm::ClockKind;
use serde::Serialize;

/// What a host may be wanted for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Use {
    /// Recording, replaying and protecting guests whose events enter at exits.
    RecordReplayAtExits,
    /// Interrupts at exact instructions of the guest's kernel.
    ExactInterruptsRing0,
    /// The same in its programs.
    ExactInterruptsRing3,
    /// Kernels as they come.
    UnmodifiedKernels,
    /// The guests of this project.
    OurGuests,
}

impl Use {
    /// All, in the order of the report.
    pub const ALL: [Self; 5] = [
        Self::RecordReplayAtExits,
        Self::ExactInterruptsRing0,
        Self::ExactInterruptsRing3,
        Self::UnmodifiedKernels,
        Self::OurGuests,
    ];

    /// Lockstep itself needs it.
    #[must_use]
    pub fn is_required(self) -> bool {
        matches!(self, Self::RecordReplayAtExits | Self::OurGuests)
    }
}

impl std::fmt::Display for Use {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::RecordReplayAtExits => "record and replay at exits",
            Self::ExactInterruptsRing0 => "exact interrupts in ring 0",
            Self::ExactInterruptsRing3 => "exact interrupts in ring 3",
            Self::UnmodifiedKernels => "unmodified kernels",
            Self::OurGuests => "our guests",
        })
    }
}

/// A use, whether the host is good for it, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The use.
    pub usage: Use,
    /// The host is good for it.
    pub holds: bool,
    /// By what, or what is missing.
    pub why: String,
}

/// What KVM must be before any guest runs.
const USABLE: [Property; 3] = [Property::Access, Property::Version, Property::Capabilities];
const CLOCKS: [ClockKind; 2] = [ClockKind::Statistic, ClockKind::Step];

/// All verdicts.
#[must_use]
pub fn verdicts(findings: &[Finding]) -> Vec<Verdict> {
    Use::ALL
        .into_iter()
        .map(|usage| verdict(findings, usage))
        .collect()
}

fn verdict(findings: &[Finding], usage: Use) -> Verdict {
    let needs = |more: &[Property]| {
        let all: Vec<_> = USABLE.into_iter().chain(more.iter().copied()).collect();
        needing(findings, usage, &all)
    };
    match usage {
        Use::RecordReplayAtExits => needs(&[Property::Determinism]),
        Use::OurGuests => needs(&[Property::Determinism, Property::PortsOfRing3]),
        Use::ExactInterruptsRing0 => by_clock(findings, usage, Ring::Zero),
        Use::ExactInterruptsRing3 => by_clock(findings, usage, Ring::Three),
        Use::UnmodifiedKernels => warned_of_hidden(
            findings,
            needs(&[
                Property::Determinism,
                Property::Instructions,
                Property::CpuidTable(Ring::Zero),
                Property::CpuidTable(Ring::Three),
            ]),
        ),
    }
}

/// Upstream KVM on AMD processors runs hidden RDRAND and RDSEED: harmless to a kernel and programs
/// that look into CPUID first, as they should.
fn warned_of_hidden(findings: &[Finding], verdict: Verdict) -> Verdict {
    let hidden = judgement_of(findings, Property::HiddenInstructions(Ring::Three)) == Judgement::Yes;
    if verdict.holds && !hidden {
        let why = "everything it needs is there, for programs that use no instruction CPUID does not show"
            .to_owned();
        return Verdict { why, ..verdict };
    }
    verdict
}

fn needing(findings: &[Finding], usage: Use, needed: &[Property]) -> Verdict {
    let missing: Vec<_> = needed
        .iter()
        .filter(|property| judgement_of(findings, **property) != Judgement::Yes)
        .map(ToString::to_string)
        .collect();
    let why = match missing.is_empty() {
        true => "everything it needs is there".to_owned(),
        false => format!("not as needed: {}", missing.join(", ")),
    };
    Verdict {
        usage,
        holds: missing.is_empty(),
        why,
    }
}

/// A clock that is right in `ring`, and in the other ring right or silent.
fn by_clock(findings: &[Finding], usage: Use, ring: Ring) -> Verdict {
    let usable = |kind: ClockKind| {
        let judgements = Ring::BOTH.map(|ring| judgement_of(findings, Property::Clock(kind, ring)));
        let here = judgement_of(findings, Property::Clock(kind, ring)) == Judgement::Yes;
        here && judgements
            .iter()
            .all(|judgement| matches!(judgement, Judgement::Yes | Judgement::No))
    };
    let good: Vec<_> = CLOCKS
        .into_iter()
        .filter(|kind| usable(*kind))
        .map(|kind| format!("--clock {kind}"))
        .collect();
    let why = match good.is_empty() {
        true => format!("no instruction clock is exact in {ring} and harmless in the other"),
        false => format!("with {}", good.join(" or ")),
    };
    Verdict {
        usage,
        holds: !good.is_empty(),
        why,
    }
}
