//! A machine whose backup does not run: what its log has, what waits for which entry, and what the
//! backup makes of it.

use super::super::epochs::{EPOCH_OUTPUT_BYTES_MAX, HELD_BYTES_MAX};
use super::super::following::Following;
use super::super::recorder::LiveDoor;
use super::super::standby::TakenOver;
use super::*;
use crate::machine::door::{Door, Followed};
use crate::machine::memory::MEMORY_BYTES_MIN;
use crate::machine::saved::pages::PAGE_BYTES;
use crate::machine::saved::{Page, SavedMachine, SavedPosition};
use lockstep_logging_channel::{HeldOutput, Kind};

pub fn machine(exits: u64) -> SavedMachine {
    SavedMachine {
        memory_bytes: MEMORY_BYTES_MIN,
        position: SavedPosition {
            exits,
            ..SavedPosition::default()
        },
        ..SavedMachine::default()
    }
}

fn page(index: u64) -> Page {
    Page {
        index,
        bytes: [index as u8; PAGE_BYTES],
    }
}

struct Live {
    recorder: Recorder<FakeOutside, FakeJournal>,
    written: Rc<RefCell<Written>>,
    epoch: Rc<Cell<(bool, bool)>>,
}

impl Live {
    fn new() -> Self {
        let (journal, outside) = (FakeJournal::default(), FakeOutside::default());
        let (written, epoch) = (journal.written.clone(), outside.epoch.clone());
        let start = Start {
            generation: Generation(1),
            sequence: Sequence(1),
        };
        Self {
            recorder: Recorder::new(outside, journal, start).in_epochs(),
            written,
            epoch,
        }
    }

    fn say(&mut self, exits: u64, text: &str) {
        let bytes = text.as_bytes().to_vec();
        self.recorder.output(point(exits, 0), CONSOLE, bytes).unwrap();
    }

    fn is_due(&mut self, exits: u64) -> bool {
        self.recorder.is_common_point_due(point(exits, 0)).unwrap()
    }

    fn make_point(&mut self, exits: u64) {
        self.recorder
            .part(point(exits - 1, 0), vec![page(exits)])
            .unwrap();
        self.recorder
            .common_point(point(exits, 0), machine(exits))
            .unwrap();
    }

    fn kinds(&self) -> Vec<Kind> {
        let written = self.written.borrow();
        written.entries.iter().map(|entry| entry.body.kind()).collect()
    }

    fn held(&self) -> Vec<(u64, String)> {
        let written = self.written.borrow();
        let text = |bytes: &Vec<u8>| String::from_utf8(bytes.clone()).unwrap();
        let held = written.held.iter();
        held.map(|(sequence, bytes)| (sequence.0, text(bytes))).collect()
    }

    /// A log of two epochs: `one` and `two` in the first, `three` in the second, which is not over.
    fn two_epochs() -> Self {
        let mut live = Self::new();
        live.recorder.horizon(point(1, 0)).unwrap();
        live.say(2, "one");
        live.say(2, "two");
        live.recorder.answer(point(3, 0), Question::Tsc).unwrap();
        live.make_point(4);
        live.say(5, "three");
        live.recorder.part(point(5, 0), vec![page(9)]).unwrap();
        live
    }
}

#[test]
fn what_the_guest_says_waits_for_the_common_point_and_what_it_hears_is_not_logged() {
    let mut live = Live::new();
    live.recorder.horizon(point(1, 0)).unwrap();
    live.recorder.answer(point(1, 0), Question::Monotonic).unwrap();
    live.recorder
        .arrival(point(1, 0), ready(true))
        .unwrap()
        .expect("an event");
    live.recorder.digests(point(1, 0), Vec::new()).unwrap();
    live.say(2, "text");
    assert_eq!(live.kinds(), [Kind::HeldOutput]);
    assert!(live.held().is_empty() && live.written.borrow().outputs.is_empty());
    live.make_point(3);
    let kinds = live.kinds();
    assert_eq!(kinds.last(), Some(&Kind::CommonPoint));
    assert_eq!(live.held(), [(kinds.len() as u64, "text".to_owned())]);
    assert!(live.written.borrow().outputs.is_empty());
}

#[test]
fn a_common_point_is_due_when_the_time_of_something_that_changed_is_over() {
    let mut live = Live::new();
    live.epoch.set((false, true));
    assert!(!live.is_due(1), "nothing has changed");
    live.recorder.horizon(point(1, 0)).unwrap();
    assert!(live.is_due(2));
    live.make_point(3);
    assert_eq!(live.epoch.get(), (false, false));
    assert!(!live.is_due(3));
}

