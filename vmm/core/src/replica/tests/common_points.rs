//! Common points at the doors: what a recorder writes of one, and where a replayer meets it.

use super::parts::{machine, page};
use super::*;
use crate::machine::devices::saved::SavedDevice;
use crate::machine::door::{Door, Met};
use crate::machine::saved::SavedMachine;
use lockstep_logging_channel::Part;

fn device(name: &str, state: u8) -> SavedDevice {
    SavedDevice {
        name: name.to_owned(),
        state: vec![state],
    }
}

fn devices() -> Vec<SavedDevice> {
    vec![device("timer", 1), device("console", 2)]
}

/// The machine at the common point after exit 4.
fn at_point() -> SavedMachine {
    SavedMachine {
        devices: devices(),
        ..machine(5, 0)
    }
}

/// What a recorder writes that takes a page between exits 3 and 4, and makes a common point behind
/// exit 4.
fn recorded() -> Vec<Entry> {
    let journal = FakeJournal::default();
    let written = journal.written.clone();
    let start = Start {
        generation: Generation(1),
        sequence: Sequence(1),
    };
    let mut door = Recorder::new(FakeOutside::default(), journal, start);
    door.part(point(3, 0), vec![page(1, 7)]).unwrap();
    door.answer(point(4, 0), Question::Tsc).unwrap();
    door.part(point(4, 0), vec![page(2, 8)]).unwrap();
    door.common_point(point(5, 0), at_point()).unwrap();
    written.take().entries
}

/// A backup that has replayed up to exit 4.
fn at_exit_4(entries: &[Entry]) -> FakeStandby {
    let mut door = FakeStandby::new(Replayer::new(FakeFeed::of(entries), false), None);
    door.horizon(point(3, 0)).unwrap();
    door.answer(point(4, 0), Question::Tsc).unwrap();
    door
}

#[test]
fn a_recorder_writes_parts_as_they_come_and_the_point_that_covers_them() {
    let entries = recorded();
    let shape: Vec<_> = entries
        .iter()
        .map(|entry| (entry.point.exits, entry.body.kind().name()))
        .collect();
    assert_eq!(
        shape,
        [
            (3, "part"),
            (4, "value"),
            (4, "part"),
            (5, "part"),
            (5, "common point")
        ]
    );
    let Body::CommonPoint(common) = &entries[4].body else {
        panic!("{entries:?}")
    };
    assert_eq!((common.first, common.pages), (Sequence(1), 2));
}

#[test]
fn a_replayer_meets_it_behind_the_exit_before_it_and_nowhere_else() {
    let mut door = at_exit_4(&recorded());

    assert_eq!(door.horizon(point(4, 0)).unwrap(), Horizon::CommonPoint);

    let met = door.meet(point(4, 0), &devices()).unwrap();
    let expected = Met {
        pages: vec![page(1, 7), page(2, 8)],
        machine: Box::new(at_point()),
    };
    assert_eq!(met, expected);
}

#[test]
fn a_common_point_far_ahead_lets_the_guest_run() {
    let common = recorded().pop().unwrap();
    let mut door = FakeStandby::new(Replayer::new(FakeFeed::of(&[common]), false), None);
    assert_eq!(door.horizon(point(3, 0)).unwrap(), Horizon::Exit);
    assert_eq!(door.horizon(point(4, 0)).unwrap(), Horizon::CommonPoint);
}

#[test]
fn a_guest_does_not_run_while_a_common_point_may_come_next() {
    let passed = |exits| Ok(Fed::Passed(exits));
    let feed = FakeFeed {
        items: [passed(4), passed(5), Err(DoorError::Stopped)].into(),
        ..FakeFeed::default()
    };
    let mut door = FakeStandby::new(Replayer::new(feed, false), None);
    assert_eq!(door.horizon(point(4, 0)).unwrap(), Horizon::Exit);
    assert!(
        matches!(door.horizon(point(5, 0)), Err(DoorError::Stopped)),
        "exit 6 may be a common point"
    );
}

#[test]
fn every_part_and_the_point_are_reported_as_replayed() {
    let entries = recorded();
    let feed = FakeFeed::of(&entries);
    let told = feed.told.clone();
    let mut door = FakeStandby::new(Replayer::new(feed, false), None);
    door.answer(point(4, 0), Question::Tsc).unwrap();
    door.horizon(point(4, 0)).unwrap();
    door.meet(point(4, 0), &devices()).unwrap();
    let replayed: Vec<_> = told
        .borrow()
        .replayed
        .iter()
        .map(|(sequence, exits)| (sequence.0, *exits))
        .collect();
    assert_eq!(replayed, [(1, 3), (2, 4), (3, 4), (4, 5), (5, 5)]);
}

