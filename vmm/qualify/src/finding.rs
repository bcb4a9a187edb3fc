//! What is looked for, and what was found.

use super::bench::Ring;
use lockstep_kvm::ClockKind;
use serde::{Deserialize, Serialize};

/// Something a host has or has not.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Property {
    /// `/dev/kvm` can be opened.
    Access,
    /// KVM's version, and its kind.
    Version,
    /// Capabilities without which nothing runs.
    Capabilities,
    /// A performance counter for guest instructions.
    PerformanceCounter,
    /// io_uring, for the requests of disks.
    IoUring,
    /// Ring 3 may use ports that the task-state segment gives it.
    PortsOfRing3,
    /// Single step.
    SingleStep(Ring),
    /// Hardware breakpoints.
    Breakpoint(Ring),
    /// IRQ-window exits.
    Window(Ring),
    /// An instruction clock.
    Clock(ClockKind, Ring),
    /// The CPUID instruction shows the table it was given.
    CpuidTable(Ring),
    /// Instructions that are not in the table fault.
    HiddenInstructions(Ring),
    /// RDTSC in ring 3 can be made to leave the guest's program.
    TscForbidden,
    /// Instructions of kernels run in ring 0.
    Instructions,
    /// A vCPU stopped anywhere goes on in another VM.
    Transfer,
    /// Dirty logging.
    DirtyLog,
    /// The same inputs at the same exits lead to the same state.
    Determinism,
    /// What an exit costs.
    ExitCost(Ring),
    /// What a kick costs.
    KickCost,
    /// What a step costs.
    StepCost(Ring),
    /// What an injected interrupt costs.
    InterruptCost(Ring),
    /// Cost of the first write to a page where the host logs it.
    FirstWriteCost,
}

impl Property {
    /// Stable name, for machines.
    #[must_use]
    pub fn key(self) -> String {
        let in_ring = |name: &str, ring: Ring| match ring {
            Ring::Zero => format!("{name}.ring0"),
            Ring::Three => format!("{name}.ring3"),
        };
        match self {
            Self::Access => "kvm.access".to_owned(),
            Self::Version => "kvm.version".to_owned(),
            Self::Capabilities => "kvm.capabilities".to_owned(),
            Self::PerformanceCounter => "performance_counter".to_owned(),
            Self::IoUring => "io_uring".to_owned(),
            Self::PortsOfRing3 => in_ring("ports", Ring::Three),
            Self::SingleStep(ring) => in_ring("single_step", ring),
            Self::Breakpoint(ring) => in_ring("hardware_breakpoint", ring),
            Self::Window(ring) => in_ring("irq_window", ring),
            Self::Clock(kind, ring) => in_ring(&format!("clock.{kind}"), ring),
            Self::CpuidTable(ring) => in_ring("cpuid_table", ring),
            Self::HiddenInstructions(ring) => in_ring("hidden_instructions", ring),
            Self::TscForbidden => in_ring("rdtsc_forbidden", Ring::Three),
            Self::Instructions => in_ring("kernel_instructions", Ring::Zero),
            Self::Transfer => in_ring("state_transfer", Ring::Three),
            Self::DirtyLog => "dirty_log".to_owned(),
            Self::Determinism => "determinism".to_owned(),
            Self::ExitCost(ring) => in_ring("cost.exit", ring),
            Self::KickCost => "cost.kick".to_owned(),
            Self::StepCost(ring) => in_ring("cost.step", ring),
            Self::InterruptCost(ring) => in_ring("cost.interrupt", ring),
            Self::FirstWriteCost => "cost.first_write".to_owned(),
        }
    }
}

impl std::fmt::Display for Property {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Access => formatter.write_str("access to /dev/kvm"),
            Self::Version => formatter.write_str("KVM version and kind"),
            Self::Capabilities => formatter.write_str("required capabilities"),
            Self::PerformanceCounter => formatter.write_str("performance counter"),
            Self::IoUring => formatter.write_str("io_uring for disks"),
            Self::PortsOfRing3 => formatter.write_str("ports in ring 3"),
            Self::SingleStep(ring) => write!(formatter, "single step in {ring}"),
            Self::Breakpoint(ring) => write!(formatter, "hardware breakpoints in {ring}"),
            Self::Window(ring) => write!(formatter, "IRQ-window exits in {ring}"),
            Self::Clock(kind, ring) => write!(formatter, "clock `{kind}` in {ring}"),
            Self::CpuidTable(ring) => write!(formatter, "CPUID table in {ring}"),
            Self::HiddenInstructions(ring) => write!(formatter, "hidden instructions in {ring}"),
            Self::TscForbidden => formatter.write_str("RDTSC forbidden to ring 3"),
            Self::Instructions => formatter.write_str("kernel instructions in ring 0"),
            Self::Transfer => formatter.write_str("state transfer out of ring 3"),
            Self::DirtyLog => formatter.write_str("dirty logging"),
            Self::Determinism => formatter.write_str("determinism"),
            Self::ExitCost(ring) => write!(formatter, "cost of an exit from {ring}"),
            Self::KickCost => formatter.write_str("cost of a kick"),
            Self::StepCost(ring) => write!(formatter, "cost of a step in {ring}"),
            Self::InterruptCost(ring) => write!(formatter, "cost of an interrupt to {ring}"),
            Self::FirstWriteCost => formatter.write_str("cost of a first write to a page"),
        }
    }
}