#[test]
fn an_epoch_that_says_much_ends_early() {
    let mut live = Live::new();
    live.recorder.horizon(point(1, 0)).unwrap();
    let half = "x".repeat(EPOCH_OUTPUT_BYTES_MAX as usize / 2);
    live.say(2, &half);
    assert!(!live.is_due(2));
    live.say(2, &half);
    assert!(live.is_due(2));
}

#[test]
fn who_acts_alone_says_everything_at_once_and_first_what_waited() {
    let mut live = Live::new();
    live.recorder.horizon(point(1, 0)).unwrap();
    assert!(!live.is_due(1));
    live.say(2, "before");
    live.written.borrow_mut().acts_alone = true;
    live.say(3, "after");
    let said: Vec<_> = live.written.borrow().outputs.clone();
    assert_eq!(
        said,
        [(CONSOLE, b"before".to_vec()), (CONSOLE, b"after".to_vec())]
    );
    assert!(live.is_due(3), "once, for what the machine did for its backup");
    assert!(!live.is_due(3));
    live.recorder.answer(point(4, 0), Question::Tsc).unwrap();
    assert_eq!(live.kinds().last(), Some(&Kind::Value));
}

#[test]
fn what_waits_when_nobody_follows_any_more_leaves_without_another_word() {
    let mut live = Live::new();
    live.recorder.horizon(point(1, 0)).unwrap();
    assert!(!live.is_due(1));
    live.say(2, "before");
    live.written.borrow_mut().acts_alone = true;
    assert!(live.is_due(2));
    assert_eq!(live.written.borrow().outputs, [(CONSOLE, b"before".to_vec())]);
}

#[test]
fn a_machine_that_says_where_it_is_keeps_what_its_backup_waits_for() {
    let mut live = Live::new();
    live.recorder.horizon(point(1, 0)).unwrap();
    live.say(2, "held");
    live.recorder.saved_at(2).unwrap();
    assert_eq!(live.kinds(), [Kind::HeldOutput]);
    live.make_point(3);
    assert_eq!(live.held().len(), 1);

    let mut alone = Live::new();
    alone.recorder.horizon(point(1, 0)).unwrap();
    assert!(!alone.is_due(1));
    alone.say(2, "held");
    alone.written.borrow_mut().acts_alone = true;
    alone.recorder.saved_at(2).unwrap();
    assert_eq!(alone.written.borrow().outputs.len(), 1);
}

#[test]
fn a_machine_that_falls_back_logs_states_from_the_next_capture_on() {
    let (journal, outside) = (FakeJournal::default(), FakeOutside::default());
    let (written, epoch) = (journal.written.clone(), outside.epoch.clone());
    let start = Start {
        generation: Generation(1),
        sequence: Sequence(1),
    };
    let mut live = Live {
        recorder: Recorder::new(outside, journal, start),
        written,
        epoch,
    };
    live.written.borrow_mut().acts_alone = true;
    live.recorder.answer(point(1, 0), Question::Tsc).unwrap();
    live.say(1, "alone");
    assert!(!live.recorder.has_epochs());

    live.recorder.begin_epochs();
    live.recorder.saved_at(1).unwrap();
    live.written.borrow_mut().acts_alone = false;

    assert!(live.recorder.has_epochs());
    live.recorder.horizon(point(1, 0)).unwrap();
    live.recorder.answer(point(2, 0), Question::Tsc).unwrap();
    live.say(2, "held");
    assert_eq!(live.kinds(), [Kind::Value, Kind::Output, Kind::HeldOutput]);
    live.make_point(3);
    assert_eq!(live.kinds().last(), Some(&Kind::CommonPoint));
    assert_eq!(live.held().len(), 1);
    // Asked for once more, it keeps the epoch that runs.
    live.say(4, "held too");
    live.recorder.begin_epochs();
    live.make_point(5);
    assert_eq!(live.held().len(), 2);
}

#[test]
fn the_end_lets_everything_go() {
    let mut live = Live::new();
    live.recorder.horizon(point(1, 0)).unwrap();
    live.say(2, "last");
    let end = End {
        reason: EndReason::PoweredOff(0),
        parts: Vec::new(),
    };
    live.recorder.end(point(3, 0), end).unwrap();
    assert_eq!(live.kinds(), [Kind::HeldOutput, Kind::End]);
    assert_eq!(live.held(), [(2, "last".to_owned())]);
    assert!(live.written.borrow().finished);
}

