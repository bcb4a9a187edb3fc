//! A machine with a disk: what it asks and where, what enters, and what outlives a save, a reset and
//! a restart.

use super::*;
use crate::machine::boot::{Firmware, small as protocol};
use crate::machine::cpu::EntryState;
use crate::machine::devices::board::pc;
use crate::machine::disk::{DiskShape, Operation};
use crate::machine::memory::Memory;
use lockstep_logging_channel::{Completion, ReadData};
use vm_memory::{Bytes, GuestAddress};

const DESCRIPTORS: u64 = 0x4000;
const AVAILABLE: u64 = 0x5000;
const USED: u64 = 0x6000;
const HEADERS: u64 = 0x7000;
const DATA: u64 = 0x8000;
const STATUS: u64 = 0x9000;
/// Exits that [`starts`] takes.
const STARTED: u64 = 11;

const SHAPE: DiskShape = DiskShape {
    sectors: 64,
    block_bytes: 512,
    read_only: false,
    serial: [b'x'; 20],
};

/// The small board, or that of a PC, with a disk.
fn board(is_pc: bool) -> (Board, u64, DeviceId) {
    let mac = [2, 0, 0, 0, 0, 1];
    let (board, address, device) = if is_pc {
        let board = Board::pc(pc::Configuration { mac });
        (board, 0xd000_2000, DeviceId(7))
    } else {
        (Board::small(mac), 0xd000_1000, DeviceId(6))
    };
    (board.unwrap().with_disks(&[SHAPE]).unwrap(), address, device)
}

fn written(address: u64, value: u64) -> Turn {
    Turn::new(Exit::MmioWrite {
        address,
        size_bytes: 4,
        value,
    })
}

fn starts(disk: u64) -> Vec<Turn> {
    let writes = [
        (0x70, 3),
        (0x24, 1),
        (0x20, 1),
        (0x70, 11),
        (0x30, 0),
        (0x38, 16),
        (0x80, DESCRIPTORS),
        (0x90, AVAILABLE),
        (0xa0, USED),
        (0x44, 1),
        (0x70, 15),
    ];
    writes.map(|(offset, value)| written(disk + offset, value)).into()
}

fn notify(disk: u64) -> Turn {
    written(disk + 0x50, 0)
}

/// Memory with a write of block 2 and a read of block 3 made available: requests 0 and 1.
fn prepared() -> Memory {
    let memory = memory::allocate(memory::MEMORY_BYTES_MIN).unwrap();
    let put = |address: u64, word: u64| memory.write_obj(word, GuestAddress(address)).unwrap();
    for (index, (kind, sector, flags)) in [(1, 2, 0), (0, 3, 2_u64)].into_iter().enumerate() {
        let index = index as u64;
        put(HEADERS + 16 * index, kind);
        put(HEADERS + 16 * index + 8, sector);
        let descriptors = [
            (HEADERS + 16 * index, 16, 1_u64),
            (DATA + 512 * index, 512, 1 | flags),
            (STATUS + index, 1, 2),
        ];
        for (part, (address, bytes, flags)) in (3 * index..).zip(descriptors) {
            let place = DESCRIPTORS + 16 * part;
            put(place, address);
            put(place + 8, bytes | flags << 32 | (part + 1) << 48);
        }
        let slot = GuestAddress(AVAILABLE + 4 + 2 * index);
        memory.write_obj(3 * index as u16, slot).unwrap();
    }
    memory.write_obj(2_u16, GuestAddress(AVAILABLE + 2)).unwrap();
    memory.write_slice(&[7; 512], GuestAddress(DATA)).unwrap();
    memory.write_slice(&[9; 2], GuestAddress(STATUS)).unwrap();
    memory
}

fn done(device: DeviceId, position: Position, number: u64, read: ReadData) -> (Position, Event) {
    let kind = EventKind::Completion(Completion { number, read });
    let event = Event {
        device,
        monotonic_ns: MONOTONIC_NS,
        kind,
    };
    (position, event)
}

fn door_of<const N: usize>(arrivals: [(Position, Event); N]) -> FakeDoor {
    FakeDoor {
        arrivals: arrivals.into(),
        ..FakeDoor::default()
    }
}

fn block(byte: u8) -> ReadData {
    ReadData::Bytes(vec![byte; 512])
}

fn first_bytes(memory: &Memory) -> (u8, [u8; 2], u16) {
    let read = |address| memory.read_obj(GuestAddress(address)).unwrap();
    let used = memory.read_obj(GuestAddress(USED + 2)).unwrap();
    (read(DATA + 512), [read(STATUS), read(STATUS + 1)], used)
}

