use super::*;

fn with_witnesses(witnesses: usize) -> Config {
    Config {
        witnesses,
        ..Config::default()
    }
}

/// A primary with two witnesses and a held output, which has heard its backup last at 0.
fn primary() -> Subject {
    let (mut subject, _) = Subject::start(Replica::primary(with_witnesses(2), 0).unwrap());
    subject.output(1);
    subject
}

fn answer(subject: &mut Subject, now_ms: u64, witness: usize, asked_ms: u64) -> Actions {
    let asked_at_ns = asked_ms * MS;
    subject.step(now_ms, Input::Witnessed { witness, asked_at_ns })
}

/// The times, in milliseconds, at which a replica wants to be woken.
fn wakes(actions: &Actions) -> Vec<u64> {
    let wake = |action: &Action<(), u64>| match action {
        Action::WakeAt { at_ns } => Some(at_ns / MS),
        _ => None,
    };
    actions.iter().filter_map(wake).collect()
}

const WAIT: Report = Report::WaitingForWitness { wait_ns: 400 * MS };

#[test]
fn a_side_that_reaches_a_witness_claims_at_once() {
    let mut subject = primary();
    answer(&mut subject, 5, 1, 4);
    let actions = subject.step(10, Input::PeerClosed(Closed::ByPeer));
    assert_eq!(claims(&actions), [2]);
    assert!(!reports(&actions).contains(&&WAIT));
}

#[test]
fn a_side_that_reaches_none_waits_two_timeouts_and_says_nothing_meanwhile() {
    let mut subject = primary();
    let actions = subject.step(10, Input::PeerClosed(Closed::ByPeer));
    assert_eq!(claims(&actions), NO_CLAIM);
    assert_eq!(
        reports(&actions),
        [&Report::Noticed { cause: Cause::Closed }, &WAIT]
    );
    let meanwhile = subject.wake_until(35, 400);
    assert_eq!((claims(&meanwhile), released(&meanwhile)), (vec![], vec![]));
    assert_eq!(claims(&subject.step(409, Input::Wake)), NO_CLAIM);

    let actions = subject.step(410, Input::Wake);
    assert_eq!(claims(&actions), [2]);
    let generation = Generation(2);
    assert!(reports(&actions).contains(&&Report::Claiming { generation }));
    let actions = subject.claimed(411, Outcome::Won);
    assert_eq!(released(&actions), [(1, FOR_EVER)]);
}

#[test]
fn a_backup_that_reaches_none_waits_too() {
    let (mut subject, _) = Subject::start(Replica::backup(with_witnesses(1), 0).unwrap());
    assert_eq!(
        claims(&subject.step(10, Input::PeerClosed(Closed::ByPeer))),
        NO_CLAIM
    );
    assert_eq!(claims(&subject.step(409, Input::Wake)), NO_CLAIM);
    assert_eq!(claims(&subject.step(410, Input::Wake)), [2]);
}

#[test]
fn a_side_without_witnesses_never_waits() {
    let (mut subject, _) = Subject::start(Replica::primary(with_witnesses(0), 0).unwrap());
    assert_eq!(claims(&subject.step(10, Input::PeerClosed(Closed::ByPeer))), [2]);
    assert_eq!(subject.replica.statistics().witness_reached, None);
}

#[test]
fn what_is_lost_at_once_is_stale_before_silence_is_noticed() {
    let mut subject = primary();
    answer(&mut subject, 5, 0, 0);
    // The backup's last heartbeat was sent when the witness was asked last.
    let actions = subject.wake_until(25, 175);
    assert!(matches!(causes(&actions)[..], [Cause::Silence { .. }]));
    assert!(reports(&actions).contains(&&WAIT));
    assert_eq!(claims(&actions), NO_CLAIM);
}

#[test]
fn an_answer_counts_for_half_a_timeout_from_when_it_was_asked() {
    let closed = || Input::PeerClosed(Closed::ByPeer);
    let (mut fresh, mut stale) = (primary(), primary());
    answer(&mut fresh, 90, 0, 50);
    answer(&mut stale, 150, 0, 50);
    assert_eq!(claims(&fresh.step(150, closed())), [2]);
    assert_eq!(claims(&stale.step(151, closed())), NO_CLAIM);
}

