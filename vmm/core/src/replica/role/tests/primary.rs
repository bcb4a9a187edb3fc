use lockstep_logging_channel::message::Refused;

use super::*;

/// A primary whose heartbeat of 25 ms was echoed: it may release until 125 ms.
pub(super) fn with_lease() -> Subject {
    let (mut subject, _) = Subject::primary();
    subject.step(25, Input::Wake);
    subject.heartbeat(30, 1, 25, 0);
    subject
}

#[test]
fn greets_with_a_heartbeat_and_asks_for_the_next() {
    let (_, actions) = Subject::primary();
    let first = Heartbeat::default();
    assert_eq!(
        actions,
        [
            Action::Send(Message::Heartbeat(first)),
            Action::WakeAt { at_ns: 25 * MS }
        ]
    );
}

#[test]
fn an_output_waits_for_the_acknowledgement_of_its_entry() {
    let mut subject = with_lease();
    assert_eq!(subject.output(31), [Action::SendEntries(batch(1, 100))]);
    assert_eq!(subject.output(32), [Action::SendEntries(batch(2, 100))]);
    assert_eq!(released(&subject.acknowledge(33, 1, 0)), [(1, 125)]);
    assert_eq!(released(&subject.acknowledge(34, 2, 0)), [(2, 125)]);
}

#[test]
fn an_acknowledged_output_waits_for_the_lease() {
    let (mut subject, _) = Subject::primary();
    subject.output(1);
    assert_eq!(released(&subject.acknowledge(2, 1, 0)), NOTHING);
    subject.step(25, Input::Wake);
    assert_eq!(released(&subject.heartbeat(30, 1, 25, 0)), [(1, 125)]);
}

#[test]
fn an_output_past_the_lease_waits_for_the_next() {
    let mut subject = with_lease();
    subject.step(120, Input::Wake);
    subject.output(124);
    assert_eq!(released(&subject.acknowledge(125, 1, 0)), NOTHING);
    assert_eq!(released(&subject.heartbeat(126, 1, 120, 0)), [(1, 220)]);
}

#[test]
fn one_that_was_stopped_does_not_hear_what_waited_for_it() {
    let mut subject = with_lease();
    subject.output(31);
    // Stopped at 31 ms and woken at 1031 ms, with these in its socket.
    let actions = subject.acknowledge(1031, 1, 1);
    assert_eq!(released(&actions), NOTHING);
    assert_eq!(claims(&actions), [2]);
    assert_eq!(released(&subject.heartbeat(1032, 30, 25, 0)), NOTHING);
    assert_eq!(
        subject.claimed(1033, Outcome::Lost).last(),
        Some(&Action::Halt(Halt::Fenced))
    );
    assert_eq!(subject.output(1034), NO_ACTION);
}

#[test]
fn claims_before_a_backup_would() {
    let mut subject = with_lease();
    assert_eq!(claims(&subject.wake_until(31, 204)), NO_CLAIM);
    let actions = subject.step(205, Input::Wake);
    assert_eq!(causes(&actions), [&Cause::Silence { silent_ns: 175 * MS }]);
    assert_eq!(claims(&actions), [2]);
    assert!(actions.contains(&Action::Disconnect));
}

#[test]
fn every_sign_of_life_counts() {
    let mut subject = with_lease();
    subject.output(31);
    subject.acknowledge(200, 1, 0);
    assert_eq!(claims(&subject.wake_until(201, 374)), NO_CLAIM);
    assert_eq!(claims(&subject.step(375, Input::Wake)), [2]);
}

#[test]
fn claims_at_once_when_the_connection_closes_or_the_backup_leaves() {
    for input in [Input::PeerClosed(Closed::ByPeer), broken(), goodbye()] {
        let mut subject = with_lease();
        assert_eq!(claims(&subject.step(31, input)), [2]);
    }
}

#[test]
fn alone_it_says_everything_it_held_and_all_that_comes() {
    let mut subject = with_lease();
    subject.output(31);
    subject.output(32);
    subject.step(33, Input::PeerClosed(Closed::ByPeer));
    let actions = subject.claimed(34, Outcome::Won);
    assert_eq!(released(&actions), [(1, FOR_EVER), (2, FOR_EVER)]);
    let announced = actions
        .iter()
        .position(|action| matches!(action, Action::Announce { .. }));
    let first = actions
        .iter()
        .position(|action| matches!(action, Action::Release { .. }));
    assert!(announced < first);
    assert!(subject.replica.acts_alone());
    assert_eq!(subject.replica.generation(), Generation(2));
    assert_eq!(released(&subject.output(35)), [(3, FOR_EVER)]);
    assert_eq!(subject.step(5000, Input::Wake), NO_ACTION);
}

#[test]
fn what_no_backup_says_ends_the_pair() {
    let inputs = [
        acknowledge(2, 0),
        acknowledge(1, 2),
        early_echo(),
        Input::ReceivedEntries(batch(1, 100)),
        Input::Received(Message::Refused(Refused::Other("no".to_owned()))),
    ];
    for input in inputs {
        let mut subject = with_lease();
        subject.output(31);
        let actions = subject.step(32, input);
        assert!(
            matches!(causes(&actions)[..], [Cause::Violation { .. }]),
            "{actions:?}"
        );
        assert_eq!((released(&actions), claims(&actions)), (vec![], vec![2]));
    }
}

