use super::*;

/// A backup that has entries 1 and 2.
fn with_entries() -> Subject {
    let (mut subject, _) = Subject::backup();
    subject.entries(1);
    subject.entries(2);
    subject
}

#[test]
fn entries_are_handed_over_and_then_acknowledged() {
    let (mut subject, _) = Subject::backup();
    assert_eq!(subject.entries(1), handed_over(1, 0));
}

#[test]
fn a_heartbeat_is_echoed_at_once() {
    let (mut subject, _) = Subject::backup();
    let actions = subject.heartbeat(10, 7, 0, 0);
    assert_eq!(messages(&actions), [&echo(10, 7)]);
}

#[test]
fn the_replay_may_run_to_where_the_primary_was() {
    let mut subject = with_entries();
    let heartbeat = |exits| {
        Input::Received(Message::Heartbeat(Heartbeat {
            exits,
            ..Default::default()
        }))
    };
    assert!(
        subject
            .step(3, heartbeat(500))
            .contains(&Action::Advance { exits: 500 })
    );
    assert!(
        !subject
            .step(4, heartbeat(500))
            .iter()
            .any(|action| matches!(action, Action::Advance { .. }))
    );
}

#[test]
fn what_the_replay_says_stays_here() {
    let mut subject = with_entries();
    assert_eq!(released(&subject.replay(3, 1)), NOTHING);
    assert_eq!(released(&subject.replay(4, 2)), NOTHING);
    assert_eq!(subject.replica.statistics().held, 2);
    subject.heartbeat(5, 1, 0, 1);
    assert_eq!(subject.replica.statistics().held, 1);
}

#[test]
fn what_the_primary_said_is_not_kept_when_the_replay_comes_to_it() {
    let mut subject = with_entries();
    subject.heartbeat(3, 1, 0, 1);
    subject.replay(4, 1);
    assert_eq!(subject.replica.statistics().held, 0);
}

#[test]
fn the_replay_is_acknowledged_in_parts_and_with_heartbeats() {
    let (mut subject, _) = Subject::backup();
    let large = subject.batch(Config::default().window_bytes_max / 4);
    subject.step(1, Input::ReceivedEntries(large));
    let told = Message::Acknowledge(Acknowledge {
        received: Sequence(1),
        replayed: Sequence(1),
    });
    assert_eq!(messages(&subject.replay(2, 1)), [&told]);

    subject.entries(3);
    assert_eq!(messages(&subject.replay(4, 2)), [] as [&Message; 0]);
    let told = Message::Acknowledge(Acknowledge {
        received: Sequence(2),
        replayed: Sequence(2),
    });
    assert_eq!(messages(&subject.step(25, Input::Wake)).first(), Some(&&told));
}

#[test]
fn claims_after_the_timeout() {
    let mut subject = with_entries();
    assert_eq!(claims(&subject.wake_until(2, 200)), NO_CLAIM);
    let actions = subject.step(202, Input::Wake);
    assert_eq!(causes(&actions), [&Cause::Silence { silent_ns: 200 * MS }]);
    assert_eq!(claims(&actions), [2]);
}

#[test]
fn a_clock_that_jumps_is_not_silence() {
    let mut subject = with_entries();
    assert_eq!(claims(&subject.step(5002, Input::Wake)), NO_CLAIM);
    assert_eq!(claims(&subject.wake_until(5027, 5150)), NO_CLAIM);
    assert_eq!(claims(&subject.step(5152, Input::Wake)), [2]);
}

#[test]
fn claims_at_once_when_the_primary_closes_or_leaves() {
    for input in [Input::PeerClosed(Closed::ByPeer), goodbye()] {
        let mut subject = with_entries();
        assert_eq!(claims(&subject.step(3, input)), [2]);
    }
}

#[test]
fn waits_out_the_lease_when_the_connection_breaks_here() {
    let mut subject = with_entries();
    let actions = subject.step(3, broken());
    assert_eq!(claims(&actions), NO_CLAIM);
    assert!(actions.contains(&Action::Disconnect));
    assert!(messages(&subject.entries(4)).is_empty());
    assert_eq!(claims(&subject.wake_until(25, 200)), NO_CLAIM);
    assert_eq!(claims(&subject.step(202, Input::Wake)), [2]);
}

#[test]
fn what_no_primary_says_ends_the_pair() {
    let released_early = Heartbeat {
        released: Sequence(3),
        ..Heartbeat::default()
    };
    let inputs = [
        Input::ReceivedEntries(batch(4, 100)),
        Input::ReceivedEntries(batch(2, 100)),
        Input::ReceivedEntries(Batch {
            last: Sequence(2),
            ..batch(3, 100)
        }),
        Input::ReceivedEntries(batch(3, 2 * Config::default().window_bytes_max)),
        Input::Received(Message::Heartbeat(released_early)),
        Input::Received(Message::Acknowledge(Acknowledge::default())),
    ];
    for input in inputs {
        let mut subject = with_entries();
        let actions = subject.step(3, input);
        assert!(
            matches!(causes(&actions)[..], [Cause::Violation { .. }]),
            "{actions:?}"
        );
        assert!(messages(&actions).is_empty());
        assert_eq!(claims(&subject.wake_until(25, 300)), [2]);
    }
}

#[test]
fn nothing_follows_the_end() {
    let mut subject = with_entries();
    subject.end_entry(3);
    assert!(matches!(
        causes(&subject.entries(4))[..],
        [Cause::Violation { .. }]
    ));
}

#[test]
fn an_end_that_is_all_said_needs_nobody_asked() {
    let mut subject = with_entries();
    subject.end_entry(3);
    subject.heartbeat(4, 1, 0, 3);
    assert_eq!(claims(&subject.step(5, goodbye())), NO_CLAIM);
    subject.replay(6, 3);
    let actions = subject.step(7, guest_ended());
    assert_eq!(actions, [halt_ended()]);
}

#[test]
fn an_end_replayed_before_the_goodbye_waits_for_it() {
    let mut subject = with_entries();
    subject.end_entry(3);
    subject.replay(4, 3);
    assert_eq!(subject.step(5, guest_ended()), NO_ACTION);
    subject.heartbeat(6, 1, 0, 3);
    let actions = subject.step(7, goodbye());
    assert_eq!(actions.last(), Some(&halt_ended()));
}

#[test]
fn an_end_that_was_not_all_said_is_said_here() {
    let mut subject = with_entries();
    subject.end_entry(3);
    subject.heartbeat(4, 1, 0, 2);
    subject.replay(5, 3);
    assert_eq!(claims(&subject.step(6, Input::PeerClosed(Closed::ByPeer))), [2]);
    let actions = subject.claimed(7, Outcome::Won);
    assert!(
        !actions
            .iter()
            .any(|action| matches!(action, Action::GoLive { .. }))
    );
    assert_eq!(released(&actions), [(3, FOR_EVER)]);
    let actions = subject.step(8, guest_ended());
    assert_eq!(actions, [halt_ended()]);
}

#[test]
fn asked_to_stop_it_leaves() {
    let mut subject = with_entries();
    let actions = subject.step(3, Input::StopRequested);
    assert!(matches!(messages(&actions)[..], [Message::Goodbye(_)]));
    assert_eq!(actions.last(), Some(&Action::Halt(Halt::Stopped)));
}
