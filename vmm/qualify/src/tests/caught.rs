//! Each fault is found, by the property that it spoils; and a host without one is good for
//! everything.

use super::FakeBench;
use super::fault::Fault;
use crate::bench::Ring;
use crate::finding::{Finding, Judgement, Property};
use crate::suite::{PROPERTIES, probe};
use crate::verdict::{Use, verdicts};
use crate::{Effort, Request};
use lockstep_kvm::ClockKind;

const EFFORT: Effort = Effort {
    rounds: 4,
    steps: 48,
    stops: 8,
    samples: 8,
    length_exits: 200,
    replays: 1,
    under_load: false,
};

fn found(faults: &[Fault], property: Property) -> Finding {
    probe(&FakeBench(faults.to_vec()), property, &EFFORT)
}

fn expect_caught(fault: Fault) {
    let (property, judgement) = fault.spoils();
    let finding = found(&[fault], property);
    assert_eq!(finding.judgement, judgement, "{fault:?}: {finding:?}");
    assert_eq!(
        found(&[], property).judgement,
        Judgement::Yes,
        "{property} of a host without faults"
    );
}

#[test]
fn a_host_that_does_everything_right_is_found_to() {
    let all: Vec<_> = PROPERTIES
        .into_iter()
        .map(|property| found(&[], property))
        .collect();
    for finding in &all {
        let good = matches!(finding.judgement, Judgement::Yes | Judgement::Measured(_));
        assert!(good, "{finding:?}");
    }
}

#[test]
fn windows_that_come_late_early_or_never_are_caught() {
    expect_caught(Fault::LateWindow(Ring::Zero));
    expect_caught(Fault::LateWindow(Ring::Three));
    expect_caught(Fault::EarlyWindow);
    expect_caught(Fault::NoWindow);
    expect_caught(Fault::ForgetsShadow);
    let finding = found(&[Fault::LateWindow(Ring::Zero)], Property::Window(Ring::Zero));
    assert!(finding.seen.contains("3 instructions late (STI)"), "{finding:?}");
    let finding = found(&[Fault::ForgetsShadow], Property::Window(Ring::Zero));
    assert!(finding.seen.contains("inside the shadow"), "{finding:?}");
}

#[test]
fn lost_steps_and_steps_that_the_guest_notices_are_caught() {
    for ring in Ring::BOTH {
        expect_caught(Fault::LostStep(ring));
        expect_caught(Fault::StepToGuest(ring));
    }
    expect_caught(Fault::LostStepUnderKicks);
}

#[test]
fn breakpoints_that_miss_are_caught() {
    expect_caught(Fault::NoBreakpoint);
    expect_caught(Fault::LateBreakpoint);
}

#[test]
fn clocks_that_are_wrong_are_caught_and_those_that_are_silent_are_known() {
    for kind in [ClockKind::Step, ClockKind::Statistic] {
        expect_caught(Fault::NoClock(kind));
        expect_caught(Fault::Miscounts(kind));
        expect_caught(Fault::Overshoots(kind));
        expect_caught(Fault::NeverStops(kind));
        expect_caught(Fault::LeaksTrapFlag(kind));
        expect_caught(Fault::MiscountsStrings(kind));
        for ring in Ring::BOTH {
            expect_caught(Fault::Declines(kind, ring));
        }
    }
    expect_caught(Fault::LateInterrupt);
}

#[test]
fn what_a_guest_can_see_of_its_host_is_caught() {
    expect_caught(Fault::LeaksCpuid(1));
    for name in ["RDRAND", "RDSEED", "XGETBV", "AVX", "RDTSC"] {
        expect_caught(Fault::Carries(name));
    }
}

#[test]
fn instructions_that_cannot_be_run_are_caught_by_their_names() {
    for name in ["CMPXCHG16B", "SYSRET", "INT n"] {
        expect_caught(Fault::CannotRun(name));
        let finding = found(&[Fault::CannotRun(name)], Property::Instructions);
        assert!(finding.seen.contains(name), "{finding:?}");
    }
    expect_caught(Fault::NoPorts);
}

#[test]
fn transfers_that_lose_or_repeat_something_are_caught() {
    expect_caught(Fault::TransferLosesVectors);
    expect_caught(Fault::TransferRepeats);
}

#[test]
fn dirty_logs_that_miss_invent_or_repeat_pages_are_caught() {
    expect_caught(Fault::DirtyMisses);
    expect_caught(Fault::DirtyInvents);
    expect_caught(Fault::DirtyStays);
}

#[test]
fn kicks_that_change_what_the_guest_does_are_caught() {
    expect_caught(Fault::KickSkips);
}

fn all_of(faults: &[Fault]) -> Vec<Finding> {
    let usable = [Property::Access, Property::Version, Property::Capabilities];
    let usable = usable.map(|property| Finding {
        judgement: Judgement::Yes,
        ..found(faults, property)
    });
    let probed = PROPERTIES.map(|property| found(faults, property));
    usable.into_iter().chain(probed).collect()
}

fn good_for(faults: &[Fault]) -> Vec<Use> {
    verdicts(&all_of(faults))
        .into_iter()
        .filter(|verdict| verdict.holds)
        .map(|verdict| verdict.usage)
        .collect()
}

#[test]
fn a_fault_takes_away_the_uses_that_need_what_it_spoils() {
    assert_eq!(good_for(&[]), Use::ALL);
    let without = |unwanted: &[Use]| -> Vec<Use> {
        Use::ALL
            .into_iter()
            .filter(|usage| !unwanted.contains(usage))
            .collect()
    };
    assert_eq!(
        good_for(&[Fault::CannotRun("INT n")]),
        without(&[Use::UnmodifiedKernels])
    );
    let both = [
        Fault::Overshoots(ClockKind::Step),
        Fault::Overshoots(ClockKind::Statistic),
    ];
    let exact = [Use::ExactInterruptsRing0, Use::ExactInterruptsRing3];
    assert_eq!(good_for(&both), without(&exact));
    let silent = [
        Fault::Declines(ClockKind::Step, Ring::Three),
        Fault::Declines(ClockKind::Statistic, Ring::Three),
    ];
    assert_eq!(good_for(&silent), without(&[Use::ExactInterruptsRing3]));
    assert_eq!(good_for(&[Fault::KickSkips]), exact);
}

#[test]
fn a_start_is_refused_what_the_host_does_wrongly() {
    let step = Request {
        clock: Some(ClockKind::Step),
        ..Request::default()
    };
    let windows = Request {
        window_exits: true,
        ..Request::default()
    };
    let measured = |request: &Request, faults: &[Fault]| -> Vec<Finding> {
        let properties = request.depends_on().into_iter();
        properties.map(|property| found(faults, property)).collect()
    };
    for (request, fault) in [
        (Request::default(), Fault::KickSkips),
        (Request::default(), Fault::NoPorts),
        (step, Fault::Miscounts(ClockKind::Step)),
        (windows, Fault::LateWindow(Ring::Zero)),
    ] {
        assert!(request.choose(&measured(&request, &[])).is_ok(), "{request:?}");
        let why = request.choose(&measured(&request, &[fault])).unwrap_err();
        let (property, _) = fault.spoils();
        assert!(why.to_string().contains(&property.to_string()), "{why}");
    }
}
