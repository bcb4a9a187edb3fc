//! A file of a snapshot: what is read is what was written, or there is one clear error.

use super::*;
use crate::machine::Machine;
use crate::machine::cpu::fake::FakeCpu;
use crate::machine::devices::{Board, Devices};
use crate::machine::image::Sites;
use crate::machine::memory::{self, MEMORY_BYTES_MIN, Memory};
use crate::machine::page_set::PageSet;
use crate::machine::run::Policy;
use crate::machine::saved::SavedMachine;
use crate::machine::saved::format::LogPosition;
use crate::replica::transfer::{Capture, Received, Round, Sender};
use lockstep_logging_channel::{EnvironmentField, ExecutionPoint};
use proptest::prelude::*;
use std::io::Cursor;
use vm_memory::{Bytes, GuestAddress};

const POSITION: LogPosition = LogPosition {
    sequence: 77,
    monotonic_ns: 1_000,
    tsc: 999,
    wall_ns: u64::MAX,
};
const PLACE: Place = Place {
    entry: 78,
    log_offset: 4_711,
    exits: 0,
    instructions: 0,
    guest_ns: 1_000,
};

fn environment(pair: u8, image: &str) -> Environment {
    Environment {
        pair: [pair; 16],
        compared: vec![EnvironmentField {
            name: "guest image digest".to_owned(),
            value: image.to_owned(),
        }],
        informative: Vec::new(),
    }
}

fn recording() -> Recording {
    Recording::of(&environment(7, "an image"), MEMORY_BYTES_MIN)
}

fn machine<'a>(cpu: &'a mut FakeCpu, memory: &Memory) -> Machine<&'a mut FakeCpu> {
    let board = Board::small([2, 0, 0, 0, 0, 1]).unwrap();
    let policy = Policy {
        digest_interval_exits: 0,
        window_exits: false,
    };
    let devices = Devices::new(&board).unwrap();
    Machine::new(cpu, memory.clone(), devices, Sites::default(), policy)
}

fn saved(memory: &Memory) -> SavedMachine {
    machine(&mut FakeCpu::default(), memory).save().unwrap()
}

fn boundary(memory: &Memory, exits: u64) -> Boundary {
    let point = ExecutionPoint {
        exits,
        ..ExecutionPoint::default()
    };
    Boundary::of(&mut machine(&mut FakeCpu::default(), memory), point).unwrap()
}

/// Memory with a few pages in use.
fn used_memory() -> Memory {
    let memory = memory::allocate(MEMORY_BYTES_MIN).unwrap();
    for page in [0_u64, 3, 500] {
        let bytes = [page as u8 + 1; 100];
        memory.write_slice(&bytes, GuestAddress(page << 12 | 7)).unwrap();
    }
    memory
}

fn snapshot_of(memory: &Memory, place: Place) -> Vec<u8> {
    let (mut sender, first) = Sender::new(recording().name, MEMORY_BYTES_MIN);
    let mut writer = Writer::new(Cursor::new(Vec::new())).unwrap();
    writer.put(&first).unwrap();
    let mut round = Round::first(memory.clone(), PageSet::first(MEMORY_BYTES_MIN >> 12));
    while let Some(pages) = round.next_pages() {
        sender
            .pages(pages)
            .into_iter()
            .for_each(|record| writer.put(&record).unwrap());
    }
    let capture = Capture {
        machine: saved(memory),
        position: POSITION,
    };
    for record in sender.last(capture) {
        writer.put(&record).unwrap();
    }
    let bytes = writer.bytes();
    let file = writer.finish(&recording(), place).unwrap().into_inner();
    assert_eq!(file.len() as u64, bytes);
    file
}

fn snapshot() -> Vec<u8> {
    snapshot_of(&used_memory(), PLACE)
}

fn refused(bytes: &[u8]) -> SnapshotError {
    read(&mut &*bytes, &recording()).unwrap_err()
}