#[test]
fn a_kick_that_would_make_a_common_point_lets_in_what_waits() {
    let mut live = Live::new();
    let outside = FakeOutside {
        common_points: [true].into(),
        ..FakeOutside::default()
    };
    live.recorder = Recorder::new(outside, FakeJournal::default(), Start::default()).in_epochs();
    assert_eq!(live.recorder.kicked(KICK).unwrap(), Kicked::Exit);
}

fn following(entries: &[Entry]) -> (Following<FakeFeed>, Rc<RefCell<Told>>) {
    let feed = FakeFeed::of(entries);
    let told = feed.told.clone();
    let floor = TimeFloor::default();
    (Following::new(feed, MEMORY_BYTES_MIN, Sequence(0), floor), told)
}

#[test]
fn who_follows_has_each_common_point_with_its_outputs_and_drops_what_is_behind_the_last() {
    let live = Live::two_epochs();
    let entries = live.written.borrow().entries.clone();
    let (mut following, told) = following(&entries);
    let Ok(Followed::Met(met)) = following.next_common_point() else {
        panic!("a common point")
    };
    assert_eq!(met.machine.position.exits, 4);
    assert_eq!(
        met.pages.iter().map(|page| page.index).collect::<Vec<_>>(),
        [4],
        "the page behind it is not there yet"
    );
    assert!(matches!(
        following.next_common_point(),
        Err(super::super::replayer::ReplayStop::Exhausted)
    ));
    let outputs: Vec<_> = told.borrow().outputs.clone();
    let (common, _) = live.held()[0];
    assert_eq!(
        outputs,
        ["one", "two"].map(|text| (Sequence(common), CONSOLE, text.as_bytes().to_vec()))
    );
    assert_eq!(following.last(), Sequence(entries.len() as u64));
    assert!(following.floor().tsc > 0);
    let replayed = told.borrow().replayed.len();
    assert_eq!(replayed, entries.len(), "each is acknowledged as used");
}

#[test]
fn it_goes_live_behind_everything_that_has_come() {
    let live = Live::two_epochs();
    let entries = live.written.borrow().entries.clone();
    let (following, _) = following(&entries);
    let taken: Rc<RefCell<Option<TakenOver>>> = Rc::default();
    let taken_over = taken.clone();
    let go_live: GoLive<FakeOutside, FakeJournal> = Box::new(move |point| {
        *taken_over.borrow_mut() = Some(point);
        let start = point.start(Generation(2));
        Ok(Recorder::new(
            FakeOutside::default(),
            FakeJournal::default(),
            start,
        ))
    });
    let mut standby = Standby::following(following, go_live);
    assert!(matches!(standby.follow(point(0, 0)), Ok(Followed::Met(_))));
    assert!(matches!(standby.follow(point(4, 0)), Ok(Followed::Live)));
    assert!(matches!(standby.follow(point(4, 0)), Ok(Followed::Runs)));
    let taken = taken.borrow().unwrap();
    assert_eq!(taken.sequence, Sequence(entries.len() as u64 + 1));
    assert_eq!(taken.point, point(4, 0));
}

#[test]
fn an_end_is_followed_with_its_outputs() {
    let end = End {
        reason: EndReason::PoweredOff(3),
        parts: Vec::new(),
    };
    let held = HeldOutput {
        target: CONSOLE,
        bytes: b"bye".to_vec(),
    };
    let entries = [
        entry(1, point(1, 0), Body::HeldOutput(held)),
        entry(2, point(2, 0), Body::End(end)),
    ];
    let (mut following, told) = following(&entries);
    assert!(matches!(
        following.next_common_point(),
        Ok(Followed::Ended(EndReason::PoweredOff(3), _))
    ));
    assert_eq!(told.borrow().outputs, [(Sequence(2), CONSOLE, b"bye".to_vec())]);
}

#[test]
fn more_output_than_an_epoch_can_have_and_entries_of_a_replay_are_refused() {
    let long = HeldOutput {
        target: NETWORK,
        bytes: vec![0; 60_000],
    };
    let count = HELD_BYTES_MAX / 60_000 + 1;
    let entries: Vec<_> = (1..=count)
        .map(|sequence| entry(sequence, point(1, 0), Body::HeldOutput(long.clone())))
        .collect();
    let (mut too_much, _) = following(&entries);
    let why = format!("{:?}", too_much.next_common_point());
    assert!(why.contains("output before a common point"), "{why}");
    let (mut foreign, _) = following(&[entry(1, point(1, 0), event(EventKind::Timer))]);
    let why = format!("{:?}", foreign.next_common_point());
    assert!(why.contains("checkpoint"), "{why}");
}
