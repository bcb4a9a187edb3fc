//! What a host may do wrongly.

use crate::Judgement;
use crate::bench::Ring;
use crate::finding::Property;
use lockstep_kvm::ClockKind;

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// IRQ-window exits come instructions late, in this ring.
    LateWindow(Ring),
    /// IRQ-window exits come although interrupts are off.
    EarlyWindow,
    /// IRQ-window exits do not come.
    NoWindow,
    /// The interrupt shadow is forgotten where a page is mapped.
    ForgetsShadow,
    /// Every tenth step makes two instructions, in this ring.
    LostStep(Ring),
    /// A step that a kick meets makes two instructions.
    LostStepUnderKicks,
    /// The guest gets the exception of its steps, in this ring.
    StepToGuest(Ring),
    /// Breakpoints do not fire.
    NoBreakpoint,
    /// Breakpoints fire behind their instruction.
    LateBreakpoint,
    /// There is no such clock.
    NoClock(ClockKind),
    /// A clock never knows where the guest is, in this ring.
    Declines(ClockKind, Ring),
    /// A clock says one instruction too many where a kick found the guest.
    Miscounts(ClockKind),
    /// A clock stops one instruction behind where it was told to.
    Overshoots(ClockKind),
    /// A clock does not stop at all.
    NeverStops(ClockKind),
    /// A clock leaves the trap flag set when an interrupt is given.
    LeaksTrapFlag(ClockKind),
    /// A clock counts repeated instructions as it likes.
    MiscountsStrings(ClockKind),
    /// An interrupt that is given at a stop enters one instruction later.
    LateInterrupt,
    /// CPUID shows this leaf of the host's.
    LeaksCpuid(u32),
    /// An instruction, by its name, is carried out although it should fault.
    Carries(&'static str),
    /// An instruction, by its name, cannot be run.
    CannotRun(&'static str),
    /// Ring 3 reaches no port.
    NoPorts,
    /// A vCPU that is moved loses a vector register's upper half.
    TransferLosesVectors,
    /// A vCPU that is moved repeats an instruction.
    TransferRepeats,
    /// Written pages are not all reported.
    DirtyMisses,
    /// Pages that were not written are reported.
    DirtyInvents,
    /// Written pages are reported for ever.
    DirtyStays,
    /// Some kicks skip an instruction that the guest would not miss at once.
    KickSkips,
}

impl Fault {
    /// The property that is then not there, and what the finding says of it.
    pub fn spoils(self) -> (Property, Judgement) {
        use Judgement::{No, Wrong};
        match self {
            Self::LateWindow(ring) => (Property::Window(ring), Wrong),
            Self::EarlyWindow | Self::NoWindow | Self::ForgetsShadow => (Property::Window(Ring::Zero), Wrong),
            Self::LostStep(ring) | Self::StepToGuest(ring) => (Property::SingleStep(ring), Wrong),
            Self::LostStepUnderKicks => (Property::SingleStep(Ring::Three), Wrong),
            Self::NoBreakpoint => (Property::Breakpoint(Ring::Zero), No),
            Self::LateBreakpoint => (Property::Breakpoint(Ring::Three), Wrong),
            Self::NoClock(kind) => (Property::Clock(kind, Ring::Zero), No),
            Self::Declines(kind, ring) => (Property::Clock(kind, ring), No),
            Self::Miscounts(kind)
            | Self::Overshoots(kind)
            | Self::NeverStops(kind)
            | Self::LeaksTrapFlag(kind)
            | Self::MiscountsStrings(kind) => (Property::Clock(kind, Ring::Zero), Wrong),
            Self::LateInterrupt => (Property::Clock(ClockKind::Step, Ring::Three), Wrong),
            Self::LeaksCpuid(_) => (Property::CpuidTable(Ring::Three), No),
            Self::Carries("RDTSC") => (Property::TscForbidden, No),
            Self::Carries(_) => (Property::HiddenInstructions(Ring::Three), No),
            Self::CannotRun(_) => (Property::Instructions, No),
            Self::NoPorts => (Property::PortsOfRing3, No),
            Self::TransferLosesVectors | Self::TransferRepeats => (Property::Transfer, Wrong),
            Self::DirtyMisses | Self::DirtyInvents | Self::DirtyStays => (Property::DirtyLog, Wrong),
            Self::KickSkips => (Property::Determinism, Wrong),
        }
    }
}
