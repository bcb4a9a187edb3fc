//! Disks behind a recorder and a replayer: what goes to the log, what leaves when, what is compared.

mod epochs;

use super::*;
use crate::machine::disk::{Operation, Request};
use crate::machine::door::Door;
use crate::replica::Unprotected;
use crate::replica::recorder::{LiveDoor, disk_number, disk_write};
use crate::replica::replayer::OwnRead;
use lockstep_logging_channel::{Completion, Digest, ReadData};

const DISK: DeviceId = DeviceId(6);

/// Doings of the host's disk, in order: requests as they are asked for, and outputs.
type Done = Rc<RefCell<Vec<String>>>;

/// A disk that is nobody's or everybody's.
#[derive(Default)]
struct Disk {
    is_shared: bool,
    done: Done,
    /// Completions that arrive, with the bytes of reads.
    arrives: VecDeque<Completion>,
    /// What one's own disk reads.
    reads: Option<Vec<u8>>,
    items: VecDeque<Result<Fed, DoorError>>,
    /// A wait for one's own disk is ended by this order.
    stops: bool,
}

impl Disk {
    fn shared() -> Self {
        Self {
            is_shared: true,
            ..Self::default()
        }
    }

    fn with(self, entries: &[Entry]) -> Self {
        let items = entries
            .iter()
            .map(|entry| Ok(Fed::Entry(Box::new(entry.clone()))));
        Self {
            items: items.collect(),
            ..self
        }
    }

    fn asked(&mut self, request: &Request) -> Result<(), DoorError> {
        self.done.borrow_mut().push(format!("asked {}", request.number));
        Ok(())
    }
}

impl Outside for Disk {
    fn answer(&mut self, _: Question) -> Result<Value, DoorError> {
        Ok(Value::Monotonic(1))
    }

    fn arrival(&mut self, _: Readiness<'_>) -> Result<Option<Event>, DoorError> {
        let completion = self.arrives.pop_front();
        Ok(completion.map(|completion| Event {
            device: DISK,
            monotonic_ns: 5,
            kind: EventKind::Completion(completion),
        }))
    }

    fn horizon(&mut self, _: ExecutionPoint) -> Horizon {
        Horizon::Exit
    }

    fn kicked(&mut self, _: Kick<'_>) -> Result<Kicked, DoorError> {
        Ok(Kicked::RunsOn)
    }

    fn disk_request(&mut self, device: DeviceId, request: Request) -> Result<(), DoorError> {
        assert_eq!(device, DISK);
        self.asked(&request)
    }

    fn shares_disk(&self, _: DeviceId) -> bool {
        self.is_shared
    }
}

impl Feed for Disk {
    fn next(&mut self, _: u64) -> Result<Fed, DoorError> {
        self.items.pop_front().unwrap_or(Ok(Fed::Exhausted))
    }

    fn replayed(&mut self, _: Sequence, _: u64) -> Result<(), DoorError> {
        Ok(())
    }

    fn output(&mut self, _: Sequence, target: OutputTarget, bytes: Vec<u8>) -> Result<(), DoorError> {
        assert_eq!(target, OutputTarget::disk(DISK));
        let number = disk_number(&bytes).unwrap();
        self.done.borrow_mut().push(format!("output {number}"));
        Ok(())
    }

    fn finish(&mut self) -> Result<(), DoorError> {
        Ok(())
    }

    fn kicked(&mut self) -> Result<(), DoorError> {
        Ok(())
    }

    fn disk_request(&mut self, _: DeviceId, request: Request) -> Result<(), DoorError> {
        self.asked(&request)
    }

    fn disk_completed(&mut self, _: DeviceId, completion: &Completion) -> Result<Option<OwnRead>, DoorError> {
        if self.stops {
            return Err(DoorError::Stopped);
        }
        let number = completion.number;
        self.done.borrow_mut().push(format!("completed {number}"));
        let read = self.reads.take();
        Ok(read.map(|bytes| OwnRead {
            offset_bytes: 4096,
            bytes,
        }))
    }