/// What something costs, in nanoseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cost {
    /// Half of all were not above.
    pub median_ns: u64,
    /// 99 in 100 were not above.
    pub p99_ns: u64,
}

/// What a finding comes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Judgement {
    /// It is there and right.
    Yes,
    /// It is not there, and the host does not pretend.
    No,
    /// It is there and wrong.
    Wrong,
    /// A figure, which has no right or wrong.
    Measured(Cost),
    /// It could not be tried.
    Untried,
}

impl Judgement {
    /// For people.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Measured(_) => "-",
            _ => self.key(),
        }
    }

    /// Stable name, for machines.
    #[must_use]
    pub fn key(self) -> &'static str {
        match self {
            Self::Yes => "yes",
            Self::No => "no",
            Self::Wrong => "wrong",
            Self::Measured(_) => "measured",
            Self::Untried => "untried",
        }
    }

    /// The figure, where it is one.
    #[must_use]
    pub fn cost(self) -> Option<Cost> {
        match self {
            Self::Measured(cost) => Some(cost),
            _ => None,
        }
    }
}

/// One line of the report.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What was looked for.
    pub property: Property,
    /// What it comes to.
    pub judgement: Judgement,
    /// What was tried.
    pub tried: String,
    /// What was seen.
    pub seen: String,
    /// What follows.
    pub follows: String,
}

impl Finding {
    /// One that could not be tried, because of `why`.
    #[must_use]
    pub fn untried(property: Property, why: &dyn std::error::Error) -> Self {
        Self {
            property,
            judgement: Judgement::Untried,
            tried: "could not be carried out".to_owned(),
            seen: why.to_string(),
            follows: "what needs it is not offered".to_owned(),
        }
    }

    /// Together with what was found on the same property under load: what is worse counts.
    #[must_use]
    pub fn and_under_load(self, loaded: Self) -> Self {
        let severity = |finding: &Self| match finding.judgement {
            Judgement::Yes | Judgement::Measured(_) => 0,
            Judgement::No => 1,
            Judgement::Untried => 2,
            Judgement::Wrong => 3,
        };
        let seen = if self.seen == loaded.seen {
            self.seen.clone()
        } else {
            format!("{}; under load: {}", self.seen, loaded.seen)
        };
        let worse = if severity(&loaded) > severity(&self) {
            loaded
        } else {
            self
        };
        Self {
            tried: format!("{}; alone and under load", worse.tried),
            seen,
            ..worse
        }
    }
}

/// The finding on `property` among `findings`.
#[must_use]
pub fn judgement_of(findings: &[Finding], property: Property) -> Judgement {
    findings
        .iter()
        .find(|finding| finding.property == property)
        .map_or(Judgement::Untried, |found| found.judgement)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn finding(judgement: Judgement, seen: &str) -> Finding {
        Finding {
            property: Property::Determinism,
            judgement,
            tried: "steps".to_owned(),
            seen: seen.to_owned(),
            follows: judgement.word().to_owned(),
        }
    }

    #[test]
    fn what_is_wrong_under_load_is_wrong() {
        let both = finding(Judgement::Yes, "right").and_under_load(finding(Judgement::Wrong, "late"));
        assert_eq!(both.judgement, Judgement::Wrong);
        assert_eq!(both.seen, "right; under load: late");
        assert_eq!(both.follows, "wrong");
    }

    #[test]
    fn what_is_wrong_without_load_stays_wrong() {
        let both = finding(Judgement::Wrong, "late").and_under_load(finding(Judgement::Yes, "right"));
        assert_eq!(both.judgement, Judgement::Wrong);
    }

    #[test]
    fn what_is_right_both_times_is_said_once() {
        let both = finding(Judgement::Yes, "right").and_under_load(finding(Judgement::Yes, "right"));
        assert_eq!(both.seen, "right");
        assert_eq!(both.tried, "steps; alone and under load");
    }
}
