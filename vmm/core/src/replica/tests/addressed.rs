//! A board with two devices of each kind: what is recorded of one of them replays at that one, and
//! nowhere else.

use super::*;
use crate::machine::cpu::Exit;
use crate::machine::cpu::fake::{FakeCpu, Turn};
use crate::machine::devices::board::{At, Kind, Model, Placed};
use crate::machine::devices::{Board, Devices};
use crate::machine::image::Sites;
use crate::machine::memory::{self, Memory};
use crate::machine::run::Policy;
use crate::machine::{Machine, MachineError};
use lockstep_logging_channel::Digest;
use vm_memory::{Bytes, GuestAddress};

const TIMERS: [DeviceId; 2] = [DeviceId(1), DeviceId(2)];
const CONSOLES: [DeviceId; 2] = [DeviceId(3), DeviceId(4)];
const NETWORKS: [DeviceId; 2] = [DeviceId(5), DeviceId(6)];
const CLOCK: DeviceId = DeviceId(7);
const CONSOLE_PORTS: [u16; 2] = [0x3f8, 0x2f8];
const NETWORK_ADDRESSES: [u64; 2] = [0xd000_0000, 0xd000_1000];
const CLOCK_ADDRESS: u64 = 0xd000_2000;
const FRAME_BYTES: u32 = 60;
/// Bytes before a frame in its buffer.
const HEADER_BYTES: u32 = 12;
/// Descriptor flag: the device writes.
const WRITABLE: u64 = 2 << 32;

fn board() -> Board {
    let placed = |name, model, at, line| Placed {
        name,
        model,
        at,
        line,
    };
    let console = |name, index: usize, line| {
        let first = CONSOLE_PORTS[index];
        let ports = At::Ports(vec![first..=first + 7]);
        placed(name, Model::SerialConsole, ports, Some(line))
    };
    let network = |name, index: usize, line| {
        let mac = [2, 0, 0, 0, 0, index as u8];
        let at = At::Memory(NETWORK_ADDRESSES[index]);
        placed(name, Model::Network { mac }, at, Some(line))
    };
    let timer = |name, first: u16, line| {
        let ports = At::Ports(vec![first..=first + 4]);
        placed(name, Model::IntervalTimer, ports, Some(line))
    };
    let controller = At::Ports(vec![0x20..=0x21, 0xa0..=0xa1, 0x4d0..=0x4d1]);
    Board::new(
        Kind::Small,
        vec![
            placed("controller", Model::InterruptController, controller, None),
            timer("first timer", 0x40, 0),
            timer("second timer", 0x50, 1),
            console("first console", 0, 4),
            console("second console", 1, 3),
            network("first network", 0, 5),
            network("second network", 1, 6),
            placed("clock", Model::Clock, At::Memory(CLOCK_ADDRESS), None),
            placed("power", Model::PowerOff, At::Ports(vec![0xf4..=0xf4]), None),
        ],
    )
    .unwrap()
}

fn write(port: u16, value: u32) -> Turn {
    let size_bytes = 1;
    Turn::new(Exit::PortWrite {
        port,
        size_bytes,
        value,
    })
}

/// Descriptors of a network device's queue; its rings are behind them.
fn descriptors(network: u64, queue: u64) -> u64 {
    0x1_0000 * (network + 1) + 0x4000 * queue
}

/// Memory with one buffer in each queue of both network devices.
fn prepared() -> Memory {
    let memory = memory::allocate(memory::MEMORY_BYTES_MIN).unwrap();
    let put = |address: u64, word: u64| memory.write_obj(word, GuestAddress(address)).unwrap();
    for network in 0..2 {
        for (queue, flags) in [(0, WRITABLE), (1, 0)] {
            let table = descriptors(network, queue);
            put(table, table + 0x3000);
            put(table + 8, flags | u64::from(HEADER_BYTES + FRAME_BYTES));
            put(table + 0x3000 + u64::from(HEADER_BYTES), 0x1111 * (network + 1));
            memory.write_obj(1_u16, GuestAddress(table + 0x1000 + 2)).unwrap();
        }
    }
    memory
}

/// A driver's start of a network device, and a frame that leaves by it.
fn starts_network(network: u64) -> Vec<Turn> {
    let queue = |queue: u64| {
        let table = descriptors(network, queue);
        let (available, used) = (table + 0x1000, table + 0x2000);
        [
            (0x30, queue),
            (0x38, 4),
            (0x80, table),
            (0x90, available),
            (0xa0, used),
            (0x44, 1),
        ]
    };
    let start = [(0x70, 3), (0x24, 1), (0x20, 1), (0x70, 11)].into_iter();
    let writes = start
        .chain(queue(0))
        .chain(queue(1))
        .chain([(0x70, 15), (0x50, 1)]);
    let turn = |(offset, value)| {
        Turn::new(Exit::MmioWrite {
            address: NETWORK_ADDRESSES[network as usize] + offset,
            size_bytes: 4,
            value,
        })
    };
    writes.map(turn).collect()
}

