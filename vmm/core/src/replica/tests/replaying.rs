//! Answers that a replayer gives, its waits, and the part it names for each difference.

use super::*;
use crate::machine::door::Door;
use lockstep_logging_channel::Digest;

fn offline(entries: &[Entry]) -> FakeStandby {
    FakeStandby::new(Replayer::new(FakeFeed::of(entries), false), None)
}

fn with_items(
    items: impl IntoIterator<Item = Result<Fed, DoorError>>,
    counts_instructions: bool,
) -> FakeStandby {
    let feed = FakeFeed {
        items: items.into_iter().collect(),
        ..FakeFeed::default()
    };
    FakeStandby::new(Replayer::new(feed, counts_instructions), None)
}

fn fed(entry: Entry) -> Result<Fed, DoorError> {
    Ok(Fed::Entry(Box::new(entry)))
}

fn part(name: &str, byte: u8) -> PartDigest {
    PartDigest {
        part: name.to_owned(),
        digest: Digest([byte; 16]),
    }
}

fn end(reason: EndReason, parts: Vec<PartDigest>) -> End {
    End { reason, parts }
}

fn tsc(exits: u64) -> Entry {
    entry(1, point(exits, 0), Body::Value(Value::Tsc(77)))
}

#[test]
fn a_question_elsewhere_differs_in_its_execution_point() {
    let report = diverged(offline(&[tsc(2)]).answer(point(3, 0), Question::Tsc));

    assert_eq!(report.part, "execution point");
    assert_eq!((report.recorded_at, report.found_at), (point(2, 0), point(3, 0)));
    assert_eq!(report.sequence, Sequence(1));
}

#[test]
fn another_question_differs_as_a_question() {
    let report = diverged(offline(&[tsc(2)]).answer(point(2, 0), Question::Wall));

    assert_eq!(report.part, "question");
    assert_eq!(
        (report.expected.as_str(), report.found.as_str()),
        ("value tsc 0x4d", "wall")
    );
}

#[test]
fn a_value_answers_its_own_question_and_no_other() {
    let questions = [
        Question::Tsc,
        Question::Monotonic,
        Question::Wall,
        Question::Random { length_bytes: 4 },
    ];
    let values = [
        Value::Tsc(7),
        Value::Monotonic(7),
        Value::Wall(7),
        Value::Random(vec![7; 4]),
    ];
    for (asked, question) in questions.into_iter().enumerate() {
        for (recorded, value) in values.iter().enumerate() {
            let log = [entry(1, point(2, 0), Body::Value(value.clone()))];
            let answer = offline(&log).answer(point(2, 0), question);
            if asked == recorded {
                assert_eq!(answer.unwrap(), *value);
            } else {
                assert_eq!(diverged(answer).part, "question", "{question:?}, {value:?}");
            }
        }
    }
}

#[test]
fn random_bytes_of_another_length_differ_as_a_question() {
    let recorded = entry(1, point(2, 0), Body::Value(Value::Random(vec![0; 4])));

    let report = diverged(offline(&[recorded]).answer(point(2, 0), Question::Random { length_bytes: 8 }));

    assert_eq!(report.part, "question");
}

#[test]
fn another_instruction_pointer_differs_in_the_registers() {
    let recorded = Entry {
        point: ExecutionPoint {
            rip: 0x1000,
            ..point(2, 0)
        },
        ..tsc(2)
    };
    let here = ExecutionPoint {
        rip: 0x2000,
        ..point(2, 0)
    };

    let report = diverged(offline(std::slice::from_ref(&recorded)).answer(here, Question::Tsc));

    assert_eq!(
        (
            report.part.as_str(),
            report.expected.as_str(),
            report.found.as_str()
        ),
        ("registers", "rip 0x1000", "rip 0x2000")
    );
    assert!(
        offline(&[recorded]).answer(point(2, 0), Question::Tsc).is_ok(),
        "one that was not taken is not compared"
    );
}

