//! Disks of a machine whose backup does not run: what its log has of them, and what the backup has
//! its own disks do, and when.

use super::super::epochs::machine;
use super::*;
use crate::machine::disk::{DiskShape, REQUEST_BYTES_MAX};
use crate::machine::door::Followed;
use crate::machine::memory::MEMORY_BYTES_MIN;
use crate::replica::epochs::{CHANGES_BYTES_MAX, EPOCH_CHANGE_BYTES_MAX};
use crate::replica::following::Following;
use lockstep_logging_channel::{Change, DiskChange, Kind};

struct Live {
    recorder: Recorder<Disk, FakeJournal>,
    written: Rc<RefCell<Written>>,
}

impl Live {
    fn new(disk: Disk) -> Self {
        let journal = FakeJournal::default();
        let written = journal.written.clone();
        let start = Start {
            generation: Generation(1),
            sequence: Sequence(1),
        };
        let mut recorder = Recorder::new(disk, journal, start).in_epochs();
        recorder.horizon(point(1, 0)).unwrap();
        Self { recorder, written }
    }

    fn ask(&mut self, request: Request) {
        self.recorder.disk_request(point(1, 0), DISK, request).unwrap();
    }

    fn done(&mut self, request: Request) {
        self.recorder.disk_done(point(1, 0), DISK, request).unwrap();
    }

    fn make_point(&mut self, exits: u64) {
        let machine = machine(exits);
        self.recorder.common_point(point(exits, 0), machine).unwrap();
    }

    fn kinds(&self) -> Vec<Kind> {
        let written = self.written.borrow();
        written.entries.iter().map(|entry| entry.body.kind()).collect()
    }
}

fn large(number: u64) -> Request {
    let operation = Operation::Write {
        offset_bytes: 0,
        bytes: vec![7; REQUEST_BYTES_MAX as usize],
    };
    Request { number, operation }
}

#[test]
fn what_a_disk_of_one_s_own_has_done_is_in_the_log_when_it_has_entered() {
    let mut live = Live::new(Disk::default());
    live.ask(write(0));
    live.ask(read(1));
    assert_eq!(live.kinds(), []);
    live.done(read(1));
    live.done(write(0));
    live.done(flush(2));
    let change = |number, change| {
        Body::DiskChange(DiskChange {
            device: DISK,
            number,
            change,
        })
    };
    let bytes = vec![7; 512];
    let bodies: Vec<_> = live
        .written
        .borrow()
        .entries
        .iter()
        .map(|entry| entry.body.clone())
        .collect();
    assert_eq!(
        bodies,
        [
            change(
                0,
                Change::Written {
                    offset_bytes: 0,
                    bytes
                }
            ),
            change(2, Change::Flushed)
        ]
    );
    live.written.borrow_mut().acts_alone = true;
    live.done(write(3));
    assert_eq!(live.kinds().len(), 2, "nobody needs it");
}

#[test]
fn changes_of_a_shared_disk_wait_for_the_common_point() {
    let disk = Disk::shared();
    let asked = disk.done.clone();
    let mut live = Live::new(disk);
    live.ask(write(0));
    live.ask(read(1));
    assert_eq!(asked.take(), ["asked 0", "asked 1"]);
    assert_eq!(live.kinds(), [Kind::DiskWrite]);
    assert_eq!(live.written.borrow().outputs, []);
    live.make_point(2);
    let common = live.kinds().len() as u64;
    let number = 0_u64.to_le_bytes().to_vec();
    assert_eq!(live.written.borrow().held, [(Sequence(common), number.clone())]);
    live.done(write(0));
    assert_eq!(live.kinds().len() as u64, common, "the image is the backup's too");

    live.ask(write(2));
    live.written.borrow_mut().acts_alone = true;
    live.ask(write(3));
    let numbers: Vec<_> = live
        .written
        .borrow()
        .outputs
        .iter()
        .map(|(_, bytes)| bytes.clone())
        .collect();
    assert_eq!(numbers, [2_u64, 3].map(|number| number.to_le_bytes().to_vec()));
}

