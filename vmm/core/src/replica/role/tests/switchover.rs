//! A switchover: the primary hands over, and the store decides who goes on.

use lockstep_logging_channel::message::Handover;

use super::joining::joined;
use super::primary::with_lease;
use super::*;

fn stands(subject: &mut Subject, now_ms: u64, sequence: u64) -> Actions {
    let sequence = Sequence(sequence);
    subject.step(now_ms, Input::Stands { sequence })
}

fn handover(after: u64) -> Message {
    Message::Handover(Handover {
        after: Sequence(after),
    })
}

/// A primary with a lease until 125 ms, which was asked at 32 ms, after entry 1.
fn asked() -> Subject {
    let mut subject = with_lease();
    subject.output(31);
    let actions = subject.step(32, Input::SwitchOver);
    assert_eq!(
        actions,
        [Action::Report(Report::SwitchingOver), Action::Stand(true)]
    );
    subject
}

/// The same, which has handed over at 40 ms.
fn handed_over() -> Subject {
    let mut subject = asked();
    subject.acknowledge(33, 1, 1);
    let actions = stands(&mut subject, 40, 1);
    assert_eq!(messages(&actions), [&handover(1)]);
    subject
}

fn switched_over(generation: u32) -> [Action<(), u64>; 2] {
    let generation = Generation(generation);
    [
        Action::Report(Report::SwitchedOver { generation }),
        Action::Halt(Halt::SwitchedOver),
    ]
}

#[test]
fn a_primary_hands_over_when_everything_has_left() {
    let mut subject = asked();
    assert_eq!(released(&subject.acknowledge(33, 1, 0)), [(1, 125)]);
    // The guest runs on until it stands.
    assert_eq!(subject.output(34), [Action::SendEntries(batch(2, 100))]);
    assert_eq!(stands(&mut subject, 35, 2), NO_ACTION);
    let actions = subject.acknowledge(36, 2, 0);
    let after = Sequence(2);
    let stood_ns = 4 * MS;
    assert_eq!(released(&actions), [(2, 125)]);
    assert_eq!(
        actions[1..3],
        [
            Action::Send(handover(2)),
            Action::Report(Report::HandedOver { after, stood_ns })
        ]
    );
    assert_eq!(subject.replica.may_speak_until_ns(), 0);
    assert_eq!(subject.replica.statistics().protection, Protection::Undecided);
}

#[test]
fn a_primary_waits_for_its_lease_and_for_its_backup_to_be_close() {
    let (mut subject, _) = Subject::primary();
    subject.output(1);
    let wanted = [Action::Report(Report::SwitchingOver)];
    assert_eq!(subject.step(2, Input::SwitchOver), wanted);
    assert_eq!(subject.step(3, Input::SwitchOver), NO_ACTION);
    subject.step(25, Input::Wake);
    // The lease stands when the entry of 1 ms is too old.
    let actions = subject.heartbeat(52, 1, 25, 0);
    assert!(!actions.contains(&Action::Stand(true)));
    let actions = subject.acknowledge(53, 1, 1);
    assert!(actions.contains(&Action::Stand(true)));
}

#[test]
fn a_request_that_is_not_repeated_is_forgotten() {
    let stands = |asked_ms: &[u64]| {
        let (mut subject, _) = Subject::primary();
        subject.append(1, 100);
        for beat in 1..=124 {
            let now_ms = 25 * beat;
            subject.step(now_ms, Input::Wake);
            subject.heartbeat(now_ms, beat, now_ms, 0);
            if asked_ms.contains(&now_ms) {
                subject.step(now_ms, Input::SwitchOver);
            }
        }
        // The backup has replayed everything at last.
        subject.acknowledge(3_100, 1, 1).contains(&Action::Stand(true))
    };
    assert!(!stands(&[100]));
    assert!(stands(&[125]));
    assert!(stands(&[100, 1_000]));
}

#[test]
fn one_that_has_handed_over_says_nothing_and_claims_when_its_backup_closes() {
    let mut subject = handed_over();
    subject.heartbeat(41, 2, 25, 0);
    assert_eq!(released(&subject.output(42)), NOTHING);
    assert_eq!(subject.step(43, Input::SwitchOver), NO_ACTION);
    let actions = subject.step(44, Input::PeerClosed(Closed::ByPeer));
    assert_eq!((claims(&actions), causes(&actions)), (vec![2], vec![]));
    assert_eq!(subject.claimed(45, Outcome::Lost), switched_over(2));
}

#[test]
fn it_goes_on_where_its_backup_has_not_claimed() {
    let mut subject = handed_over();
    subject.step(44, Input::PeerClosed(Closed::ByPeer));
    let actions = subject.claimed(45, Outcome::Won);
    assert_eq!(actions[0], Action::Stand(false));
    let generation = Generation(2);
    assert!(actions.contains(&Action::Report(Report::Solo { generation })));
    assert_eq!(released(&subject.output(46)), [(2, FOR_EVER)]);
}