#[test]
fn a_disk_is_asked_at_the_exit_and_answers_as_an_event() {
    let (board, disk, device) = board(false);
    let memory = prepared();
    let mut cpu = FakeCpu::new([starts(disk), vec![notify(disk), write(0x80, 0), power_off(0)]].concat());
    let mut door = door_of([
        done(device, (STARTED + 1, 0), 1, block(5)),
        done(device, (STARTED + 2, 0), 0, ReadData::Nothing),
    ]);
    let devices = Devices::new(&board).unwrap();
    let mut machine = Machine::new(&mut cpu, memory.clone(), devices, Sites::default(), NEVER);
    machine.run(&mut door).unwrap();
    let asked: Vec<_> = door
        .requests
        .iter()
        .map(|(position, from, request)| (*position, *from, request.number, request.operation.clone()))
        .collect();
    let write = Operation::Write {
        offset_bytes: 1024,
        bytes: vec![7; 512],
    };
    let read = Operation::Read {
        offset_bytes: 1536,
        length_bytes: 512,
    };
    let at = (STARTED + 1, 0);
    assert_eq!(asked, [(at, device, 0, write), (at, device, 1, read)]);
    assert_eq!(first_bytes(&memory), (5, [0, 0], 2));
    let taken: Vec<_> = door
        .ready
        .iter()
        .flat_map(|(_, ready)| ready.takers.clone())
        .filter(|taker| taker.device == device)
        .map(|taker| taker.takes)
        .collect();
    let outstanding = |outstanding| Takes::Completions { outstanding };
    assert!(
        taken.contains(&outstanding(2)) && taken.ends_with(&[outstanding(0)]),
        "{taken:?}"
    );
}

#[test]
fn a_completion_of_what_was_not_asked_stops_the_machine() {
    let (board, disk, device) = board(false);
    let mut cpu = FakeCpu::new([starts(disk), vec![notify(disk), power_off(0)]].concat());
    let mut door = door_of([done(device, (STARTED + 1, 0), 2, ReadData::Nothing)]);
    let devices = Devices::new(&board).unwrap();
    let mut machine = Machine::new(&mut cpu, prepared(), devices, Sites::default(), NEVER);
    let refused = machine.run(&mut door).unwrap_err();
    assert!(
        matches!(refused, MachineError::NotTaken(not_taken) if not_taken.device == device),
        "{refused}"
    );
}

#[test]
fn a_door_without_a_disk_refuses() {
    /// All other uses of it are the fake's.
    struct NoDisk;
    impl Door for NoDisk {
        fn answer(&mut self, _: ExecutionPoint, _: Question) -> Result<Value, DoorError> {
            Ok(Value::Monotonic(0))
        }
        fn arrival(&mut self, _: ExecutionPoint, _: Readiness<'_>) -> Result<Option<Event>, DoorError> {
            Ok(None)
        }
        fn horizon(&mut self, _: ExecutionPoint) -> Result<Horizon, DoorError> {
            Ok(Horizon::Exit)
        }
        fn kicked(&mut self, _: Kick<'_>) -> Result<Kicked, DoorError> {
            Ok(Kicked::RunsOn)
        }
        fn output(&mut self, _: ExecutionPoint, _: OutputTarget, _: Vec<u8>) -> Result<(), DoorError> {
            Ok(())
        }
        fn digests(&mut self, _: ExecutionPoint, _: Vec<PartDigest>) -> Result<(), DoorError> {
            Ok(())
        }
        fn end(&mut self, _: ExecutionPoint, _: End) -> Result<(), DoorError> {
            Ok(())
        }
    }
    let (board, disk, device) = board(false);
    let mut cpu = FakeCpu::new([starts(disk), vec![notify(disk), power_off(0)]].concat());
    let devices = Devices::new(&board).unwrap();
    let mut machine = Machine::new(&mut cpu, prepared(), devices, Sites::default(), NEVER);
    let refused = machine.run(&mut NoDisk).unwrap_err();
    assert_eq!(
        refused.to_string(),
        format!("the host gives no disk: nothing is behind {device}")
    );
}

#[test]
fn a_saved_machine_says_what_its_disks_have_to_be_asked_again() {
    let (board, disk, device) = board(false);
    let memory = prepared();
    let mut cpu = FakeCpu::new([starts(disk), vec![notify(disk)]].concat());
    let mut door = FakeDoor {
        stops_at: Some((STARTED + 1, 0)),
        ..FakeDoor::default()
    };
    let devices = Devices::new(&board).unwrap();
    let mut machine = Machine::new(&mut cpu, memory.clone(), devices, Sites::default(), NEVER);
    machine.run(&mut door).unwrap();
    let saved = machine.save().unwrap();
    let mut rest = FakeCpu::new([write(0x80, 0), power_off(0)]);
    let mut restored = Machine::restore(&mut rest, memory.clone(), &board, &saved).unwrap();
    let asked: Vec<_> = door
        .requests
        .iter()
        .map(|(_, device, request)| (*device, request.clone()))
        .collect();
    assert_eq!(restored.outstanding_disk_requests(), asked);
    let mut door = door_of([
        done(device, (STARTED + 1, 0), 0, ReadData::Nothing),
        done(device, (STARTED + 1, 0), 1, block(6)),
    ]);
    restored.run(&mut door).unwrap();
    assert_eq!(first_bytes(&memory), (6, [0, 0], 2));
    assert_eq!(restored.outstanding_disk_requests(), []);
    assert_eq!(door.requests, []);
}

