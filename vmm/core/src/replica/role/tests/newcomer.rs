//! A newcomer in generation 5, which has loaded the state as it was after entry 10.

use lockstep_logging_channel::message::{Armed, Piece};

use super::*;

fn newcomer() -> Subject {
    let config = Config {
        generation: Generation(5),
        common: Sequence(10),
        ..Config::default()
    };
    let (mut subject, actions) = Subject::start(Replica::newcomer(config, 0).unwrap());
    assert!(matches!(reports(&actions)[..], [Report::CatchingUp { .. }]));
    subject.next = Sequence(11);
    subject
}

/// It has entries 11 and 12, and has replayed the first.
fn with_entries() -> Subject {
    let mut subject = newcomer();
    subject.entries(1);
    subject.entries(2);
    subject.replay(3, 11);
    subject
}

fn arm(subject: &mut Subject, now_ms: u64, from: u64) -> Actions {
    let from = Sequence(from);
    subject.step(now_ms, Input::Received(Message::Armed(Armed { from })))
}

fn armed() -> Subject {
    let mut subject = with_entries();
    let report = Report::Armed {
        from: Sequence(13),
        took_ns: 4 * MS,
    };
    assert_eq!(arm(&mut subject, 4, 13), [Action::Report(report)]);
    subject
}

fn statistics(subject: &Subject) -> Statistics {
    subject.replica.statistics()
}

fn check_not_armed(actions: &Actions) {
    assert_eq!(claims(actions), NO_CLAIM);
    assert_eq!(released(actions), NOTHING);
    assert_eq!(actions.last(), Some(&Action::Halt(Halt::NotArmed)));
}

#[test]
fn it_replays_and_acknowledges_as_a_backup_does() {
    let mut subject = newcomer();
    assert_eq!(subject.entries(1), handed_over(11, 10));
    assert_eq!(statistics(&subject).protection, Protection::CatchingUp);
    let actions = subject.heartbeat(10, 7, 0, 11);
    assert_eq!(messages(&actions), [&echo(10, 7)]);
}

#[test]
fn it_never_claims() {
    for input in [Input::PeerClosed(Closed::ByPeer), broken(), goodbye()] {
        let mut subject = with_entries();
        let actions = subject.step(4, input);
        assert_eq!(causes(&actions).len(), 1);
        assert!(actions.contains(&Action::Disconnect));
        check_not_armed(&actions);
    }
    let mut subject = with_entries();
    check_not_armed(&subject.wake_until(25, 1_000));
    assert_eq!(subject.replica.generation(), Generation(5));
}

#[test]
fn it_keeps_nothing_of_what_it_says() {
    let mut subject = with_entries();
    assert_eq!(statistics(&subject).held, 0);
    // Those before the first that waits have left, also where their replay comes later.
    arm(&mut subject, 4, 13);
    subject.replay(5, 12);
    assert_eq!(statistics(&subject).held, 0);
    subject.entries(6);
    subject.replay(7, 13);
    assert_eq!(statistics(&subject).held, 1);
}

#[test]
fn once_armed_it_is_a_backup() {
    let mut subject = armed();
    assert_eq!(statistics(&subject).protection, Protection::Protected);
    subject.entries(5);
    subject.replay(6, 12);
    let actions = subject.step(7, Input::PeerClosed(Closed::ByPeer));
    assert_eq!(claims(&actions), [6]);
    let (generation, outcome) = (Generation(6), Outcome::Won);
    let actions = subject.step(8, Input::Claimed { generation, outcome });
    let live = Action::GoLive {
        generation,
        after: Sequence(13),
    };
    assert!(actions.contains(&live));
    assert_eq!(released(&actions), NOTHING);
    assert_eq!(released(&subject.replay(9, 13)), [(13, FOR_EVER)]);
    subject.live_at(10, 13, 13);
    // And takes a newcomer itself.
    subject.next = Sequence(14);
    subject.saved_at(11, 13, 13);
    assert_eq!(statistics(&subject).protection, Protection::Loading);
}

#[test]
fn silence_counts_from_before_it_was_armed() {
    let mut subject = with_entries();
    subject.wake_until(25, 175);
    arm(&mut subject, 200, 13);
    assert_eq!(claims(&subject.wake_until(225, 375)), NO_CLAIM, "heard at 200 ms");
    assert_eq!(claims(&subject.step(400, Input::Wake)), [6]);
}

#[test]
fn a_word_that_arms_wrongly_is_parted_from() {
    for from in [0, 11, 12, 14, u64::MAX] {
        let mut subject = with_entries();
        let actions = arm(&mut subject, 4, from);
        assert!(
            matches!(causes(&actions)[..], [Cause::Violation { .. }]),
            "{from}"
        );
        check_not_armed(&actions);
    }
}

#[test]
fn what_is_armed_already_is_not_armed_again() {
    let (mut backup, _) = Subject::backup();
    for (subject, from) in [(&mut armed(), 13), (&mut backup, 1)] {
        let actions = arm(subject, 5, from);
        assert!(matches!(causes(&actions)[..], [Cause::Violation { .. }]));
        // As with anything else that no primary says: its lease is waited out.
        assert_eq!(reports(&actions).last(), Some(&&Report::WaitingOutLease));
        assert_eq!(claims(&actions), NO_CLAIM);
        assert_eq!(claims(&subject.wake_until(6, 400)).len(), 1);
    }
}

#[test]
fn what_no_holder_says_is_parted_from() {
    let acknowledge = Message::Acknowledge(Acknowledge::default());
    let early = Heartbeat {
        released: Sequence(13),
        ..Heartbeat::default()
    };
    let piece = Message::Piece(Piece { bytes: vec![] });
    let inputs = [
        Input::Received(Message::Loaded),
        Input::Received(piece),
        Input::Received(acknowledge),
        Input::Received(Message::Heartbeat(early)),
        Input::ReceivedEntries(batch(10, 100)),
        Input::ReceivedEntries(batch(12, 100)),
        Input::ReceivedEntries(batch(14, 100)),
    ];
    for input in inputs {
        let mut subject = with_entries();
        let actions = subject.step(4, input);
        assert!(matches!(causes(&actions)[..], [Cause::Violation { .. }]));
        check_not_armed(&actions);
    }
}

#[test]
fn an_end_that_it_has_whole_is_replayed() {
    let whole = || {
        let mut subject = with_entries();
        subject.end_entry(4);
        subject
    };
    let mut subject = whole();
    subject.heartbeat(5, 1, 0, 13);
    assert_eq!(subject.step(6, goodbye()).last(), Some(&Action::Disconnect));
    subject.replay(7, 12);
    assert_eq!(subject.step(8, guest_ended()), [halt_ended()]);
    // Its last outputs are not known to have left: nobody may claim it here.
    check_not_armed(&whole().step(6, Input::PeerClosed(Closed::ByPeer)));
}

#[test]
fn a_later_generation_ends_it() {
    let mut subject = with_entries();
    assert_eq!(subject.step(4, later(5)), NO_ACTION);
    check_not_armed(&subject.step(5, later(6)));
    assert_eq!(
        armed().step(5, later(6)).last(),
        Some(&Action::Halt(Halt::Fenced))
    );
}

#[test]
fn asked_to_stop_it_says_goodbye() {
    let actions = with_entries().step(4, Input::StopRequested);
    assert!(matches!(messages(&actions)[..], [Message::Goodbye(_)]));
    assert_eq!(actions.last(), Some(&Action::Halt(Halt::Stopped)));
}
