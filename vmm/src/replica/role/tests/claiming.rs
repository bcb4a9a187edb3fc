use super::*;

/// A backup with entries 1 to 3, 1 of them replayed and said by the primary, that claims from 10 ms on.
fn claiming() -> Subject {
    let (mut subject, _) = Subject::backup();
    (1..4).for_each(|now_ms| drop(subject.entries(now_ms)));
    subject.replay(4, 1);
    subject.heartbeat(5, 1, 0, 1);
    assert_eq!(claims(&subject.step(10, Input::PeerClosed(Closed::ByPeer))), [2]);
    subject
}

#[test]
fn the_winner_announces_itself_replays_goes_live_and_speaks() {
    let mut subject = claiming();
    subject.replay(11, 2);
    let actions = subject.claimed(12, Outcome::Won);
    let (generation, after) = (Generation(2), Sequence(3));
    let expected = [
        Action::Report(Report::Won { generation }),
        Action::Announce { generation },
        Action::Release {
            output: Output {
                sequence: Sequence(2),
                bytes: 100,
                payload: 2,
            },
            held_ns: MS,
            until_ns: u64::MAX,
        },
        Action::GoLive { generation, after },
    ];
    assert_eq!(actions, expected);

    let actions = subject.replay(13, 3);
    assert_eq!(released(&actions), [(3, FOR_EVER)]);
    assert!(actions.contains(&Action::Report(Report::Replayed { sequence: after })));
    let actions = subject.step(
        14,
        Input::LiveAt {
            sequence: after,
            exits: 9,
        },
    );
    assert_eq!(actions, [Action::Report(Report::Live { generation, exits: 9 })]);
    assert_eq!(released(&subject.output(15)), [(4, FOR_EVER)]);
    assert!(subject.replica.acts_alone());
}

#[test]
fn the_loser_is_fenced() {
    let mut subject = claiming();
    subject.replay(11, 2);
    let actions = subject.claimed(12, Outcome::Lost);
    let lost = Report::Lost {
        generation: Generation(2),
        discarded: 1,
    };
    assert_eq!(actions, [Action::Report(lost), Action::Halt(Halt::Fenced)]);
    assert_eq!(subject.replay(13, 3), NO_ACTION);
    assert_eq!(subject.claimed(14, Outcome::Won), NO_ACTION);
    assert!(!subject.replica.acts_alone());
}

#[test]
fn a_store_without_verdict_is_asked_again_and_again() {
    let mut subject = claiming();
    let mut now_ms = 11;
    for pause_ms in [10, 20, 40, 80, 160, 320, 640, 1000, 1000, 1000] {
        let actions = subject.claimed(
            now_ms,
            Outcome::Unreachable {
                why: "gone".to_owned(),
            },
        );
        assert!(matches!(
            actions[0],
            Action::Report(Report::StorageUnreachable { .. })
        ));
        assert_eq!(
            claims(&subject.step(now_ms + pause_ms - 1, Input::Wake)),
            NO_CLAIM
        );
        now_ms += pause_ms;
        assert_eq!(claims(&subject.step(now_ms, Input::Wake)), [2]);
        assert_eq!(claims(&subject.step(now_ms, Input::Wake)), NO_CLAIM);
    }
    subject.claimed(now_ms, Outcome::Won);
    assert!(subject.replica.acts_alone());
}

#[test]
fn a_store_that_does_not_answer_is_complained_of() {
    let mut subject = claiming();
    assert_eq!(subject.step(1009, Input::Wake), NO_ACTION);
    let actions = subject.step(1010, Input::Wake);
    assert_eq!(
        actions[0],
        Action::Report(Report::StorageSilent { waited_ns: 1000 * MS })
    );
    assert_eq!(claims(&actions), NO_CLAIM);
}

#[test]
fn nothing_the_peer_still_says_counts() {
    let mut subject = claiming();
    assert_eq!(subject.entries(11), NO_ACTION);
    assert_eq!(subject.heartbeat(12, 11, 0, 0), NO_ACTION);
    assert_eq!(subject.step(13, goodbye()), NO_ACTION);
    assert_eq!(subject.step(14, Input::PeerClosed(Closed::ByPeer)), NO_ACTION);
}

#[test]
fn a_verdict_on_another_generation_does_not_count() {
    let mut subject = claiming();
    let stale = Input::Claimed {
        generation: Generation(1),
        outcome: Outcome::Won,
    };
    assert_eq!(subject.step(11, stale), NO_ACTION);
    assert!(!subject.replica.acts_alone());
}

#[test]
fn the_guest_of_a_claiming_primary_runs_on_and_is_held() {
    let (mut subject, _) = Subject::primary();
    subject.step(1, Input::PeerClosed(Closed::ByPeer));
    let batch = subject.batch(100);
    let bytes = Config::default().held_bytes_max + 1;
    let outputs = vec![Output {
        sequence: Sequence(1),
        bytes,
        payload: 1,
    }];
    assert_eq!(
        subject.step(2, Input::Appended { batch, outputs }),
        [Action::Throttle(true)]
    );
    let actions = subject.claimed(3, Outcome::Won);
    assert_eq!(released(&actions), [(1, FOR_EVER)]);
    assert!(actions.contains(&Action::Throttle(false)));
}

#[test]
fn asked_to_stop_it_stops() {
    let mut subject = claiming();
    assert_eq!(
        subject.step(11, Input::StopRequested),
        [Action::Halt(Halt::Stopped)]
    );
}

#[test]
#[should_panic(expected = "live after")]
fn going_live_early_is_a_defect() {
    let mut subject = claiming();
    subject.claimed(11, Outcome::Won);
    subject.step(
        12,
        Input::LiveAt {
            sequence: Sequence(2),
            exits: 9,
        },
    );
}

#[test]
#[should_panic(expected = "a live backup")]
fn a_backup_that_logs_is_a_defect() {
    let mut subject = claiming();
    subject.output(11);
}
