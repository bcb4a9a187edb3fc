//! A newcomer joins a side that acts alone in generation 5. Its state is saved after entry 10, and
//! nothing that happens to it changes what the guest may do.

use lockstep_logging_channel::message::{Armed, Piece, Refused};

use super::*;

const CONFIG: Config = Config {
    generation: Generation(5),
    common: Sequence(10),
    timeout_ns: 200 * MS,
    window_bytes_max: WINDOW_BYTES_MIN,
    held_bytes_max: 1000,
    lag_ns_max: 100 * MS,
    kept_bytes_max: 2 * WINDOW_BYTES_MIN,
    witnesses: 0,
};

pub(super) fn alone() -> Subject {
    alone_with(CONFIG)
}

fn alone_with(config: Config) -> Subject {
    let (mut subject, actions) = Subject::start(Replica::alone(config, 0).unwrap());
    assert_eq!(actions, NO_ACTION);
    subject.next = Sequence(11);
    subject
}

pub(super) fn saved(now_ms: u64) -> Subject {
    saved_with(CONFIG, now_ms)
}

fn saved_with(config: Config, now_ms: u64) -> Subject {
    let mut subject = alone_with(config);
    let actions = subject.saved_at(now_ms, 10, 40);
    assert_eq!(reports(&actions), [&Report::Saved { after: Sequence(10) }]);
    subject
}

/// A newcomer has joined at 100 ms, which lacks entries 11 and 12 of 50 ms.
pub(super) fn joined() -> (Subject, Actions) {
    let mut subject = saved(40);
    subject.output(50);
    subject.output(50);
    let actions = subject.step(100, Input::Joined);
    (subject, actions)
}

/// It has echoed the heartbeat of 100 ms: it does not act until 200.
pub(super) fn with_lease() -> Subject {
    let (mut subject, _) = joined();
    subject.heartbeat(101, 1, 100, 0);
    subject
}

/// It has replayed everything, and is armed at 102 ms.
pub(super) fn armed() -> (Subject, Actions) {
    let mut subject = with_lease();
    let actions = subject.acknowledge(102, 12, 12);
    (subject, actions)
}

pub(super) fn arms(actions: &Actions) -> Vec<u64> {
    let arm = |message: &&Message| match message {
        Message::Armed(Armed { from }) => Some(from.0),
        _ => None,
    };
    messages(actions).iter().filter_map(arm).collect()
}

fn sent(actions: &Actions) -> Vec<u64> {
    let entries = |action: &Action<(), u64>| match action {
        Action::SendEntries(batch) => Some(batch.first.0),
        _ => None,
    };
    actions.iter().filter_map(entries).collect()
}

fn protection(subject: &Subject) -> Protection {
    subject.replica.statistics().protection
}

/// The guest is what it was: it is heard at once, and runs.
pub(super) fn check_unharmed(subject: &mut Subject, now_ms: u64, actions: &Actions) {
    assert_eq!(claims(actions), NO_CLAIM);
    assert!(!actions.iter().any(|action| matches!(action, Action::Halt(_))));
    let sequence = subject.next.0;
    let output = subject.output(now_ms);
    assert_eq!(
        (released(&output), sent(&output)),
        (vec![(sequence, FOR_EVER)], vec![])
    );
    assert!(!output.contains(&Action::Throttle(true)));
    assert_eq!(subject.wake_until(now_ms + 1, now_ms + 10_000), NO_ACTION);
    assert!(subject.replica.acts_alone());
    assert_eq!(protection(subject), Protection::Alone);
    assert_eq!(subject.replica.generation(), Generation(5));
}

#[test]
fn alone_everything_is_said_at_once_and_nobody_is_told() {
    let mut subject = alone();
    assert_eq!(protection(&subject), Protection::Alone);
    assert_eq!(subject.replica.may_speak_until_ns(), u64::MAX);
    check_unharmed(&mut subject, 1, &vec![]);
}

#[test]
fn the_log_is_kept_from_where_the_state_was_saved() {
    let mut subject = alone();
    subject.output(10);
    subject.saved_at(20, 11, 40);
    for now_ms in [30, 31] {
        let actions = subject.output(now_ms);
        assert_eq!((released(&actions).len(), sent(&actions)), (1, vec![]));
    }
    assert_eq!(protection(&subject), Protection::Loading);
    assert_eq!(subject.replica.statistics().behind_bytes, 200);
    let actions = subject.step(100, Input::Joined);
    assert_eq!(sent(&actions), [12, 13]);
    // Nothing waits here, so everything has left that was sent; and no entry lies before the exit
    // before the last entry's.
    let heartbeat = Heartbeat {
        sent_at_ns: 100 * MS,
        exits: 39,
        released: Sequence(13),
        ..Heartbeat::default()
    };
    assert_eq!(messages(&actions), [&Message::Heartbeat(heartbeat)]);
    assert_eq!(protection(&subject), Protection::CatchingUp);
}