#[test]
fn another_output_differs_as_an_output() {
    let said = super::super::recorder::output_digest(CONSOLE, b"one");
    let recorded = entry(1, point(2, 0), Body::Output(said));
    let say = |target, bytes: &[u8]| {
        offline(std::slice::from_ref(&recorded)).output(point(2, 0), target, bytes.to_vec())
    };

    assert!(say(CONSOLE, b"one").is_ok());
    assert_eq!(diverged(say(CONSOLE, b"two")).part, "output");
    assert_eq!(diverged(say(CONSOLE, b"ones")).part, "output");
    assert_eq!(diverged(say(NETWORK, b"one")).part, "output");
}

#[test]
fn another_device_is_called_by_its_name() {
    let recorded = entry(
        1,
        point(2, 0),
        Body::Digests(vec![part("registers", 1), part("interval timer", 2)]),
    );
    let digest = |parts| offline(std::slice::from_ref(&recorded)).digests(point(2, 0), parts);

    assert!(digest(vec![part("registers", 1), part("interval timer", 2)]).is_ok());
    assert_eq!(
        diverged(digest(vec![part("registers", 1), part("interval timer", 3)])).part,
        "interval timer"
    );
    assert_eq!(
        diverged(digest(vec![part("registers", 3), part("interval timer", 3)])).part,
        "registers"
    );
    assert_eq!(diverged(digest(vec![part("registers", 1)])).part, "parts");
    // The log has none of the processor, as those of the first release.
    let with_processor = |timer| {
        vec![
            part("registers", 1),
            part("interval timer", timer),
            part("processor", 4),
        ]
    };
    assert!(digest(with_processor(2)).is_ok());
    assert_eq!(diverged(digest(with_processor(3))).part, "interval timer");
}

#[test]
fn another_end_differs_as_an_end_and_then_in_its_parts() {
    let recorded = entry(
        1,
        point(2, 0),
        Body::End(end(EndReason::PoweredOff(0), vec![part("memory", 1)])),
    );
    let come = |reason, parts| offline(std::slice::from_ref(&recorded)).end(point(2, 0), end(reason, parts));

    assert!(come(EndReason::PoweredOff(0), vec![part("memory", 1)]).is_ok());
    assert_eq!(
        diverged(come(EndReason::PoweredOff(1), vec![part("memory", 1)])).part,
        "end"
    );
    assert_eq!(
        diverged(come(
            EndReason::GuestFault("it fell".into()),
            vec![part("memory", 1)]
        ))
        .part,
        "end"
    );
    assert_eq!(
        diverged(come(EndReason::PoweredOff(0), vec![part("memory", 2)])).part,
        "memory"
    );
}

#[test]
fn a_guest_that_ends_early_differs_in_its_execution_point() {
    let report = diverged(offline(&[tsc(2)]).end(point(2, 0), end(EndReason::PoweredOff(0), Vec::new())));

    assert_eq!(
        (report.part.as_str(), report.found.as_str()),
        ("execution point", "powered_off 0")
    );
}

#[test]
fn a_guest_that_runs_past_an_entry_differs_in_its_execution_point() {
    let report = diverged(offline(&[tsc(2)]).arrival(point(3, 0), ready(false)));

    assert_eq!(
        (report.part.as_str(), report.found.as_str()),
        ("execution point", "the guest has run on")
    );
}

#[test]
fn a_guest_that_idles_where_the_log_goes_on_differs_in_its_execution_point() {
    let report = diverged(offline(&[tsc(2)]).arrival(point(1, 0), ready(true)));

    assert_eq!(
        (report.part.as_str(), report.found.as_str()),
        ("execution point", "the guest is idle")
    );
}

#[test]
fn a_report_shows_the_last_entries_before_it_oldest_first() {
    let values = (1..=20).map(|exits| Entry {
        sequence: Sequence(exits),
        ..tsc(exits)
    });
    let mut door = offline(&values.collect::<Vec<_>>());
    (1..20).for_each(|exits| drop(door.answer(point(exits, 0), Question::Tsc).unwrap()));

    let report = diverged(door.answer(point(20, 0), Question::Wall));

    let before: Vec<u64> = report.before.iter().map(|entry| entry.sequence.0).collect();
    assert_eq!(before, [12, 13, 14, 15, 16, 17, 18, 19]);
    assert!(report.to_string().contains("at entry 20: question"), "{report}");
}