#[test]
fn a_device_that_differs_at_a_common_point_is_named() {
    let mut door = at_exit_4(&recorded());
    door.horizon(point(4, 0)).unwrap();
    let found = [device("timer", 1), device("console", 3)];

    let report = diverged(door.meet(point(4, 0), &found));

    assert_eq!(report.part, "console");
    assert_eq!((report.recorded_at, report.found_at), (point(5, 0), point(4, 0)));
}

#[test]
fn another_board_differs_in_its_parts() {
    let mut door = at_exit_4(&recorded());
    door.horizon(point(4, 0)).unwrap();
    assert_eq!(
        diverged(door.meet(point(4, 0), &[device("timer", 1)])).part,
        "parts"
    );
}

/// The refusal of an entry, where something met it.
fn refused(entries: &[Entry]) -> Sequence {
    let mut door = FakeStandby::new(Replayer::new(FakeFeed::of(entries), false), None);
    let outcome = door
        .answer(point(4, 0), Question::Tsc)
        .and_then(|_| door.horizon(point(4, 0)))
        .and_then(|_| door.meet(point(4, 0), &devices()));
    match outcome {
        Err(DoorError::Part { sequence, .. }) => sequence,
        other => panic!("no refusal: {other:?}"),
    }
}

#[test]
fn a_part_that_cannot_be_taken_is_refused_by_its_number() {
    let mut entries = recorded();
    let block = vec![0xff; 40];
    entries[2].body = Body::Part(Part {
        raw_bytes: 400,
        block,
    });
    assert_eq!(refused(&entries), Sequence(3));
}

#[test]
fn a_common_point_without_one_of_its_parts_is_refused() {
    for lost in [0, 2, 3] {
        let mut entries = recorded();
        entries.remove(lost);
        assert_eq!(refused(&entries), Sequence(5), "entry {}", lost + 1);
    }
}

#[test]
fn a_machine_of_another_exit_than_its_entry_is_refused() {
    let mut entries = recorded();
    entries[4].point.exits += 1;
    let mut door = at_exit_4(&entries);
    assert_eq!(door.horizon(point(5, 0)).unwrap(), Horizon::CommonPoint);
    assert!(matches!(
        door.meet(point(5, 0), &devices()),
        Err(DoorError::Part {
            sequence: Sequence(5),
            ..
        })
    ));
}

#[test]
fn parts_without_their_point_change_nothing_for_who_goes_live() {
    let mut entries = recorded();
    entries.pop();
    let journal = FakeJournal::default();
    let written = journal.written.clone();
    let go_live: GoLive<FakeOutside, FakeJournal> = Box::new(move |taken_over| {
        let start = taken_over.start(Generation(2));
        Ok(Recorder::new(FakeOutside::default(), journal, start))
    });
    let mut door = FakeStandby::new(Replayer::new(FakeFeed::of(&entries), false), Some(go_live));
    door.answer(point(4, 0), Question::Tsc).unwrap();
    assert!(!door.is_followed(), "it replays");
    assert!(door.part(point(4, 0), Vec::new()).is_err(), "it replays");

    assert_eq!(door.horizon(point(4, 0)).unwrap(), Horizon::Exit);
    assert!(door.is_followed());
    assert!(door.meet(point(4, 0), &devices()).is_err(), "it is live");
    door.part(point(4, 0), vec![page(4, 4)]).unwrap();
    door.common_point(point(5, 0), at_point()).unwrap();

    let written = written.borrow();
    assert_eq!(written.entries[0].sequence, Sequence(5));
    let Body::CommonPoint(common) = &written.entries[2].body else {
        panic!("{written:?}")
    };
    assert_eq!((common.first, common.pages), (Sequence(5), 1));
    // Whoever reads the whole log meets it too.
    let whole: Vec<_> = entries.iter().chain(&written.entries).cloned().collect();
    let mut reader = at_exit_4(&whole);
    reader.horizon(point(4, 0)).unwrap();
    assert_eq!(reader.meet(point(4, 0), &devices()).unwrap().pages, [page(4, 4)]);
}