#[test]
fn the_window_holds_entries_back_and_the_guest_with_them() {
    let mut subject = with_lease();
    let large = Config::default().window_bytes_max;
    assert_eq!(subject.append(31, large), [Action::SendEntries(batch(1, large))]);
    assert_eq!(subject.append(31, 100), [Action::Throttle(true)]);
    assert_eq!(subject.acknowledge(32, 1, 0), NO_ACTION);
    let actions = subject.acknowledge(33, 1, 1);
    assert_eq!(
        actions,
        [Action::SendEntries(batch(2, 100)), Action::Throttle(false)]
    );
}

#[test]
fn a_backup_too_far_behind_makes_the_guest_wait() {
    let mut subject = with_lease();
    subject.output(31);
    for now_ms in (50..=525).step_by(25) {
        let mut actions = subject.step(now_ms, Input::Wake);
        actions.extend(subject.heartbeat(now_ms, 1, now_ms, 0));
        actions.extend(subject.acknowledge(now_ms, 1, 0));
        assert!(!actions.contains(&Action::Throttle(true)), "{now_ms}");
    }
    assert!(subject.acknowledge(532, 1, 0).contains(&Action::Throttle(true)));
    assert!(subject.acknowledge(533, 1, 1).contains(&Action::Throttle(false)));
}

#[test]
fn too_much_output_makes_the_guest_wait() {
    let mut subject = with_lease();
    let bytes = Config::default().held_bytes_max + 1;
    assert!(subject.output_of(31, bytes).contains(&Action::Throttle(true)));
    let actions = subject.acknowledge(32, 1, 0);
    assert!(actions.contains(&Action::Throttle(false)));
    // Much has left: the backup is told at once, so that it need not keep it.
    assert!(matches!(
        messages(&actions)[..],
        [Message::Heartbeat(Heartbeat {
            released: Sequence(1),
            ..
        })]
    ));
}

#[test]
fn heartbeats_tell_how_far_the_guest_is() {
    let mut subject = with_lease();
    subject.step(31, Input::Ran { exits: 400 });
    let actions = subject.step(55, Input::Wake);
    assert!(matches!(
        messages(&actions)[..],
        [Message::Heartbeat(Heartbeat { exits: 400, .. })]
    ));
}

#[test]
fn the_end_is_over_when_its_entry_is_acknowledged() {
    let mut subject = with_lease();
    subject.output(31);
    assert_eq!(subject.step(32, guest_ended()), NO_ACTION);
    let actions = subject.acknowledge(33, 1, 0);
    assert_eq!(released(&actions), [(1, 125)]);
    let said = messages(&actions);
    assert!(matches!(
        said[..],
        [
            Message::Heartbeat(Heartbeat {
                released: Sequence(1),
                ..
            }),
            Message::Goodbye(_)
        ]
    ));
    assert_eq!(actions.last(), Some(&halt_ended()));
}

#[test]
fn an_end_without_a_backup_is_said_alone() {
    let mut subject = with_lease();
    subject.output(31);
    subject.step(32, guest_ended());
    subject.step(33, Input::PeerClosed(Closed::ByPeer));
    let actions = subject.claimed(34, Outcome::Won);
    assert_eq!(released(&actions), [(1, FOR_EVER)]);
    assert_eq!(actions.last(), Some(&halt_ended()));
}

#[test]
fn asked_to_stop_it_says_what_has_left_and_leaves() {
    let mut subject = with_lease();
    subject.output(31);
    let actions = subject.step(32, Input::StopRequested);
    assert!(matches!(
        messages(&actions)[..],
        [Message::Heartbeat(_), Message::Goodbye(_)]
    ));
    assert_eq!(actions.last(), Some(&Action::Halt(Halt::Stopped)));
    assert_eq!(subject.acknowledge(33, 1, 1), NO_ACTION);
}

#[test]
fn figures_are_those_of_the_last_step() {
    let mut subject = with_lease();
    subject.output(31);
    subject.acknowledge(41, 1, 0);
    subject.output(42);
    let figures = subject.replica.statistics();
    let expected = Statistics {
        held: 1,
        held_bytes: 100,
        behind_bytes: 200,
        lag_ns: 11 * MS,
        round_trip_ns: 5 * MS,
        protection: Protection::Protected,
        ..Statistics::default()
    };
    assert_eq!(figures, expected);
}

#[test]
fn the_lease_is_measured_from_one_renewal_to_the_next() {
    let mut subject = with_lease();
    subject.heartbeat(40, 2, 25, 0);
    let renewed = |subject: &Subject| subject.replica.statistics().lease;
    assert_eq!(renewed(&subject), Lease::default());
    subject.step(50, Input::Wake);
    subject.heartbeat(60, 3, 50, 0);
    let in_time = Lease {
        gap_ns_max: 30 * MS,
        age_ns_max: 35 * MS,
        lapses: 0,
    };
    assert_eq!(renewed(&subject), in_time);
    // The lease of 50 ms was over at 150.
    subject.step(75, Input::Wake);
    subject.heartbeat(150, 4, 75, 0);
    let too_late = Lease {
        gap_ns_max: 90 * MS,
        age_ns_max: 100 * MS,
        lapses: 1,
    };
    assert_eq!(renewed(&subject), too_late);
}
