//! A newcomer that does not catch up by itself, what people are told, and generations that are
//! later.

use super::joining::{alone, armed, arms, check_unharmed, joined, saved, with_lease};
use super::*;

#[test]
fn a_slow_newcomer_takes_slices_of_time_and_is_given_up_in_the_end() {
    let (mut subject, _) = joined();
    let (mut waits, mut waited_ms, mut longest_ms) = (false, [0; 17], 0);
    let mut since_ms = 0;
    let mut all = Vec::new();
    for now_ms in 101..=1700 {
        let mut actions = subject.step(now_ms, Input::Wake);
        if now_ms % 25 == 0 {
            actions.extend(subject.heartbeat(now_ms, now_ms, now_ms, 0));
        }
        for action in &actions {
            if let Action::Throttle(on) = action {
                waits = *on;
                longest_ms = longest_ms.max(if waits { 0 } else { now_ms - since_ms });
                since_ms = now_ms;
            }
        }
        waited_ms[(now_ms as usize - 100) / 100] += u64::from(waits);
        all.extend(actions);
    }
    assert_eq!(lost(&all), [&Cause::TooSlow { lag_ns: 1650 * MS }]);
    assert_eq!(arms(&all), [0; 0]);
    assert_eq!(waited_ms[0], 0, "the guest runs at full speed at first");
    assert!((45..=55).contains(&waited_ms[1]), "{waited_ms:?}");
    assert!((65..=80).contains(&waited_ms[2]), "{waited_ms:?}");
    assert!((75..=95).contains(&waited_ms[9]), "{waited_ms:?}");
    assert!((1..=11).contains(&longest_ms), "{longest_ms} ms");
    assert!(!waits, "the guest is free again");
    check_unharmed(&mut subject, 1701, &vec![]);
}

#[test]
fn people_are_told_how_far_it_is() {
    let mut subject = saved(40);
    subject.output(50);
    let told = |actions: &Actions| {
        let behind = |report| match report {
            Report::CatchingUp { behind_bytes, lag_ns } => Some((behind_bytes, lag_ns / MS)),
            _ => None,
        };
        let reports: Vec<_> = reports(actions).into_iter().cloned().collect();
        reports.into_iter().filter_map(behind).collect::<Vec<_>>()
    };
    assert_eq!(told(&subject.step(100, Input::Joined)), [(100, 50)]);
    let mut all = Vec::new();
    for now_ms in (125..=1100).step_by(25) {
        all.extend(subject.step(now_ms, Input::Wake));
        all.extend(subject.heartbeat(now_ms, now_ms, now_ms, 0));
    }
    assert_eq!(told(&all), [(100, 1050)]);
}

#[test]
fn a_later_generation_ends_whoever_acts() {
    let (live, _) = armed();
    for mut subject in [alone(), saved(40), with_lease(), live] {
        assert_eq!(subject.step(102, later(5)), NO_ACTION);
        let actions = subject.step(103, later(7));
        let overtaken = Report::Overtaken {
            generation: Generation(7),
            discarded: 0,
        };
        assert_eq!(reports(&actions), [&overtaken]);
        assert_eq!(actions.last(), Some(&Action::Halt(Halt::Fenced)));
        assert_eq!(subject.output(104), NO_ACTION);
    }
}

#[test]
fn what_a_claimant_has_asked_for_is_not_later() {
    let (mut subject, _) = armed();
    subject.step(103, Input::PeerClosed(Closed::ByPeer));
    assert_eq!(subject.step(104, later(6)), NO_ACTION);
    assert_eq!(
        subject.step(105, later(7)).last(),
        Some(&Action::Halt(Halt::Fenced))
    );
}