fn script() -> Vec<Turn> {
    let text = [b'a', b'b'].into_iter().zip(CONSOLE_PORTS);
    let text = text.flat_map(|(byte, port)| [write(port, byte.into()), write(port, b'\n'.into())]);
    let loads = [0x40, 0x50].into_iter().flat_map(|first| {
        let values = [(first + 3, 0x30), (first, 1), (first, 0)];
        values.map(|(port, value)| write(port, value))
    });
    let asks = Turn::new(Exit::MmioRead {
        address: CLOCK_ADDRESS,
        size_bytes: 4,
    });
    let reads = CONSOLE_PORTS.map(|port| Turn::new(Exit::PortRead { port, size_bytes: 1 }));
    let networks = starts_network(0).into_iter().chain(starts_network(1));
    let starts = text.chain(loads).chain(networks).chain([asks]);
    starts
        .chain(reads)
        .chain([write(0x80, 0), write(0xf4, 0)])
        .collect()
}

/// A world in which these come, each when its device has room for it.
struct Addressed {
    now: u64,
    arrivals: VecDeque<(DeviceId, EventKind)>,
}

impl Addressed {
    fn new() -> Self {
        let [first, second] = NETWORKS;
        let frame = |byte| EventKind::Frame(vec![byte; FRAME_BYTES as usize]);
        let typed = |byte| EventKind::ConsoleInput(vec![byte]);
        let arrivals = [
            (CONSOLES[1], typed(b'2')),
            (CONSOLES[0], typed(b'1')),
            (TIMERS[1], EventKind::Timer),
            (TIMERS[0], EventKind::Timer),
            (second, frame(2)),
            (first, frame(1)),
        ];
        Self {
            now: 1_000_000,
            arrivals: arrivals.into(),
        }
    }
}

impl Outside for Addressed {
    fn answer(&mut self, question: Question) -> Result<Value, DoorError> {
        assert_eq!(question, Question::Monotonic);
        self.now += 1;
        Ok(Value::Monotonic(self.now))
    }

    fn arrival(&mut self, readiness: Readiness<'_>) -> Result<Option<Event>, DoorError> {
        self.now += 1;
        let has_room = |taker: &Taker| match taker.takes {
            Takes::Frames { max } => max > 0,
            Takes::ConsoleInput { bytes_max, .. } => bytes_max > 0,
            Takes::Completions { outstanding } => outstanding > 0,
            Takes::Expiry { deadline_ns, entered } => !entered && deadline_ns.is_some(),
        };
        let is_ready = |device| {
            readiness
                .takers
                .iter()
                .any(|taker| taker.device == device && has_room(taker))
        };
        let arrived = self.arrivals.pop_front_if(|(device, _)| is_ready(*device));
        Ok(arrived.map(|(device, kind)| Event {
            device,
            monotonic_ns: self.now,
            kind,
        }))
    }

    fn horizon(&mut self, _: ExecutionPoint) -> Horizon {
        Horizon::Exit
    }

    fn kicked(&mut self, _: Kick<'_>) -> Result<Kicked, DoorError> {
        Ok(Kicked::RunsOn)
    }
}

/// Traces of a run: answers to its reads, and its memory.
type Left = (Vec<u64>, Digest);

fn run(door: &mut dyn crate::machine::door::Door) -> Result<Left, MachineError> {
    let mut cpu = FakeCpu::new(script());
    let memory = prepared();
    let policy = Policy {
        digest_interval_exits: 1,
        window_exits: false,
    };
    let devices = Devices::new(&board()).unwrap();
    Machine::new(&mut cpu, memory.clone(), devices, Sites::default(), policy).run(door)?;
    Ok((cpu.supplied, memory::digest(&memory).unwrap()))
}

fn record() -> (Left, Written) {
    let journal = FakeJournal::default();
    let written = journal.written.clone();
    let start = Start {
        generation: Generation(1),
        sequence: Sequence(1),
    };
    let left = run(&mut Recorder::new(Addressed::new(), journal, start)).unwrap();
    (left, written.take())
}

fn replay(entries: &[Entry]) -> (Result<Left, MachineError>, Told) {
    let feed = FakeFeed::of(entries);
    let told = feed.told.clone();
    let left = run(&mut FakeStandby::new(Replayer::new(feed, false), None));
    (left, told.take())
}