    fn change_disks(&mut self, changes: Vec<(DeviceId, Operation)>) -> Result<(), DoorError> {
        let said = changes.into_iter().map(|(device, operation)| {
            assert_eq!(device, DISK);
            let range = operation.range();
            range.map_or("flush".to_owned(), |range| format!("write {range:?}"))
        });
        self.done.borrow_mut().extend(said);
        Ok(())
    }

    fn shares_disk(&self, _: DeviceId) -> bool {
        self.is_shared
    }
}

fn write(number: u64) -> Request {
    let operation = Operation::Write {
        offset_bytes: 0,
        bytes: vec![7; 512],
    };
    Request { number, operation }
}

fn read(number: u64) -> Request {
    let operation = Operation::Read {
        offset_bytes: 4096,
        length_bytes: 3,
    };
    Request { number, operation }
}

fn flush(number: u64) -> Request {
    let operation = Operation::Flush;
    Request { number, operation }
}

fn completion(number: u64, read: ReadData) -> EventKind {
    EventKind::Completion(Completion { number, read })
}

fn completed(read: ReadData) -> Entry {
    let body = Body::Event(Event {
        device: DISK,
        monotonic_ns: 5,
        kind: completion(1, read),
    });
    entry(1, point(1, 0), body)
}

fn ready() -> Readiness<'static> {
    Readiness {
        closed: false,
        idle: false,
        takers: &[Taker {
            device: DISK,
            takes: Takes::Completions { outstanding: 2 },
        }],
    }
}

/// A recorder with this disk, after these requests; what it wrote, and the doings of the disk.
fn recorded(disk: Disk, requests: &[Request]) -> (Written, Vec<String>) {
    let (journal, done) = (FakeJournal::default(), disk.done.clone());
    let written = journal.written.clone();
    let start = Start {
        sequence: Sequence(1),
        ..Start::default()
    };
    let mut recorder = Recorder::new(disk, journal, start);
    for request in requests {
        recorder.disk_request(point(1, 0), DISK, request.clone()).unwrap();
    }
    while let Some(event) = recorder.arrival(point(1, 0), ready()).unwrap() {
        let EventKind::Completion(completion) = event.kind else {
            panic!("{event:?}")
        };
        assert!(
            !matches!(completion.read, ReadData::Digest(_)),
            "the guest gets the bytes"
        );
    }
    drop(recorder);
    (written.take(), done.take())
}

#[test]
fn requests_of_a_disk_of_one_s_own_are_in_no_log_and_reads_are_there_by_their_digest() {
    let mut disk = Disk::default();
    disk.arrives.push_back(Completion {
        number: 1,
        read: ReadData::Bytes(vec![1, 2, 3]),
    });
    disk.arrives.push_back(Completion {
        number: 0,
        read: ReadData::Nothing,
    });
    let (written, done) = recorded(disk, &[write(0), read(1), flush(2)]);
    let bodies: Vec<_> = written.entries.into_iter().map(|entry| entry.body).collect();
    let event = |kind| {
        Body::Event(Event {
            device: DISK,
            monotonic_ns: 5,
            kind,
        })
    };
    let digest = ReadData::Digest(Digest::of(&[1, 2, 3]));
    assert_eq!(
        bodies,
        [
            event(completion(1, digest)),
            event(completion(0, ReadData::Nothing))
        ]
    );
    assert_eq!(done, ["asked 0", "asked 1", "asked 2"]);
    assert_eq!(written.outputs, []);
}

