//! Outputs that a backup keeps until it knows that they have left.

use super::primary::with_lease;
use super::*;
use crate::replica::BATCH_OUTPUT_BYTES_MAX;

const HELD: u64 = 16 << 20;
const BATCH: u64 = BATCH_OUTPUT_BYTES_MAX as u64;

fn saying(sequence: u64, output_bytes: u64) -> Batch<()> {
    Batch {
        output_bytes,
        ..batch(sequence, 100)
    }
}

/// Appends an entry that is an output of so many bytes.
fn say(subject: &mut Subject, now_ms: u64, output_bytes: u64) -> Actions {
    let sequence = subject.next;
    subject.next = sequence.next();
    let batch = saying(sequence.0, output_bytes);
    let outputs = vec![output(sequence, output_bytes as usize)];
    subject.step(now_ms, Input::Appended { batch, outputs })
}

/// A primary that may release until 125 ms, and whose backup keeps as much as it may.
fn with_much_said() -> Subject {
    assert_eq!(Config::default().held_bytes_max as u64, HELD);
    let mut subject = with_lease();
    assert_eq!(
        say(&mut subject, 31, HELD - 1),
        [Action::SendEntries(saying(1, HELD - 1))]
    );
    assert_eq!(say(&mut subject, 31, 1), [Action::SendEntries(saying(2, 1))]);
    subject
}

#[test]
fn a_primary_sends_no_more_output_than_the_backup_keeps() {
    let mut subject = with_much_said();
    assert_eq!(say(&mut subject, 32, 1), [Action::Throttle(true)]);
    // An output that is acknowledged leaves; the backup is told at once, and what follows comes
    // behind that.
    let actions = subject.acknowledge(33, 1, 0);
    assert_eq!(released(&actions), [(1, 125)]);
    let heartbeat = Heartbeat {
        sent_at_ns: 33 * MS,
        echo_ns: MS,
        exits: 1,
        released: Sequence(1),
    };
    let behind = [
        Action::Send(Message::Heartbeat(heartbeat)),
        Action::SendEntries(saying(3, 1)),
        Action::Throttle(false),
    ];
    assert_eq!(actions[1..4], behind);
}

#[test]
fn where_little_has_left_the_backup_is_told_as_soon_as_that_makes_room() {
    let mut subject = with_much_said();
    // 4 and 5 are as large as what 2 leaves.
    say(&mut subject, 32, 1);
    subject.acknowledge(33, 1, 0);
    assert_eq!(
        say(&mut subject, 34, HELD - 2),
        [Action::SendEntries(saying(4, HELD - 2))]
    );
    assert_eq!(say(&mut subject, 34, 1), [Action::Throttle(true)]);
    let actions = subject.acknowledge(35, 2, 0);
    assert_eq!(released(&actions), [(2, 125)]);
    assert!(
        actions.contains(&Action::SendEntries(saying(5, 1))),
        "{actions:?}"
    );
}

#[test]
fn entries_without_output_are_not_kept_back() {
    let mut subject = with_much_said();
    let batch = subject.batch(100);
    let appended = Input::Appended {
        batch: batch.clone(),
        outputs: vec![],
    };
    assert_eq!(subject.step(32, appended), [Action::SendEntries(batch)]);
}

#[test]
fn one_batch_always_fits() {
    let (mut subject, _) = Subject::primary();
    let actions = say(&mut subject, 1, HELD + 1);
    assert!(actions.contains(&Action::SendEntries(saying(1, HELD + 1))));
}

fn accused(actions: &Actions) -> bool {
    matches!(causes(actions)[..], [Cause::Violation { .. }])
}

#[test]
fn a_backup_keeps_the_bound_and_a_batch_and_parts_from_who_sends_more() {
    let (mut subject, _) = Subject::backup();
    assert!(!accused(
        &subject.step(1, Input::ReceivedEntries(saying(1, HELD)))
    ));
    assert!(!accused(
        &subject.step(1, Input::ReceivedEntries(saying(2, BATCH)))
    ));
    let actions = subject.step(1, Input::ReceivedEntries(saying(3, 1)));
    assert!(accused(&actions), "{actions:?}");
    assert!(!actions.contains(&Action::Deliver(saying(3, 1))));
}

#[test]
fn what_has_left_is_not_kept_whether_it_was_replayed_or_not() {
    let (mut subject, _) = Subject::backup();
    subject.step(1, Input::ReceivedEntries(saying(1, HELD)));
    subject.step(1, Input::ReceivedEntries(saying(2, BATCH)));
    subject.heartbeat(2, 1, 0, 1);
    assert!(!accused(
        &subject.step(3, Input::ReceivedEntries(saying(3, HELD)))
    ));
    assert!(accused(&subject.step(3, Input::ReceivedEntries(saying(4, 1)))));
}

#[test]
fn more_than_can_be_counted_is_too_much() {
    let (mut subject, _) = Subject::backup();
    subject.step(1, Input::ReceivedEntries(saying(1, 1)));
    assert!(accused(
        &subject.step(1, Input::ReceivedEntries(saying(2, u64::MAX)))
    ));
}
