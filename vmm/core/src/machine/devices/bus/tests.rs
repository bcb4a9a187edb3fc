//! The board of a PC as its guest finds it: ports, lines and what leaves.

use super::*;
use crate::machine::devices::board::{Board, pc};
use crate::machine::door::{Question, RANDOM_BYTES_MAX};
use crate::machine::image::trap_ports::KernelTrap;
use crate::machine::memory::{self, MEMORY_BYTES_MIN};
use lockstep_logging_channel::Value;

const NOW_NS: u64 = 2_000_000_000;
const CONSOLE: u16 = 0x3f8;
const CONSOLE_LINE: u8 = 4;
const ENTROPY: u64 = 0xd000_1000;

/// The devices of a PC, and what its guest does.
struct Pc {
    devices: Devices,
    memory: Memory,
    effects: Vec<Effect>,
}

fn answer(question: Question) -> Result<Value, DoorError> {
    Ok(match question {
        Question::Monotonic => Value::Monotonic(NOW_NS),
        Question::Wall => Value::Wall(NOW_NS),
        Question::Tsc => panic!("no device asks for it"),
        Question::Random { length_bytes } => {
            assert!(length_bytes <= RANDOM_BYTES_MAX);
            Value::Random(vec![0x5a; length_bytes as usize])
        }
    })
}

impl Pc {
    fn new() -> Self {
        let board = Board::pc(pc::Configuration {
            mac: [2, 0, 0, 0, 0, 1],
        });
        let mut pc = Self {
            devices: Devices::new(&board.unwrap()).unwrap(),
            memory: memory::allocate(MEMORY_BYTES_MIN).unwrap(),
            effects: Vec::new(),
        };
        // As Linux does: vectors 0x30 and 0x38, nothing masked but by itself.
        for (port, value) in [(0x20, 0x11), (0x21, 0x30), (0x21, 4), (0x21, 1), (0xa0, 0x11)] {
            pc.output(port, value);
        }
        for (port, value) in [(0xa1, 0x38), (0xa1, 2), (0xa1, 1)] {
            pc.output(port, value);
        }
        pc
    }

    fn output(&mut self, port: u16, value: u32) {
        let Self {
            devices,
            memory,
            effects,
        } = self;
        devices
            .write_port(port, value, memory, &mut answer, effects)
            .unwrap();
    }

    fn input(&mut self, port: u16, size_bytes: u8) -> u32 {
        self.devices.read_port(port, size_bytes, &mut answer).unwrap()
    }

    fn write_memory(&mut self, address: u64, value: u64) {
        let Self {
            devices,
            memory,
            effects,
        } = self;
        devices
            .write_mmio(address, value, memory, &mut answer, effects)
            .unwrap();
    }

    fn effects(&mut self) -> Vec<Effect> {
        std::mem::take(&mut self.effects)
    }
}

#[test]
fn the_registers_of_acpi_are_read_by_their_size() {
    let mut pc = Pc::new();
    assert_eq!(pc.input(0x608, 4), 2 * 3_579_545);
    assert_eq!(pc.input(0x604, 2), 1);
    pc.output(0x602, 1 << 5);
    assert_eq!([pc.input(0x600, 2), pc.input(0x602, 2)], [0, 1 << 5]);
}

#[test]
fn the_off_state_and_the_reset_register_end_what_runs() {
    let mut pc = Pc::new();
    pc.output(0x604, 5 << 10);
    assert_eq!(pc.effects(), []);
    pc.output(0x604, 5 << 10 | 1 << 13);
    assert_eq!(pc.effects(), [Effect::PowerOff(0)]);
    pc.output(0xcf9, 6);
    assert_eq!(pc.effects(), [Effect::Reset]);
}

#[test]
fn the_clock_is_read_through_its_index() {
    let mut pc = Pc::new();
    pc.output(0x70, 0xa);
    assert_eq!(pc.input(0x71, 1), 0x26);
    pc.output(0x70, 0);
    assert_eq!(pc.input(0x71, 1), 0x02);
}

/// No 8042, no kernel trap, no device of the small board alone.
#[test]
fn nothing_answers_where_the_board_has_nothing() {
    let mut pc = Pc::new();
    let traps = (0..=0xff).filter(|port| KernelTrap::at(*port).is_some());
    for port in traps.chain([0x60, 0x64, 0x80, 0xf4, 0x508, 0xcf8]) {
        assert_eq!(pc.input(port, 4), u32::MAX, "{port:#x}");
        pc.output(port, u32::MAX);
    }
    assert_eq!(pc.effects(), []);
}