/// The report on a replay of these entries.
fn report(entries: &[Entry]) -> Divergence {
    match replay(entries).0 {
        Err(MachineError::Door(error)) => diverged(Err::<(), _>(error)),
        other => panic!("no divergence: {other:?}"),
    }
}

/// The same entries with the `nth` event at another device.
fn moved(entries: &[Entry], nth: usize, to: DeviceId) -> Vec<Entry> {
    let mut entries = entries.to_vec();
    let mut events = entries.iter_mut().filter_map(|entry| match &mut entry.body {
        Body::Event(event) => Some(event),
        _ => None,
    });
    events.nth(nth).unwrap().device = to;
    entries
}

#[test]
fn outputs_and_events_of_two_devices_of_a_kind_are_recorded_apart() {
    let ((supplied, _), written) = record();

    let targets: Vec<_> = written.outputs.iter().map(|(target, _)| *target).collect();
    let [one, other] = CONSOLES.map(OutputTarget::console);
    let [first, second] = NETWORKS.map(OutputTarget::network);
    assert_eq!(targets, [one, other, first, second]);
    let bytes: Vec<_> = written
        .outputs
        .iter()
        .map(|(_, bytes)| bytes[..2].to_vec())
        .collect();
    assert_eq!(bytes, [b"a\n", b"b\n", b"\x11\x11", b"\x22\x22"]);
    let events = written.entries.iter().filter_map(|entry| match &entry.body {
        Body::Event(event) => Some(event.device),
        _ => None,
    });
    let devices: Vec<_> = events.collect();
    let expected = [
        CONSOLES[1],
        CONSOLES[0],
        TIMERS[1],
        TIMERS[0],
        NETWORKS[1],
        NETWORKS[0],
    ];
    assert_eq!(devices, expected);
    let [.., asked, typed_first, typed_second] = supplied[..] else {
        panic!("{supplied:?}")
    };
    assert!(asked > 1_000_000, "device memory asks the door: {asked}");
    assert_eq!([typed_first, typed_second], [u64::from(b'1'), u64::from(b'2')]);
}

#[test]
fn what_two_devices_of_a_kind_did_is_replayed() {
    let (left, written) = record();

    let (replayed, told) = replay(&written.entries);

    assert_eq!(replayed.unwrap(), left);
    let outputs: Vec<_> = told
        .outputs
        .into_iter()
        .map(|(_, target, bytes)| (target, bytes))
        .collect();
    assert_eq!(outputs, written.outputs);
}

#[test]
fn an_event_of_one_device_at_another_of_its_kind_is_a_divergence() {
    let (_, written) = record();
    let twins = [
        CONSOLES[0],
        CONSOLES[1],
        TIMERS[0],
        TIMERS[1],
        NETWORKS[0],
        NETWORKS[1],
    ];
    let parts = twins.into_iter().enumerate().map(|(nth, twin)| {
        let report = report(&moved(&written.entries, nth, twin));
        (nth, report.part)
    });
    let parts: Vec<_> = parts.collect();
    assert_eq!(parts.len(), 6, "each of them");
    let console = |part: &str| part == "first console" || part == "second console";
    assert!(parts[..2].iter().all(|(_, part)| console(part)), "{parts:?}");
}

#[test]
fn an_event_at_a_device_that_takes_no_such_thing_is_a_divergence_that_names_it() {
    let (_, written) = record();
    let named = |to| {
        let report = report(&moved(&written.entries, 0, to));
        assert_eq!(report.part, "event");
        report.to_string()
    };
    let clock = named(CLOCK);
    assert!(clock.contains("event (device 7, clock)"), "{clock}");
    let none = named(DeviceId(9));
    assert!(none.contains("event (device 9, not on the board)"), "{none}");
}

#[test]
fn an_output_by_another_device_is_a_divergence_that_names_both() {
    let (_, mut written) = record();
    let mut outputs = written
        .entries
        .iter_mut()
        .filter_map(|entry| match &mut entry.body {
            Body::Output(output) => Some(output),
            _ => None,
        });
    outputs.next().unwrap().target.device = CONSOLES[1];

    let report = report(&written.entries).to_string();

    assert!(report.contains("output (device 4, second console)"), "{report}");
    assert!(
        report.contains("expected: output device 4 console 2 bytes")
            && report.contains("found:    output device 3 console 2 bytes"),
        "{report}"
    );
}

#[test]
fn a_machine_refuses_an_event_for_a_device_that_takes_none() {
    let mut world = Addressed::new();
    world.arrivals = [(CONSOLES[0], EventKind::Timer)].into();
    let journal = FakeJournal::default();
    let error = run(&mut Recorder::new(world, journal, Start::default())).unwrap_err();
    assert!(
        matches!(error, MachineError::NotTaken(refused) if refused.device == CONSOLES[0]),
        "{error}"
    );
}