#[test]
fn changes_of_a_shared_disk_are_outputs_and_what_it_reads_is_in_the_log() {
    let mut disk = Disk::shared();
    disk.arrives.push_back(Completion {
        number: 1,
        read: ReadData::Bytes(vec![1, 2, 3]),
    });
    let (written, done) = recorded(disk, &[write(0), read(1), flush(2)]);
    assert_eq!(
        done,
        ["asked 0", "asked 1", "asked 2"],
        "before the gate can let them go"
    );
    let outputs = [0_u64, 2].map(|number| (OutputTarget::disk(DISK), number.to_le_bytes().to_vec()));
    assert_eq!(written.outputs, outputs);
    let bodies: Vec<_> = written.entries.into_iter().map(|entry| entry.body).collect();
    let write_of = |request| Body::DiskWrite(disk_write(DISK, &request));
    assert_eq!(bodies[..2], [write_of(write(0)), write_of(flush(2))]);
    let Body::Event(event) = &bodies[2] else {
        panic!("{bodies:?}")
    };
    assert_eq!(event.kind, completion(1, ReadData::Bytes(vec![1, 2, 3])));
}

#[test]
fn where_nobody_records_a_shared_disk_is_changed_at_once() {
    for (disk, expected) in [(Disk::shared(), vec![0, 2]), (Disk::default(), vec![])] {
        let left = Rc::new(RefCell::new(Vec::new()));
        let leaves = left.clone();
        let release = Box::new(move |target, bytes: Vec<u8>| {
            assert_eq!(target, OutputTarget::disk(DISK));
            leaves.borrow_mut().push(disk_number(&bytes).unwrap());
            Ok(())
        });
        let mut door = Unprotected::new(disk, release);
        for request in [write(0), read(1), flush(2)] {
            door.disk_request(point(1, 0), DISK, request).unwrap();
        }
        assert_eq!(left.take(), expected);
    }
}

fn replay(disk: Disk, entries: &[Entry]) -> Standby<Disk, Disk, FakeJournal> {
    Standby::new(Replayer::new(disk.with(entries), false), None)
}

#[test]
fn a_read_of_one_s_own_disk_is_compared_and_enters() {
    let disk = || Disk {
        reads: Some(vec![1, 2, 3]),
        ..Disk::default()
    };
    let done = disk().done;
    let digest = |bytes: &[u8]| completed(ReadData::Digest(Digest::of(bytes)));
    let mine = Disk {
        done: done.clone(),
        ..disk()
    };
    let mut door = replay(mine, &[digest(&[1, 2, 3])]);
    door.disk_request(point(1, 0), DISK, read(1)).unwrap();
    let event = door.arrival(point(1, 0), ready()).unwrap().unwrap();
    assert_eq!(event.kind, completion(1, ReadData::Bytes(vec![1, 2, 3])));
    assert_eq!(done.take(), ["asked 1", "completed 1"]);

    let report = diverged(replay(disk(), &[digest(&[1, 2, 4])]).arrival(point(1, 0), ready()));
    assert_eq!((report.part.as_str(), report.device), ("disk", Some(DISK)));
    assert!(
        report.found.contains(&Digest::of(&[1, 2, 3]).to_string()),
        "{report:?}"
    );
    assert!(report.expected.contains("bytes 4096 to 4099"), "{report:?}");

    let mut nothing = replay(Disk::default(), &[digest(&[1, 2, 3])]);
    assert_eq!(diverged(nothing.arrival(point(1, 0), ready())).part, "disk");
}

#[test]
fn a_wait_for_one_s_own_disk_ends_when_the_replay_is_to_stop() {
    let disk = Disk {
        stops: true,
        ..Disk::default()
    };
    let mut door = replay(disk, &[completed(ReadData::Nothing)]);
    let stopped = door.arrival(point(1, 0), ready());
    assert!(matches!(stopped, Err(DoorError::Stopped)));
    let end = End {
        reason: EndReason::Stopped,
        parts: Vec::new(),
    };
    let ended = door.end(point(1, 0), end);
    assert!(
        matches!(ended, Err(DoorError::Stopped)),
        "there is no end to compare"
    );
}