/// Linux's handler reads the identification until nothing is pending. What it has seen there does
/// not interrupt once more.
#[test]
fn a_console_that_was_served_interrupts_no_more() {
    let mut pc = Pc::new();
    pc.output(CONSOLE + 1, 0b11);
    assert_eq!(pc.devices.acknowledge_interrupt(), Some(0x30 + CONSOLE_LINE));
    pc.output(0x20, 0x60 | u32::from(CONSOLE_LINE));
    assert_eq!(pc.input(CONSOLE + 2, 1), 0xc2);
    for byte in b"root\n" {
        pc.output(CONSOLE, (*byte).into());
    }
    pc.output(CONSOLE + 1, 0b01);
    assert_eq!(pc.input(CONSOLE + 2, 1), 0xc2, "the transmitter is empty again");
    assert_eq!(pc.input(CONSOLE + 2, 1), 0xc1);
    assert!(!pc.devices.interrupt_pending());
    assert_eq!(pc.effects().len(), 1);

    let typed = Event {
        device: DeviceId(3),
        monotonic_ns: NOW_NS,
        kind: EventKind::ConsoleInput(b"x".to_vec()),
    };
    pc.devices.event(&typed, &pc.memory, &mut pc.effects).unwrap();
    assert_eq!(pc.devices.acknowledge_interrupt(), Some(0x30 + CONSOLE_LINE));
}

/// A prompt has no newline: it leaves when the guest halts.
#[test]
fn a_prompt_leaves_when_the_guest_halts() {
    let mut pc = Pc::new();
    for byte in b"\r\nlogin: " {
        pc.output(CONSOLE, (*byte).into());
    }
    let text = |effects: Vec<Effect>| -> Vec<Vec<u8>> {
        let bytes = |effect| match effect {
            Effect::Output(_, bytes) => bytes,
            other => panic!("{other:?}"),
        };
        effects.into_iter().map(bytes).collect()
    };
    assert_eq!(text(pc.effects()), [b"\r\n".to_vec()]);
    let mut effects = Vec::new();
    pc.devices.flush_consoles(&mut effects);
    assert_eq!(text(effects), [b"login: ".to_vec()]);
}

#[test]
fn a_filled_buffer_raises_the_line_until_it_is_acknowledged() {
    let mut pc = Pc::new();
    let (table, available, used, buffer) = (0x1000_u64, 0x2000_u64, 0x3000_u64, 0x4000_u64);
    pc.memory.write_obj(buffer, GuestAddress(table)).unwrap();
    pc.memory.write_obj(16_u32, GuestAddress(table + 8)).unwrap();
    pc.memory.write_obj(2_u16, GuestAddress(table + 12)).unwrap();
    pc.memory.write_obj(1_u16, GuestAddress(available + 2)).unwrap();
    let setup = [(0x24, 1), (0x20, 1), (0x70, 11), (0x38, 8), (0x44, 1)];
    let rings = [(0x80, table), (0x90, available), (0xa0, used)];
    for (offset, value) in rings.into_iter().chain(setup).chain([(0x70, 15), (0x50, 0)]) {
        pc.write_memory(ENTROPY + offset, value);
    }
    let filled: [u8; 17] = pc.memory.read_obj(GuestAddress(buffer)).unwrap();
    assert_eq!((&filled[..16], filled[16]), ([0x5a; 16].as_slice(), 0));
    assert_eq!(pc.devices.acknowledge_interrupt(), Some(0x38 + 2));
    pc.output(0xa0, 0x62);
    pc.output(0x20, 0x62);
    assert!(pc.devices.interrupt_pending(), "the level stands");
    pc.write_memory(ENTROPY + 0x64, 1);
    assert!(!pc.devices.interrupt_pending());
}

#[test]
fn all_that_is_saved_is_restored_and_has_a_digest() {
    let mut pc = Pc::new();
    pc.output(0x70, 0xa);
    pc.input(0x71, 1);
    pc.output(0x602, 1 << 8);
    pc.output(0x604, 5 << 10);
    let board = Board::pc(pc::Configuration {
        mac: [2, 0, 0, 0, 0, 1],
    });
    let saved = pc.devices.saved().unwrap();
    let names: Vec<&str> = saved.iter().map(|device| device.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "interrupt controller",
            "interval timer",
            "real-time clock",
            "serial console",
            "network device",
            "power management",
            "entropy device",
        ]
    );
    // The forms of devices never change.
    assert_eq!(saved[2].state, [0x0a, 2], "index, seconds");
    assert_eq!(saved[5].state, [0x80, 2, 0x80, 40], "enabled events, control");
    let (registers, queue) = ([0; 6], [0, 0, 0x80, 2, 0, 0, 0, 0]);
    assert_eq!(saved[6].state, [registers.as_slice(), &queue].concat());
    let restored = Devices::restore(&board.unwrap(), &saved).unwrap();
    assert_eq!(restored.saved().unwrap(), saved);
    assert_eq!(restored.digests().unwrap(), pc.devices.digests().unwrap());
}