#[test]
fn too_long_a_log_gives_the_newcomer_up() {
    let kept_bytes_max = 1000;
    let mut subject = saved_with(
        Config {
            kept_bytes_max,
            ..CONFIG
        },
        40,
    );
    // Batches of 100 bytes, and as many as that take beside them.
    for now_ms in 41..45 {
        assert_eq!(subject.output(now_ms).len(), 1);
    }
    let actions = subject.output(45);
    let bytes = 5 * (100 + KEPT_BATCH_BYTES);
    assert_eq!(lost(&actions), [&Cause::LogTooLong { bytes }]);
    assert!(actions.contains(&Action::Disconnect));
    assert_eq!(released(&actions), [(15, FOR_EVER)]);
    // It joins at that very moment, and is told that nobody waits for it.
    assert_eq!(subject.step(52, Input::Joined), [Action::Disconnect]);
    check_unharmed(&mut subject, 53, &actions);
}

#[test]
fn one_that_has_caught_up_is_armed_and_outputs_wait_from_there() {
    let (mut subject, actions) = armed();
    assert_eq!(arms(&actions), [13]);
    let took_ns = 62 * MS;
    let report = Report::Armed {
        from: Sequence(13),
        took_ns,
    };
    assert_eq!(reports(&actions), [&report]);
    assert!(!subject.replica.acts_alone());
    assert_eq!(
        (protection(&subject), subject.replica.may_speak_until_ns()),
        (Protection::Protected, 200 * MS)
    );
    let actions = subject.output(103);
    assert_eq!((released(&actions), sent(&actions)), (vec![], vec![13]));
    assert_eq!(released(&subject.acknowledge(104, 13, 12)), [(13, 200)]);
    // Everything before has left, whatever was acknowledged.
    let actions = subject.step(125, Input::Wake);
    assert!(matches!(
        messages(&actions)[..],
        [Message::Heartbeat(Heartbeat {
            released: Sequence(13),
            ..
        })]
    ));
}

#[test]
fn what_has_left_before_is_not_taken_back() {
    let mut subject = saved(40);
    subject.output(50);
    subject.output(90);
    subject.step(100, Input::Joined);
    subject.acknowledge(101, 11, 11);
    let actions = subject.heartbeat(102, 1, 100, 0);
    assert_eq!(arms(&actions), [13], "entry 12 is not acknowledged");
    let actions = subject.step(125, Input::Wake);
    assert!(matches!(
        messages(&actions)[..],
        [Message::Heartbeat(Heartbeat {
            released: Sequence(12),
            ..
        })]
    ));
}

#[test]
fn nothing_is_armed_before_everything_is_sent() {
    let mut subject = saved(40);
    subject.step(41, Input::Joined);
    subject.heartbeat(42, 1, 41, 0);
    assert_eq!(protection(&subject), Protection::Protected, "nothing was lacking");

    let (mut subject, _) = joined();
    subject.acknowledge(100, 12, 12);
    assert_eq!(sent(&subject.append(101, WINDOW_BYTES_MIN)), [13]);
    assert_eq!(sent(&subject.append(101, 900)), [0; 0]);
    let actions = subject.heartbeat(102, 1, 100, 0);
    assert_eq!((arms(&actions), sent(&actions)), (vec![], vec![]));
    let actions = subject.acknowledge(103, 13, 13);
    assert_eq!((sent(&actions), arms(&actions)), (vec![14], vec![15]));
    let of = |found: fn(&Action<(), u64>) -> bool| actions.iter().position(found);
    let entries = of(|action| matches!(action, Action::SendEntries(_)));
    let arming = of(|action| matches!(action, Action::Send(Message::Armed(_))));
    assert!(entries < arming);
}

#[test]
fn nothing_is_armed_that_is_behind() {
    let mut subject = with_lease();
    // Half of the lag limit, counted from entry 12 of 50 ms.
    assert_eq!(arms(&subject.acknowledge(101, 12, 11)), [0; 0]);
    assert_eq!(arms(&subject.acknowledge(102, 12, 12)), [13]);
}

#[test]
fn nothing_is_armed_without_a_lease() {
    let (mut subject, _) = joined();
    assert_eq!(arms(&subject.acknowledge(101, 12, 12)), [0; 0]);
    assert_eq!(arms(&subject.step(125, Input::Wake)), [0; 0]);
    assert_eq!(arms(&subject.heartbeat(201, 1, 100, 0)), [0; 0], "over at 200 ms");
    assert_eq!(arms(&subject.heartbeat(202, 2, 125, 0)), [13]);
}

#[test]
fn nothing_is_armed_past_the_end() {
    let mut subject = with_lease();
    subject.append_end(102);
    assert_eq!(arms(&subject.acknowledge(103, 13, 13)), [0; 0]);
    let actions = subject.step(104, guest_ended());
    assert!(matches!(
        messages(&actions)[..],
        [
            Message::Heartbeat(Heartbeat {
                released: Sequence(13),
                ..
            }),
            Message::Goodbye(_)
        ]
    ));
    assert_eq!(actions.last(), Some(&halt_ended()));
}