#[test]
fn what_a_shared_disk_has_read_comes_from_the_log() {
    let bytes = ReadData::Bytes(vec![1, 2, 3]);
    let mut door = replay(Disk::shared(), &[completed(bytes.clone())]);
    let event = door.arrival(point(1, 0), ready()).unwrap().unwrap();
    assert_eq!(event.kind, completion(1, bytes));
}

#[test]
fn changes_of_a_shared_disk_are_compared_and_kept() {
    let disk = Disk::shared();
    let done = disk.done.clone();
    let logged = |request: &Request| entry(1, point(1, 0), Body::DiskWrite(disk_write(DISK, request)));
    let mut door = replay(disk, &[logged(&write(4))]);
    door.disk_request(point(1, 0), DISK, read(3)).unwrap();
    door.disk_request(point(1, 0), DISK, write(4)).unwrap();
    assert_eq!(done.take(), ["asked 3", "asked 4", "output 4"]);

    let mut other = write(4);
    other.operation = Operation::Write {
        offset_bytes: 0,
        bytes: vec![8; 512],
    };
    for (found, elsewhere) in [(other, 1), (write(5), 1), (flush(4), 1), (write(4), 2)] {
        let mut door = replay(Disk::shared(), &[logged(&write(4))]);
        let report = diverged(door.disk_request(point(elsewhere, 0), DISK, found));
        let part = if elsewhere == 1 {
            "output"
        } else {
            "execution point"
        };
        assert_eq!((report.part.as_str(), report.device), (part, Some(DISK)));
    }
}

#[test]
fn a_change_that_the_log_does_not_have_leaves_live() {
    let (journal, disk) = (FakeJournal::default(), Disk::shared());
    let (written, done) = (journal.written.clone(), disk.done.clone());
    let go_live: GoLive<Disk, FakeJournal> = Box::new(move |taken_over| {
        let start = taken_over.start(Generation(2));
        Ok(Recorder::new(disk, journal, start))
    });
    let replayer = Replayer::new(Disk::shared(), false);
    let mut door = Standby::new(replayer, Some(go_live));
    door.disk_request(point(1, 0), DISK, write(4)).unwrap();
    assert_eq!(done.take(), ["asked 4"]);
    let written = written.take();
    assert_eq!((written.entries.len(), written.outputs.len()), (1, 1));
}

#[test]
fn what_was_asked_before_a_capture_is_in_the_log_with_its_bytes() {
    let mut disk = Disk::default();
    for number in [1, 0, 2] {
        disk.arrives.push_back(Completion {
            number,
            read: ReadData::Bytes(vec![1, 2, 3]),
        });
    }
    let journal = FakeJournal::default();
    let written = journal.written.clone();
    let mut recorder = Recorder::new(disk, journal, Start::default());
    let arrives = |recorder: &mut Recorder<_, _>| recorder.arrival(point(1, 0), ready()).unwrap();
    recorder.disk_request(point(1, 0), DISK, read(0)).unwrap();
    recorder.disk_request(point(1, 0), DISK, read(1)).unwrap();
    recorder.saved_at(1).unwrap();
    arrives(&mut recorder);
    recorder.disk_request(point(1, 0), DISK, read(2)).unwrap();
    arrives(&mut recorder);
    arrives(&mut recorder);
    let reads = |entry: &Entry| match &entry.body {
        Body::Event(Event {
            kind: EventKind::Completion(completion),
            ..
        }) => completion.clone(),
        other => panic!("{other:?}"),
    };
    let found: Vec<_> = written.take().entries.iter().map(reads).collect();
    let (bytes, digest) = (
        ReadData::Bytes(vec![1, 2, 3]),
        ReadData::Digest(Digest::of(&[1, 2, 3])),
    );
    let completion = |number, read| Completion { number, read };
    let expected = [
        completion(1, bytes.clone()),
        completion(0, bytes),
        completion(2, digest),
    ];
    assert_eq!(found, expected);
}
