//! Saving and restoring: a machine that was saved anywhere and built again does what the first one
//! would have done.

use super::*;
use crate::machine::cpu::Entry;
use crate::machine::devices::board::pc;
use crate::machine::memory::Memory;
use crate::machine::saved::{SavedMachine, stream};
use lockstep_logging_channel::Digest;
use proptest::prelude::*;
use vm_memory::{Bytes, GuestAddress};

pub const MEMORY_BYTES: u64 = memory::MEMORY_BYTES_MIN;
const NET: u64 = 0xd000_0000;
/// Of a PC.
const ENTROPY: u64 = 0xd000_1000;
const DESCRIPTORS: u64 = 0x4000;
const AVAILABLE: u64 = 0x5000;
const USED: u64 = 0x6000;
const BUFFERS: u64 = 0x8000;
const BUFFER_BYTES: u32 = 128;
const RECEIVE_BUFFERS: u16 = 4;
/// Descriptor flag: the device writes.
const WRITABLE: u64 = 2 << 32;
const POLICY: Policy = Policy {
    digest_interval_exits: 5,
    window_exits: true,
};

/// Everything that a run shows.
#[derive(Debug, PartialEq)]
struct Seen {
    door: FakeDoor,
    entries: Vec<Entry>,
    supplied: Vec<u64>,
    memory: Digest,
}

/// Memory with receive buffers that the guest has made available, and something else in it.
fn prepared() -> Memory {
    let memory = memory::allocate(MEMORY_BYTES).unwrap();
    let put = |address: u64, word: u64| memory.write_obj(word, GuestAddress(address)).unwrap();
    for index in 0..u64::from(RECEIVE_BUFFERS) {
        put(DESCRIPTORS + 16 * index, BUFFERS + 0x100 * index);
        put(DESCRIPTORS + 16 * index + 8, WRITABLE | u64::from(BUFFER_BYTES));
        let ring = GuestAddress(AVAILABLE + 4 + 2 * index);
        memory.write_obj(index as u16, ring).unwrap();
    }
    memory
        .write_obj(RECEIVE_BUFFERS, GuestAddress(AVAILABLE + 2))
        .unwrap();
    put(MEMORY_BYTES - 8, u64::MAX);
    memory
}

fn written(address: u64, value: u64) -> Turn {
    Turn::new(Exit::MmioWrite {
        address,
        size_bytes: 4,
        value,
    })
}

fn starts_network() -> Vec<Turn> {
    starts(NET)
}

/// The start of a driver: feature VERSION_1, the first queue, DRIVER_OK.
fn starts(device: u64) -> Vec<Turn> {
    let writes = [
        (0x70, 3),
        (0x24, 1),
        (0x20, 1),
        (0x70, 11),
        (0x30, 0),
        (0x38, 4),
        (0x80, DESCRIPTORS),
        (0x90, AVAILABLE),
        (0xa0, USED),
        (0x44, 1),
        (0x70, 15),
    ];
    writes
        .map(|(offset, value)| written(device + offset, value))
        .into()
}

fn turn() -> impl Strategy<Value = Turn> {
    let port = prop::sample::select(vec![
        0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x40, 0x41, 0x42, 0x43, 0x61, 0x3f8, 0x3f9, 0x3fc, 0x508, 0x50c,
        0x510, 0x520, 0x80, 0x70, 0x71, 0x600, 0x602, 0x604, 0x608,
    ]);
    let value = prop::sample::select(vec![
        0, 1, 3, 5, 0x0a, 0x11, 0x20, 0x30, 0x34, 0x36, 0x61, 0x10, 0x0b, 0xff,
    ]);
    let device = prop::sample::select(vec![NET, ENTROPY]);
    let register = prop::sample::select(vec![
        0x14, 0x20, 0x24, 0x30, 0x38, 0x44, 0x50, 0x64, 0x70, 0x80, 0x90, 0xa0,
    ]);
    let exit = prop_oneof![
        4 => (port.clone(), value.clone()).prop_map(|(port, value)| Exit::PortWrite { port, size_bytes: 1, value }),
        2 => (port, prop::sample::select(vec![1, 2, 4])).prop_map(|(port, size_bytes)| Exit::PortRead { port, size_bytes }),
        2 => Just(Exit::PortWrite { port: 0x518, size_bytes: 4, value: 0x7000 }),
        2 => Just(Exit::PortWrite { port: 0x3f8, size_bytes: 1, value: 0x78 }),
        2 => (device.clone(), register.clone(), value).prop_map(|(device, offset, value)| Exit::MmioWrite {
            address: device + offset, size_bytes: 4, value: value.into() }),
        1 => (device, register).prop_map(|(device, offset)| Exit::MmioRead {
            address: device + offset, size_bytes: 4 }),
        1 => Just(Exit::MmioWrite { address: ENTROPY + 0x50, size_bytes: 4, value: 0 }),
        1 => Just(Exit::Halt),
        1 => Just(Exit::Window),
        1 => Just(Exit::Kicked),
        1 => (1_u64..3).prop_map(|instructions| Exit::Instruction { instructions }),
    ];
    (exit, 0..4_u8, any::<u16>()).prop_map(|(exit, open, rip)| {
        let turn = if open == 0 && exit != Exit::Halt {
            Turn::closed(exit)
        } else {
            Turn::new(exit)
        };
        turn.at(rip.into())
    })
}