#[test]
fn an_answer_that_waited_in_a_stopped_process_proves_nothing() {
    let mut subject = primary();
    // Stopped from 20 to 1000; the answers of before are read then.
    let mut actions = answer(&mut subject, 1000, 0, 19);
    actions.extend(answer(&mut subject, 1000, 1, 20));
    assert_eq!(claims(&actions), NO_CLAIM);
    assert!(reports(&actions).contains(&&WAIT));
}

#[test]
fn a_witness_that_answers_ends_the_wait() {
    let mut subject = primary();
    subject.step(10, Input::PeerClosed(Closed::ByPeer));
    assert_eq!(
        claims(&answer(&mut subject, 200, 0, 20)),
        NO_CLAIM,
        "asked too long ago"
    );
    assert_eq!(claims(&answer(&mut subject, 210, 0, 205)), [2]);
    assert_eq!(
        claims(&answer(&mut subject, 235, 0, 230)),
        NO_CLAIM,
        "asked already"
    );
}

#[test]
fn a_waiting_side_can_be_told_to_stop() {
    let mut subject = primary();
    subject.step(10, Input::PeerClosed(Closed::ByPeer));
    assert_eq!(
        subject.step(11, Input::StopRequested),
        [Action::Halt(Halt::Stopped)]
    );
}

#[test]
fn what_no_witness_can_have_answered_counts_for_nothing() {
    let mut subject = primary();
    answer(&mut subject, 5, 2, 4);
    answer(&mut subject, 5, usize::MAX, 4);
    answer(&mut subject, 5, 0, 6);
    assert_eq!(subject.replica.statistics().witness_reached, Some(false));
}

#[test]
fn a_loss_and_a_return_are_reported_once_and_not_more_often_than_every_ten_seconds() {
    let (mut subject, _) = Subject::start(Replica::primary(with_witnesses(2), 0).unwrap());
    let (mut lines, mut now_ms) = (Vec::new(), 5);
    // Alone, so that nothing else reports.
    subject.step(now_ms, Input::PeerClosed(Closed::ByPeer));
    while now_ms < 31_000 {
        now_ms += 25;
        let mut actions = answer(&mut subject, now_ms, 0, now_ms);
        // The second one comes and goes every two seconds, and then stays.
        if now_ms % 4_000 < 2_000 || now_ms > 25_000 {
            actions.extend(answer(&mut subject, now_ms, 1, now_ms));
        }
        if now_ms < 1_000 {
            subject.claimed(now_ms, Outcome::Won);
        }
        let said = reports(&actions).into_iter().cloned();
        let about =
            |report: &Report| matches!(report, Report::WitnessLost { .. } | Report::WitnessBack { .. });
        lines.extend(said.filter(about).map(|report| (now_ms / 1_000, report)));
    }
    let (witness, any) = (1, true);
    assert_eq!(
        lines,
        [
            (2, Report::WitnessLost { witness, any }),
            (12, Report::WitnessBack { witness }),
            (22, Report::WitnessLost { witness, any }),
        ]
    );
}

#[test]
fn a_loss_is_noticed_by_a_side_that_nobody_wakes_otherwise() {
    let (mut subject, _) = Subject::start(Replica::primary(with_witnesses(1), 0).unwrap());
    answer(&mut subject, 5, 0, 4);
    let actions = subject.step(6, Input::PeerClosed(Closed::ByPeer));
    assert_eq!(wakes(&actions), [200], "no report in the first timeout");
    let actions = subject.claimed(7, Outcome::Won);
    assert_eq!(wakes(&actions).len(), 0, "as before");
    let (witness, any) = (0, false);
    let actions = subject.step(200, Input::Wake);
    assert_eq!(reports(&actions), [&Report::WitnessLost { witness, any }]);
}