#[test]
fn an_event_enters_at_its_exit_and_at_no_other() {
    let frame = EventKind::Frame(vec![1, 2]);
    let mut door = offline(&[entry(1, point(3, 0), event(frame.clone()))]);

    assert_eq!(door.arrival(point(2, 0), ready(false)).unwrap(), None);
    assert_eq!(
        door.arrival(point(3, 0), ready(false))
            .unwrap()
            .map(|event| event.kind),
        Some(frame)
    );
}

#[test]
fn an_event_between_exits_is_run_to_exactly() {
    let items = [
        fed(entry(1, point(3, 500), event(EventKind::Timer))),
        Ok(Fed::Passed(4)),
    ];
    let mut door = with_items(items, true);

    assert_eq!(door.horizon(point(2, 0)).unwrap(), Horizon::Exit);
    assert_eq!(door.arrival(point(3, 0), ready(false)).unwrap(), None);
    assert_eq!(door.horizon(point(3, 0)).unwrap(), Horizon::Instructions(500));
    assert!(door.arrival(point(3, 500), ready(false)).unwrap().is_some());
    assert_eq!(door.horizon(point(3, 500)).unwrap(), Horizon::Exit);
}

#[test]
fn exits_that_the_recording_has_passed_need_no_entry() {
    let mut door = with_items([Ok(Fed::Passed(9))], false);

    let all: Vec<_> = (1..=9)
        .map(|exits| door.arrival(point(exits, 0), ready(false)).unwrap())
        .collect();
    assert_eq!(all, vec![None; 9]);
    assert!(matches!(
        door.arrival(point(10, 0), ready(false)),
        Err(DoorError::Exhausted)
    ));
}

#[test]
fn an_exit_that_the_recording_has_passed_without_what_the_guest_does_there_differs() {
    let passed = || with_items([Ok(Fed::Passed(4)), Ok(Fed::Passed(9))], false);

    let asked = diverged(passed().answer(point(5, 0), Question::Tsc));
    let idle = diverged(passed().arrival(point(5, 0), ready(true)));
    let said = diverged(passed().output(point(5, 0), NETWORK, vec![1]));

    assert_eq!([&asked.part, &idle.part, &said.part], ["execution point"; 3]);
    assert_eq!(
        (asked.expected.as_str(), asked.found.as_str()),
        ("no entry up to exit 9", "the guest asks for tsc")
    );
    assert_eq!(idle.found, "the guest is idle");
}

#[test]
fn no_claim_of_a_peer_makes_a_backup_go_live() {
    let go_live: GoLive<FakeOutside, FakeJournal> = Box::new(|_| panic!("went live on a peer's word"));
    let feed = FakeFeed {
        items: [Ok(Fed::Passed(u64::MAX))].into(),
        ..FakeFeed::default()
    };
    let mut door = FakeStandby::new(Replayer::new(feed, false), Some(go_live));

    assert_eq!(
        diverged(door.answer(point(1, 0), Question::Tsc)).part,
        "execution point"
    );
}

#[test]
fn a_log_that_is_over_before_the_run_is_an_error_where_nothing_may_go_live() {
    assert!(matches!(
        offline(&[]).answer(point(1, 0), Question::Tsc),
        Err(DoorError::Exhausted)
    ));
    assert!(matches!(
        offline(&[]).arrival(point(1, 0), ready(false)),
        Err(DoorError::Exhausted)
    ));
    assert!(matches!(
        offline(&[]).output(point(1, 0), CONSOLE, vec![1]),
        Err(DoorError::Exhausted)
    ));
    let ended = offline(&[]).end(point(1, 0), end(EndReason::PoweredOff(0), Vec::new()));
    assert!(matches!(ended, Err(DoorError::Exhausted)));
}

