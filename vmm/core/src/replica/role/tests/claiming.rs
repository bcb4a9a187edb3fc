use super::*;

/// A backup with entries 1 to 3, 1 of them replayed and said by the primary, that claims from 10 ms
/// on.
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
            output: output(Sequence(2), 100),
            held_ns: MS,
            until_ns: u64::MAX,
        },
        Action::GoLive { generation, after },
    ];
    assert_eq!(actions, expected);

    let actions = subject.replay(13, 3);
    assert_eq!(released(&actions), [(3, FOR_EVER)]);
    assert!(actions.contains(&Action::Report(Report::Replayed { sequence: after })));
    let actions = subject.live_at(14, 3, 9);
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

fn complaints(actions: &Actions) -> Vec<(u64, u32)> {
    let complaint = |action: &Action<(), u64>| match action {
        Action::Report(Report::StorageSilent { waited_ns, open }) => Some((waited_ns / MS, *open)),
        _ => None,
    };
    actions.iter().filter_map(complaint).collect()
}

/// When the store was asked and complained of within so many seconds, woken as the replica asks to
/// be.
fn silence(subject: &mut Subject, from_ms: u64, until_ms: u64) -> (Vec<u64>, Vec<(u64, u32)>) {
    let (mut asked, mut complained) = (Vec::new(), Vec::new());
    for now_ms in (from_ms..=until_ms).step_by(10) {
        let actions = subject.step(now_ms, Input::Wake);
        asked.extend(claims(&actions).iter().map(|_| now_ms));
        complained.extend(complaints(&actions));
    }
    (asked, complained)
}

#[test]
fn a_store_that_does_not_answer_is_complained_of_and_asked_again() {
    let mut subject = claiming();
    let (asked, complained) = silence(&mut subject, 1000, 7010);
    assert_eq!(asked, [1010, 3010, 7010]);
    let expected = [
        (1000, 2),
        (2000, 2),
        (3000, 3),
        (4000, 3),
        (5000, 3),
        (6000, 3),
        (7000, 4),
    ];
    assert_eq!(complained, expected);
    // Whichever question is answered, the verdict counts.
    subject.claimed(7020, Outcome::Won);
    assert!(subject.replica.acts_alone());
    assert_eq!(subject.claimed(7030, Outcome::Won), NO_ACTION);
}

#[test]
fn questions_that_hang_are_bounded() {
    let mut subject = claiming();
    let (asked, complained) = silence(&mut subject, 20, 3_600_000);
    // One at the start, five in the first half minute, and one a minute.
    assert_eq!(asked.len(), 15);
    assert_eq!(asked[4..7], [31_010, 63_010, 123_010]);
    assert_eq!(complained.last(), Some(&(3_599_000, 16)));
    // One of them is answered: its place is free for another.
    let why = "gone".to_owned();
    subject.claimed(3_600_010, Outcome::Unreachable { why });
    assert_eq!(claims(&subject.step(3_600_020, Input::Wake)), [2]);
}

/// An error of one question is not the end of the others.
#[test]
fn a_failed_question_leaves_the_others_open() {
    let mut subject = claiming();
    assert_eq!(claims(&subject.step(1010, Input::Wake)), [2]);
    let why = "gone".to_owned();
    subject.claimed(1020, Outcome::Unreachable { why });
    // After the pause it is asked again, while the first question still hangs.
    assert_eq!(claims(&subject.step(1029, Input::Wake)), NO_CLAIM);
    assert_eq!(claims(&subject.step(1030, Input::Wake)), [2]);
    assert_eq!(complaints(&subject.step(2020, Input::Wake)), [(1000, 2)]);
    subject.claimed(2021, Outcome::Lost);
    assert_eq!(subject.step(2022, Input::Wake), NO_ACTION);
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
    let bytes = Config::default().held_bytes_max + 1;
    assert_eq!(subject.output_of(2, bytes), [Action::Throttle(true)]);
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
    subject.live_at(12, 2, 9);
}

#[test]
#[should_panic(expected = "a live backup")]
fn a_backup_that_logs_is_a_defect() {
    let mut subject = claiming();
    subject.output(11);
}