#[test]
fn who_follows_is_told_what_a_disk_has_changed_when_that_enters_and_the_rest_at_the_end() {
    // The write is request 0, the read 1.
    let written = |at| done_by(at, 0, ReadData::Nothing);
    let read = |at| done_by(at, 1, block(5));
    for (has_epochs, arrives, told) in [
        (false, vec![written((STARTED + 1, 0))], vec![0]),
        (
            true,
            vec![written((STARTED + 1, 0)), read((STARTED + 2, 0))],
            vec![0],
        ),
        (true, vec![read((STARTED + 1, 0))], vec![0]),
        (true, vec![], vec![0]),
        (false, vec![], vec![]),
    ] {
        let (board, disk, device) = board(false);
        let mut cpu = FakeCpu::new([starts(disk), vec![notify(disk), write(0x80, 0), power_off(0)]].concat());
        let arrivals = arrives.into_iter().map(|done| done(device)).collect();
        let mut door = FakeDoor {
            has_epochs,
            arrivals,
            ..FakeDoor::default()
        };
        let devices = Devices::new(&board).unwrap();
        let mut machine = Machine::new(&mut cpu, prepared(), devices, Sites::default(), NEVER);
        machine.run(&mut door).unwrap();
        assert_eq!(door.done, told, "{has_epochs}");
    }
}

fn done_by(at: Position, number: u64, read: ReadData) -> impl FnOnce(DeviceId) -> (Position, Event) {
    move |device| done(device, at, number, read)
}

#[test]
fn a_machine_that_goes_live_from_a_common_point_asks_again_for_what_was_not_done_there() {
    let (board, disk, device) = board(false);
    let mut cpu = FakeCpu::new([starts(disk), vec![notify(disk)]].concat());
    let mut door = FakeDoor {
        stops_at: Some((STARTED + 1, 0)),
        ..FakeDoor::default()
    };
    let devices = Devices::new(&board).unwrap();
    let mut followed = Machine::new(&mut cpu, prepared(), devices, Sites::default(), NEVER);
    followed.run(&mut door).unwrap();
    let asked = door.requests;
    let met = Met {
        pages: Vec::new(),
        machine: Box::new(followed.save().unwrap()),
    };
    let mut door = FakeDoor {
        follows: [met].into(),
        follows_live: true,
        ..FakeDoor::default()
    };
    let mut other = FakeCpu::new([]);
    let devices = Devices::new(&board).unwrap();
    let mut machine = Machine::new(&mut other, prepared(), devices, Sites::default(), NEVER);
    assert_eq!(machine.follow(&mut door, &board).unwrap(), None);
    assert_eq!(asked.len(), 2);
    assert_eq!(door.requests, asked);
    assert!(asked.iter().all(|(_, asked, _)| *asked == device));

    // Who replays has asked its disk by then.
    door.requests.clear();
    assert_eq!(machine.follow(&mut door, &board).unwrap(), None);
    assert_eq!(door.requests, []);
}

struct Begins(Board);

impl Firmware for Begins {
    fn boot(&self, _: &Memory) -> Result<EntryState, String> {
        Ok(protocol::entry_state(0x10_0000))
    }

    fn devices(&self) -> Result<Devices, String> {
        Devices::new(&self.0).map_err(|why| why.to_string())
    }
}

/// The reset register; then a completion of before.
#[test]
fn what_was_asked_before_a_restart_is_done_behind_it_and_changes_nothing() {
    let (board, disk, device) = board(true);
    let memory = prepared();
    let off = Turn::new(Exit::PortWrite {
        port: 0x604,
        size_bytes: 2,
        value: 1 << 13 | 5 << 10,
    });
    let rest = vec![notify(disk), write(0xcf9, 6), write(0x80, 0), off];
    let mut cpu = FakeCpu::new([starts(disk), rest].concat());
    let mut door = door_of([
        done(device, (STARTED + 2, 0), 1, block(5)),
        done(device, (STARTED + 3, 0), 0, ReadData::Nothing),
    ]);
    let devices = Devices::new(&board).unwrap();
    let mut machine = Machine::new(&mut cpu, memory.clone(), devices, Sites::default(), NEVER);
    machine = machine.restarting(Box::new(Begins(board)));
    let ended = machine.run(&mut door).unwrap();
    assert_eq!(ended.reason, EndReason::PoweredOff(0));
    assert_eq!(machine.outstanding_disk_requests(), []);
    assert_ne!(first_bytes(&memory).0, 5);
    let outstanding = |position| {
        let at = door.ready.iter().find(|(at, _)| *at == position).unwrap();
        at.1.takers
            .iter()
            .find(|taker| taker.device == device)
            .unwrap()
            .takes
    };
    assert_eq!(
        outstanding((STARTED + 2, 0)),
        Takes::Completions { outstanding: 2 }
    );
}