#[test]
fn asked_to_stop_it_tells_a_newcomer_that_has_joined() {
    let mut subject = with_lease();
    let actions = subject.step(103, Input::StopRequested);
    assert!(matches!(
        messages(&actions)[..],
        [Message::Heartbeat(_), Message::Goodbye(_)]
    ));
    assert_eq!(actions.last(), Some(&Action::Halt(Halt::Stopped)));
    assert_eq!(
        saved(40).step(41, Input::StopRequested),
        [Action::Halt(Halt::Stopped)]
    );
}

#[test]
fn a_newcomer_that_is_lost_before_it_joins_is_forgotten() {
    let mut subject = saved(40);
    let why = "it closed the connection".to_owned();
    let actions = subject.step(41, Input::NewcomerLost { why: why.clone() });
    assert_eq!(lost(&actions), [&Cause::Here { why }]);
    assert!(actions.contains(&Action::Disconnect));
    check_unharmed(&mut subject, 42, &actions);
    let why = String::new();
    assert_eq!(subject.step(20_000, Input::NewcomerLost { why }), NO_ACTION);
}

#[test]
fn what_comes_over_a_connection_that_is_not_its_own_yet_counts_for_nothing() {
    let mut subject = saved(40);
    assert_eq!(subject.step(41, goodbye()), NO_ACTION);
    assert_eq!(subject.step(41, broken()), NO_ACTION);
    assert_eq!(subject.wake_until(42, 3_000), NO_ACTION);
    assert_eq!(protection(&subject), Protection::Loading);
}

#[test]
fn a_newcomer_that_parts_is_forgotten() {
    let closed = || Input::PeerClosed(Closed::ByPeer);
    for input in [closed(), broken(), goodbye()] {
        let mut subject = with_lease();
        let actions = subject.step(103, input);
        assert_eq!(lost(&actions).len(), 1);
        assert!(actions.contains(&Action::Disconnect));
        check_unharmed(&mut subject, 104, &actions);
    }
}

#[test]
fn a_newcomer_that_is_silent_is_forgotten() {
    let mut subject = with_lease();
    let actions = subject.wake_until(102, 275);
    assert_eq!(lost(&actions), [&Cause::Silence { silent_ns: 0 }; 0]);
    let actions = subject.step(276, Input::Wake);
    assert_eq!(lost(&actions), [&Cause::Silence { silent_ns: 175 * MS }]);
    check_unharmed(&mut subject, 277, &actions);
}

#[test]
fn a_newcomer_too_far_away_is_forgotten() {
    let (mut subject, _) = joined();
    let mut all = Vec::new();
    for now_ms in (125..=600).step_by(25) {
        all.extend(subject.step(now_ms, Input::Wake));
        all.extend(subject.heartbeat(now_ms, 1, now_ms.saturating_sub(110).max(100), 0));
    }
    assert!(matches!(lost(&all)[..], [Cause::TooFar { .. }]));
    check_unharmed(&mut subject, 601, &all);
}

#[test]
fn what_no_newcomer_says_makes_it_forgotten() {
    let inputs = [
        acknowledge(9, 9),
        acknowledge(13, 0),
        acknowledge(11, 12),
        early_echo(),
        Input::ReceivedEntries(batch(13, 100)),
        Input::Received(Message::Loaded),
        Input::Received(Message::Armed(Armed { from: Sequence(13) })),
        Input::Received(Message::Piece(Piece { bytes: vec![] })),
        Input::Received(Message::Refused(Refused::Other("no".to_owned()))),
    ];
    for input in inputs {
        let (mut subject, _) = joined();
        let actions = subject.step(101, input);
        assert!(
            matches!(lost(&actions)[..], [Cause::Violation { .. }]),
            "{actions:?}"
        );
        check_unharmed(&mut subject, 102, &actions);
    }
}

#[test]
fn one_that_is_armed_is_a_backup() {
    let (mut subject, _) = armed();
    subject.output(103);
    let actions = subject.step(104, Input::Received(Message::Loaded));
    assert!(matches!(causes(&actions)[..], [Cause::Violation { .. }]));
    assert_eq!((released(&actions), claims(&actions)), (vec![], vec![6]));
    assert_eq!(protection(&subject), Protection::Undecided);
    let outcome = Outcome::Won;
    let generation = Generation(6);
    let actions = subject.step(105, Input::Claimed { generation, outcome });
    assert_eq!(released(&actions), [(13, FOR_EVER)]);
    // And takes the next one.
    subject.saved_at(106, 13, 50);
    subject.step(107, Input::Joined);
    assert_eq!(arms(&subject.heartbeat(108, 1, 107, 0)), [14]);
}

#[test]
fn several_newcomers_come_one_after_the_other() {
    let (mut subject, _) = joined();
    subject.step(101, Input::PeerClosed(Closed::ByPeer));
    subject.output(102);
    subject.saved_at(103, 13, 50);
    subject.output(104);
    // One that was lost, and was not known to be when the next was taken.
    let actions = subject.saved_at(105, 14, 60);
    assert!(matches!(lost(&actions)[..], [Cause::Here { .. }]));
    subject.output(106);
    assert_eq!(sent(&subject.step(107, Input::Joined)), [15]);
    subject.acknowledge(108, 15, 15);
    assert_eq!(arms(&subject.heartbeat(108, 1, 107, 0)), [16]);
}