#[test]
fn an_epoch_that_changes_much_ends_early_and_nothing_enters_before_that() {
    let mut disk = Disk::default();
    disk.arrives.push_back(Completion {
        number: 1_000,
        read: ReadData::Nothing,
    });
    let mut live = Live::new(disk);
    let count = EPOCH_CHANGE_BYTES_MAX / u64::from(REQUEST_BYTES_MAX);
    (1..count).for_each(|number| live.done(large(number)));
    assert!(!live.recorder.is_common_point_due(point(1, 0)).unwrap());
    live.done(large(count));
    assert!(live.recorder.is_common_point_due(point(1, 0)).unwrap());
    assert_eq!(live.recorder.arrival(point(1, 0), ready()).unwrap(), None);
    live.make_point(2);
    assert!(!live.recorder.is_common_point_due(point(2, 0)).unwrap());
    assert!(live.recorder.arrival(point(2, 0), ready()).unwrap().is_some());
}

fn following(disk: Disk, entries: &[Entry]) -> (Following<Disk>, Done) {
    let done = disk.done.clone();
    let shape = DiskShape {
        sectors: 1024,
        block_bytes: 512,
        read_only: false,
        serial: [0; 20],
    };
    let disks = (!disk.is_shared).then_some((DISK, shape));
    let following = Following::new(
        disk.with(entries),
        MEMORY_BYTES_MIN,
        Sequence(0),
        TimeFloor::default(),
    );
    (following.with_disks(disks.into_iter().collect()), done)
}

#[test]
fn the_backups_disk_does_it_in_order_at_the_common_point_and_what_is_behind_the_last_never() {
    let mut live = Live::new(Disk::default());
    live.done(write(1));
    live.done(flush(0));
    live.make_point(2);
    live.done(write(2));
    let entries = live.written.borrow().entries.clone();
    let (mut follows, done) = following(Disk::default(), &entries);
    assert!(matches!(follows.next_common_point(), Ok(Followed::Met(_))));
    assert_eq!(done.take(), ["write 0..512", "flush"]);
    assert!(follows.next_common_point().is_err());
    assert_eq!(done.take(), [""; 0]);

    // Half an epoch changes nothing.
    let cut = entries.len() - 2;
    let (mut follows, done) = following(Disk::default(), &entries[..cut]);
    assert!(follows.next_common_point().is_err());
    assert_eq!(done.take(), [""; 0]);
}

#[test]
fn an_end_counts_for_disks_as_a_common_point_does() {
    let mut live = Live::new(Disk::default());
    live.done(write(0));
    let end = End {
        reason: EndReason::PoweredOff(0),
        parts: Vec::new(),
    };
    live.recorder.end(point(2, 0), end).unwrap();
    let entries = live.written.borrow().entries.clone();
    let (mut follows, done) = following(Disk::default(), &entries);
    assert!(matches!(follows.next_common_point(), Ok(Followed::Ended(..))));
    assert_eq!(done.take(), ["write 0..512"]);
}

#[test]
fn a_shared_disk_is_told_of_numbers_only() {
    let mut live = Live::new(Disk::shared());
    live.ask(write(4));
    live.make_point(2);
    let entries = live.written.borrow().entries.clone();
    let (mut follows, done) = following(Disk::shared(), &entries);
    assert!(matches!(follows.next_common_point(), Ok(Followed::Met(_))));
    assert_eq!(done.take(), ["output 4"]);
    let (mut own, _) = following(Disk::default(), &entries);
    let why = format!("{:?}", own.next_common_point());
    assert!(why.contains("Misplaced"), "{why}");
}

#[test]
fn changes_that_no_disk_can_have_made_and_too_many_of_them_are_refused() {
    let changed = |sequence, device, change| {
        let change = DiskChange {
            device,
            number: 0,
            change,
        };
        entry(sequence, point(1, 0), Body::DiskChange(change))
    };
    let written = |offset_bytes, bytes| Change::Written {
        offset_bytes,
        bytes: vec![0; bytes],
    };
    for (device, change) in [
        (DISK, written(1024 * 512, 512)),
        (DISK, written(0, 100)),
        (DeviceId(7), written(0, 512)),
    ] {
        let (mut follows, _) = following(Disk::default(), &[changed(1, device, change)]);
        let why = format!("{:?}", follows.next_common_point());
        assert!(why.contains("Change"), "{why}");
    }
    let count = CHANGES_BYTES_MAX / u64::from(REQUEST_BYTES_MAX) + 1;
    let large = written(0, REQUEST_BYTES_MAX as usize);
    let entries: Vec<_> = (1..=count)
        .map(|sequence| changed(sequence, DISK, large.clone()))
        .collect();
    let (mut follows, done) = following(Disk::default(), &entries);
    let why = format!("{:?}", follows.next_common_point());
    assert!(why.contains("changes of disks before a common point"), "{why}");
    assert_eq!(done.take(), [""; 0]);
}