#[test]
fn what_was_written_is_read() {
    let memory = used_memory();
    let file = snapshot_of(&memory, PLACE);
    let (
        header,
        Received {
            machine: found,
            memory: same,
            position,
        },
    ) = read(&mut file.as_slice(), &recording()).unwrap();
    assert_eq!(header.place, PLACE);
    assert_eq!(position, POSITION);
    assert_eq!(found, saved(&memory));
    assert_eq!(memory::digest(&same).unwrap(), memory::digest(&memory).unwrap());
    assert_eq!(read_header(&mut file.as_slice()).unwrap(), header);
}

#[test]
fn one_that_is_not_finished_is_none() {
    let mut file = snapshot();
    file[..HEADER_BYTES].fill(0);
    assert!(matches!(refused(&file), SnapshotError::Foreign));
}

#[test]
fn a_later_version_is_named() {
    let mut file = snapshot();
    file[4..6].copy_from_slice(&9_u16.to_le_bytes());
    let why = refused(&file);
    assert!(
        matches!(
            why,
            SnapshotError::Version {
                found: 9,
                known: VERSION
            }
        ),
        "{why}"
    );
    assert!(why.is_mismatch());
}

#[test]
fn one_of_another_recording_machine_or_size_is_refused_by_name() {
    let file = snapshot();
    let read_as = |environment: &Environment, memory_bytes| {
        let recording = Recording::of(environment, memory_bytes);
        read(&mut file.as_slice(), &recording).unwrap_err()
    };
    let why = read_as(&environment(8, "an image"), MEMORY_BYTES_MIN);
    assert!(matches!(why, SnapshotError::OtherRecording { .. }), "{why}");
    let why = read_as(&environment(7, "another image"), MEMORY_BYTES_MIN);
    assert!(matches!(why, SnapshotError::OtherMachine), "{why}");
    let why = read_as(&environment(7, "an image"), 2 * MEMORY_BYTES_MIN);
    assert!(matches!(why, SnapshotError::MemorySize { .. }), "{why}");
    assert!(why.is_mismatch());
}

#[test]
fn a_header_that_says_something_else_than_its_machine_is_refused() {
    let places = [
        Place { entry: 79, ..PLACE },
        Place { exits: 1, ..PLACE },
        Place {
            instructions: 1,
            ..PLACE
        },
        Place { guest_ns: 1, ..PLACE },
    ];
    for place in places {
        let why = refused(&snapshot_of(&used_memory(), place));
        assert!(matches!(why, SnapshotError::Contradiction { .. }), "{why}");
    }
}

#[test]
fn bytes_behind_the_end_are_refused() {
    let mut file = snapshot();
    file.push(0);
    assert!(matches!(refused(&file), SnapshotError::BehindEnd));
}

#[test]
fn the_machine_is_compared_part_by_part() {
    let memory = used_memory();
    let one = boundary(&memory, 3);
    assert_eq!(
        difference(78, Some(&one), Some(&boundary(&used_memory(), 3))),
        None
    );

    let found = difference(78, Some(&one), Some(&boundary(&memory, 4))).unwrap();
    assert_eq!((found.part.as_str(), found.sequence.0), ("execution point", 78));

    memory
        .write_slice(&[9], GuestAddress(MEMORY_BYTES_MIN - 1))
        .unwrap();
    let found = difference(78, Some(&one), Some(&boundary(&memory, 3))).unwrap();
    assert_eq!(found.part, "memory");

    assert_eq!(difference(78, Some(&one), None).unwrap().part, "end");
    assert_eq!(difference(78, None, None), None);
}

proptest! {
    #[test]
    fn any_cut_is_refused(share in 0.0..1.0_f64) {
        let file = snapshot();
        let length = (file.len() as f64 * share) as usize;
        let why = refused(&file[..length]);
        prop_assert!(matches!(why, SnapshotError::Cut { .. }), "{length}: {why}");
    }

    #[test]
    fn any_changed_byte_is_refused(share in 0.0..1.0_f64, change in 1..=255_u8) {
        let mut file = snapshot();
        let place = (file.len() as f64 * share) as usize;
        file[place] ^= change;
        let why = refused(&file);
        prop_assert!(!why.to_string().is_empty());
    }

    #[test]
    fn anything_behind_a_header_is_refused(body in proptest::collection::vec(any::<u8>(), 0..4096)) {
        let mut file = snapshot();
        file.truncate(HEADER_BYTES);
        file.extend(body);
        refused(&file);
    }
}
