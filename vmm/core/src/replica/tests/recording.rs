//! Entries that a recorder writes, and the points at which it reports that exits are passed.

use super::*;
use crate::machine::door::Door;

fn recorder(outside: FakeOutside) -> (Recorder<FakeOutside, FakeJournal>, Rc<RefCell<Written>>) {
    let journal = FakeJournal::default();
    let written = journal.written.clone();
    let start = Start {
        generation: Generation(3),
        sequence: Sequence(7),
    };
    (Recorder::new(outside, journal, start), written)
}

#[test]
fn entries_are_numbered_from_the_start_in_its_generation() {
    let (mut door, written) = recorder(FakeOutside {
        arrivals: [Some(EventKind::Timer)].into(),
        ..Default::default()
    });

    door.answer(point(1, 0), Question::Tsc).unwrap();
    door.arrival(point(1, 0), ready(false)).unwrap();
    door.arrival(point(1, 0), ready(false)).unwrap();
    door.output(point(2, 0), CONSOLE, b"hello".to_vec()).unwrap();
    door.end(
        point(3, 0),
        End {
            reason: EndReason::Stopped,
            parts: Vec::new(),
        },
    )
    .unwrap();

    let written = written.borrow();
    let numbers: Vec<u64> = written.entries.iter().map(|entry| entry.sequence.0).collect();
    assert_eq!(numbers, [7, 8, 9, 10], "an arrival of nothing is no entry");
    assert!(
        written
            .entries
            .iter()
            .all(|entry| entry.generation == Generation(3))
    );
    assert_eq!(written.outputs, [(CONSOLE, b"hello".to_vec())]);
    assert!(written.finished);
}

#[test]
fn an_output_is_logged_by_its_digest_and_not_by_its_bytes() {
    let (mut door, written) = recorder(FakeOutside::default());

    door.output(point(1, 0), NETWORK, vec![9; 70]).unwrap();

    let expected = super::super::recorder::output_digest(NETWORK, &[9; 70]);
    assert_eq!(expected.length, 70);
    assert_eq!(written.borrow().entries[0].body, Body::Output(expected));
}

#[test]
fn an_exit_is_passed_when_the_guest_runs_on_and_not_while_it_idles() {
    let (mut door, written) = recorder(FakeOutside::default());

    door.horizon(point(4, 0)).unwrap();
    door.arrival(point(5, 0), ready(true)).unwrap();
    door.arrival(point(5, 0), ready(false)).unwrap();

    assert_eq!(
        written.borrow().passed,
        [(4, false), (4, true)],
        "at exit 5 an event may still enter"
    );
}

#[test]
fn a_value_that_cannot_be_logged_is_not_given_to_the_guest() {
    let (mut door, written) = recorder(FakeOutside::default());
    door.answer(point(1, 0), Question::Wall).unwrap();
    let journal = FakeJournal {
        written: written.clone(),
        entries_max: Some(1),
    };
    let mut full = Recorder::new(FakeOutside::default(), journal, Start::default());

    assert!(matches!(
        full.answer(point(2, 0), Question::Wall),
        Err(DoorError::Host { .. })
    ));
    assert!(full.output(point(2, 0), NETWORK, vec![1]).is_err());
    assert_eq!(written.borrow().outputs, []);
}