/// Scripts of the guest: it may start its virtio devices and take the console's interrupts before
/// anything else. It ends on either board.
fn script() -> impl Strategy<Value = Vec<Turn>> {
    let begins = prop::array::uniform3(any::<bool>());
    (begins, prop::collection::vec(turn(), 1..40)).prop_map(|([network, entropy, console], rest)| {
        let network = if network { starts(NET) } else { Vec::new() };
        let entropy = if entropy { starts(ENTROPY) } else { Vec::new() };
        let console = if console {
            console_interrupts([]).rest()
        } else {
            Vec::new()
        };
        let ends = vec![power_off(0), write(0x604, 5 << 10 | 1 << 13)];
        [network, entropy, console, rest, ends].concat()
    })
}

fn pc() -> Board {
    let mac = [2, 0, 0, 0, 0, 1];
    Board::pc(pc::Configuration { mac }).unwrap()
}

fn arrivals() -> impl Strategy<Value = Vec<(Position, EventKind)>> {
    let kind = prop_oneof![
        prop::collection::vec(any::<u8>(), 1..120).prop_map(EventKind::Frame),
        Just(EventKind::Timer),
        prop::collection::vec(any::<u8>(), 1..4).prop_map(EventKind::ConsoleInput),
    ];
    prop::collection::btree_map((0..40_u64, 0..2_u64), kind, 0..12).prop_map(|map| map.into_iter().collect())
}

/// A machine at its first instruction.
fn machine<'a>(board: &Board, cpu: &'a mut FakeCpu, memory: &Memory) -> Machine<&'a mut FakeCpu> {
    let devices = Devices::new(board).unwrap();
    Machine::new(cpu, memory.clone(), devices, Sites::default(), POLICY)
}

/// The whole run on one machine.
fn straight(board: &Board, script: Vec<Turn>, arrivals: Vec<(Position, EventKind)>) -> Seen {
    let memory = prepared();
    let mut cpu = FakeCpu::new(script);
    let mut door = FakeDoor::with(arrivals);
    machine(board, &mut cpu, &memory).run(&mut door).unwrap();
    Seen {
        door,
        entries: cpu.entries,
        supplied: cpu.supplied,
        memory: memory::digest(&memory).unwrap(),
    }
}

/// Saved, written and read.
fn carried(machine: &mut Machine<&mut FakeCpu>) -> (SavedMachine, Memory) {
    let saved = machine.save().unwrap();
    let mut bytes = Vec::new();
    stream::write(saved.clone(), machine.memory(), &mut bytes).unwrap();
    let (read, memory) = stream::read(&mut bytes.as_slice(), MEMORY_BYTES).unwrap();
    assert_eq!(read, saved);
    (read, memory)
}

/// The same run, moved to another machine after so many steps; the first one where it is over
/// before.
fn moving(board: &Board, script: Vec<Turn>, arrivals: Vec<(Position, EventKind)>, steps: usize) -> Seen {
    let memory = prepared();
    let mut cpu = FakeCpu::new(script.clone());
    let mut door = FakeDoor::with(arrivals);
    let mut first = machine(board, &mut cpu, &memory);
    let mut left = steps;
    let ended = first.run_until(&mut door, &mut |_| {
        left = left.saturating_sub(1);
        left == 0
    });
    if ended.unwrap().is_some() {
        return Seen {
            door,
            entries: cpu.entries,
            supplied: cpu.supplied,
            memory: memory::digest(&memory).unwrap(),
        };
    }
    let (saved, new_memory) = carried(&mut first);
    let mut other = FakeCpu::new(cpu.rest());
    let mut second = Machine::restore(&mut other, new_memory.clone(), board, &saved).unwrap();
    second.run(&mut door).unwrap();
    Seen {
        door,
        entries: [cpu.entries, other.entries].concat(),
        supplied: [cpu.supplied, other.supplied].concat(),
        memory: memory::digest(&new_memory).unwrap(),
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_machine_that_was_moved_anywhere_does_what_it_would_have_done(
        is_pc in any::<bool>(), script in script(), arrivals in arrivals(), steps in 1_usize..60,
    ) {
        let board = if is_pc { pc() } else { board() };
        let moved = moving(&board, script.clone(), arrivals.clone(), steps);
        prop_assert_eq!(moved, straight(&board, script, arrivals));
    }
}

#[test]
fn a_frame_that_was_received_and_a_line_that_is_not_over_are_carried() {
    let script = [
        starts_network(),
        vec![
            write(0x3f8, b'a'.into()),
            write(0x3f8, b'b'.into()),
            write(0x80, 0),
        ],
        vec![write(0x3f8, b'\n'.into()), power_off(0)],
    ]
    .concat();
    let arrivals = vec![((12, 0), EventKind::Frame(vec![7; 60]))];

    let seen = moving(&board(), script.clone(), arrivals.clone(), 14);

    assert_eq!(seen.door.outputs, [((15, 0), CONSOLE, b"ab\n".to_vec())]);
    let untouched = memory::digest(&prepared()).unwrap();
    assert_ne!(seen.memory, untouched, "the frame is in memory");
    assert_eq!(seen, straight(&board(), script, arrivals));
}

#[test]
fn a_machine_pauses_where_it_is_asked_to_and_runs_on() {
    let mut cpu = FakeCpu::new([
        write(0x80, 0),
        Turn::new(Exit::Kicked),
        write(0x80, 0),
        power_off(3),
    ]);
    let memory = prepared();
    let mut door = FakeDoor::default();
    let mut machine = machine(&board(), &mut cpu, &memory);

    let mut pauses = Vec::new();
    let mut note = |pause: crate::machine::run::Pause| {
        pauses.push((pause.point.exits, pause.between));
        pause.between
    };
    assert_eq!(machine.run_until(&mut door, &mut note).unwrap(), None);
    assert!(machine.save().unwrap().position.between);
    assert_eq!(reason(machine.run(&mut door)), EndReason::PoweredOff(3));
    assert_eq!(pauses, [(1, false), (1, true)]);
}