#[test]
fn a_recording_that_was_stopped_stops_its_replay_there() {
    let recorded = end(EndReason::Stopped, vec![part("memory", 1)]);
    let mut door = offline(&[entry(1, point(2, 0), Body::End(recorded.clone()))]);

    assert!(matches!(
        door.arrival(point(2, 0), ready(false)),
        Err(DoorError::Stopped)
    ));
    assert!(door.end(point(2, 0), recorded).is_ok());
}

#[test]
fn one_that_was_stopped_between_points_compares_no_parts() {
    let mut door = offline(&[entry(
        1,
        point(2, 0),
        Body::End(end(EndReason::Stopped, Vec::new())),
    )]);

    assert!(matches!(
        door.arrival(point(2, 0), ready(false)),
        Err(DoorError::Stopped)
    ));
    assert!(
        door.end(point(2, 0), end(EndReason::Stopped, vec![part("memory", 1)]))
            .is_ok()
    );
}

#[test]
fn a_replay_that_was_told_to_stop_has_not_diverged() {
    let stopped = || end(EndReason::Stopped, Vec::new());
    let mut waiting = with_items([Err(DoorError::Stopped), fed(tsc(9))], false);
    assert!(matches!(
        waiting.arrival(point(2, 0), ready(true)),
        Err(DoorError::Stopped)
    ));
    assert!(matches!(
        waiting.end(point(2, 0), stopped()),
        Err(DoorError::Stopped)
    ));

    let mut computing = with_items([Err(DoorError::Stopped), fed(tsc(9))], false);
    assert!(matches!(computing.kicked(super::KICK), Err(DoorError::Stopped)));
    assert!(matches!(
        computing.end(point(2, 0), stopped()),
        Err(DoorError::Stopped)
    ));
}

#[test]
fn the_feed_hears_of_each_entry_and_output_once() {
    let said = super::super::recorder::output_digest(CONSOLE, b"one");
    let feed = FakeFeed::of(&[tsc(1), entry(2, point(2, 0), Body::Output(said))]);
    let told = feed.told.clone();
    let mut door = FakeStandby::new(Replayer::new(feed, false), None);

    door.answer(point(1, 0), Question::Tsc).unwrap();
    door.output(point(2, 0), CONSOLE, b"one".to_vec()).unwrap();

    let told = told.borrow();
    assert_eq!(told.replayed, [(Sequence(1), 1), (Sequence(2), 2)]);
    assert_eq!(told.outputs, [(Sequence(2), CONSOLE, b"one".to_vec())]);
}

#[test]
fn the_time_floor_is_the_latest_of_each_clock_in_the_log() {
    let values = [
        Body::Value(Value::Tsc(900)),
        Body::Value(Value::Wall(5_000)),
        Body::Value(Value::Monotonic(40)),
        event(EventKind::Timer),
        Body::Value(Value::Wall(4_000)),
    ];
    let numbered = (1..)
        .zip(values)
        .map(|(exits, body)| entry(exits, point(exits, 0), body));
    let entries: Vec<Entry> = numbered.collect();
    let found = Rc::new(RefCell::new(None));
    let seen = found.clone();
    let go_live: GoLive<FakeOutside, FakeJournal> = Box::new(move |taken_over| {
        *seen.borrow_mut() = Some(taken_over);
        Err(DoorError::Fenced)
    });
    let mut door = FakeStandby::new(Replayer::new(FakeFeed::of(&entries), false), Some(go_live));

    door.answer(point(1, 0), Question::Tsc).unwrap();
    door.answer(point(2, 0), Question::Wall).unwrap();
    door.answer(point(3, 0), Question::Monotonic).unwrap();
    door.arrival(point(4, 0), ready(false)).unwrap();
    door.answer(point(5, 0), Question::Wall).unwrap();
    assert!(matches!(
        door.answer(point(6, 0), Question::Tsc),
        Err(DoorError::Fenced)
    ));

    let taken_over = found.borrow().unwrap();
    assert_eq!(
        taken_over.floor,
        TimeFloor {
            monotonic_ns: 40,
            tsc: 900,
            wall_ns: 5_000
        }
    );
    assert_eq!(
        (taken_over.sequence, taken_over.point),
        (Sequence(6), point(6, 0))
    );
}