#[test]
fn it_claims_when_its_backup_is_silent_and_learns_from_the_store() {
    let mut subject = handed_over();
    // It was heard at 33 ms.
    assert_eq!(claims(&subject.wake_until(41, 207)), NO_CLAIM);
    assert_eq!(claims(&subject.step(208, Input::Wake)), [2]);
    assert_eq!(subject.step(209, later(3)), switched_over(3));

    let mut subject = handed_over();
    assert_eq!(subject.step(60, later(2)), switched_over(2));
}

#[test]
fn one_that_loses_its_backup_before_lets_the_guest_go_on() {
    let mut subject = asked();
    let actions = subject.step(33, Input::PeerClosed(Closed::ByPeer));
    assert!(actions.contains(&Action::Stand(false)));
    assert_eq!(claims(&actions), [2]);
    // It stands all the same, and says so too late.
    assert_eq!(stands(&mut subject, 34, 1), NO_ACTION);
    let actions = subject.claimed(35, Outcome::Lost);
    assert_eq!(actions.last(), Some(&Action::Halt(Halt::Fenced)));
}

#[test]
fn a_guest_that_ends_is_not_handed_over() {
    let mut subject = asked();
    subject.append_end(33);
    subject.step(33, guest_ended());
    let actions = subject.acknowledge(34, 2, 2);
    assert_eq!(actions.last(), Some(&halt_ended()));
    assert!(!messages(&actions).contains(&&handover(2)));
}

#[test]
fn one_that_is_stopped_meanwhile_stops() {
    let mut subject = handed_over();
    let actions = subject.step(41, Input::StopRequested);
    assert_eq!(actions, [Action::Halt(Halt::Stopped)]);
}

#[test]
fn the_backup_claims_and_closes_when_it_has_won() {
    let (mut subject, _) = Subject::backup();
    (1..4).for_each(|now_ms| drop(subject.entries(now_ms)));
    subject.replay(4, 2);
    let actions = subject.step(5, Input::Received(handover(3)));
    assert_eq!(claims(&actions), [2]);
    let after = Sequence(3);
    assert_eq!(reports(&actions)[0], &Report::TakingOver { after });
    assert!(!actions.contains(&Action::Disconnect));
    let actions = subject.claimed(6, Outcome::Won);
    assert_eq!(actions[0], Action::Disconnect);
    // All of it has left the primary.
    assert_eq!(released(&actions), NOTHING);
    assert!(!claims(&subject.wake_until(7, 400)).contains(&3));
}

#[test]
fn a_backup_that_loses_begins_anew() {
    let (mut subject, _) = Subject::backup();
    subject.step(5, Input::Received(handover(0)));
    assert_eq!(subject.claimed(6, Outcome::Lost), switched_over(2));
}

#[test]
fn a_backup_that_is_handed_over_to_waits_for_no_witness() {
    let config = Config {
        witnesses: 1,
        ..Config::default()
    };
    let (mut subject, _) = Subject::start(Replica::backup(config, 0).unwrap());
    let actions = subject.step(5, goodbye());
    assert_eq!(claims(&actions), NO_CLAIM);

    let (mut subject, _) = Subject::start(Replica::backup(config, 0).unwrap());
    let actions = subject.step(5, Input::Received(handover(0)));
    assert_eq!(claims(&actions), [2]);
}

#[test]
fn a_handover_that_does_not_fit_is_a_violation() {
    let violates = |subject: &mut Subject, now_ms, message| {
        let actions = subject.step(now_ms, Input::Received(message));
        assert!(
            matches!(causes(&actions)[..], [Cause::Violation { .. }]),
            "{actions:?}"
        );
        assert_eq!(claims(&actions), NO_CLAIM);
    };
    let (mut early, _) = Subject::backup();
    violates(&mut early, 1, handover(1));
    let (mut ended, _) = Subject::backup();
    ended.end_entry(1);
    violates(&mut ended, 2, handover(1));
    let newcomer = Replica::newcomer(Config::default(), 0).unwrap();
    let (mut newcomer, _) = Subject::start(newcomer);
    violates(&mut newcomer, 1, handover(0));
    // From a side that replays.
    let mut primary = with_lease();
    let actions = primary.step(31, Input::Received(handover(0)));
    assert!(matches!(causes(&actions)[..], [Cause::Violation { .. }]));
}

#[test]
fn nobody_is_handed_over_to_where_there_is_no_backup() {
    let (mut alone, _) = joined();
    let actions = alone.step(101, Input::SwitchOver);
    assert_eq!(reports(&actions), [] as [&Report; 0]);
    let (mut backup, _) = Subject::backup();
    assert_eq!(backup.step(1, Input::SwitchOver), NO_ACTION);
}
