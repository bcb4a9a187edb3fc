//! The devices behind the bus. Whatever a guest reads, writes and leaves in its memory, and
//! whatever arrives and is answered: no panic; bounded work and output for each access; an
//! interrupt that waits can be taken; and the same sequence gives the same results, digests and
//! memory twice.

mod driver;
mod outside;

use lockstep_core::machine::devices::board::{Kind, pc};
use lockstep_core::machine::devices::bus::{Devices, Effect};
use lockstep_core::machine::devices::serial;
use lockstep_core::machine::devices::virtio::mmio;
use lockstep_core::machine::devices::virtio::net::FRAME_BYTES_MAX;
use lockstep_core::machine::devices::virtio::queue::QUEUE_SIZE;
use lockstep_core::machine::devices::{Board, DeviceSet};
use lockstep_core::machine::disk::{DiskShape, IN_FLIGHT_MAX, Operation, Request};
use lockstep_core::machine::door::{Taker, Takes};
use lockstep_core::machine::memory::{self, MEMORY_BYTES_MIN, Memory};
use lockstep_logging_channel::{Completion, DeviceId, Digest, Event, EventKind, ReadData};
use vm_memory::{Bytes, GuestAddress};

use super::input::Input;
use outside::Outside;

/// Steps of one input, at most.
const STEPS_MAX: usize = 256;

/// Bytes sent by one input after which it is over: a few full queues of the longest frames.
const SENT_BYTES_MAX: usize = 48 << 20;

/// Ports of the small board that are something, and some that are nothing.
const PORTS: [u16; 28] = [
    0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1, 0x40, 0x41, 0x42, 0x43, 0x61, 0x3f8, 0x3f9, 0x3fa, 0x3fb, 0x3fc,
    0x3fd, 0x3fe, 0x3ff, 0x508, 0x50c, 0x510, 0x514, 0x518, 0x520, 0xe0, 0xf4, 0xffff,
];

/// The same of the board of a PC, with those of a kernel's traps.
const PC_PORTS: [u16; 36] = [
    0x20, 0x21, 0xa0, 0xa1, 0x4d0, 0x4d1, 0x40, 0x41, 0x42, 0x43, 0x61, 0x60, 0x64, 0x70, 0x71, 0x3f8, 0x3f9,
    0x3fa, 0x3fb, 0x3fc, 0x3fd, 0x3fe, 0x3ff, 0x600, 0x602, 0x603, 0x604, 0x605, 0x606, 0x608, 0x60b, 0x60c,
    0xcf9, 0xb4, 0xe0, 0xffff,
];

/// The disk of a PC: large enough that a request of small numbers is within it.
const DISK: DiskShape = DiskShape {
    sectors: 1 << 20,
    block_bytes: 512,
    read_only: false,
    serial: [b'f'; 20],
};

/// Runs the target: what bytes do on either board.
pub fn run(bytes: &[u8]) {
    run_on(Kind::Small, bytes);
    run_on(Kind::Pc, bytes);
}

fn run_on(kind: Kind, bytes: &[u8]) {
    let (first, second) = (play(kind, bytes), play(kind, bytes));
    for (step, (one, other)) in first.iter().zip(&second).enumerate() {
        assert_eq!(one, other, "step {step} differs the second time ({kind:?})");
    }
    assert_eq!(first.len(), second.len());
}

/// What each step of `bytes` came to, and at last the state.
fn play(kind: Kind, bytes: &[u8]) -> Vec<String> {
    let mut input = Input::new(bytes);
    let mut subject = Subject::new(kind);
    let mut results = Vec::new();
    while !input.is_empty() && results.len() < STEPS_MAX && subject.sent_bytes < SENT_BYTES_MAX {
        results.push(subject.step(&mut input));
        subject.check();
    }
    results.push(subject.state());
    results
}

/// The devices, their guest's memory, and their outside.
struct Subject {
    devices: Devices,
    memory: Memory,
    outside: Outside,
    sent_bytes: usize,
    /// Something may have been written anywhere in memory.
    strayed: bool,
}

impl Subject {
    fn new(kind: Kind) -> Self {
        let mac = [2, 0, 0, 0, 0, 1];
        let board = match kind {
            Kind::Small => Board::small(mac),
            Kind::Pc => Board::pc(pc::Configuration { mac }).and_then(|board| board.with_disks(&[DISK])),
        };
        let board = board.expect("a board");
        Self {
            devices: Devices::new(&board).expect("devices"),
            memory: memory::allocate(MEMORY_BYTES_MIN).expect("guest memory"),
            outside: Outside::default(),
            sent_bytes: 0,
            strayed: false,
        }
    }

    /// Does one thing; what it came to.
    fn step(&mut self, input: &mut Input<'_>) -> String {
        match input.byte() % 16 {
            0 => self.read_port(input),
            1 | 2 => self.write_port(input),
            3 => self.read_mmio(input),
            4 => {
                let address = driver::register(self.device(input), input);
                self.write_mmio(address, u64::from(input.long()))
            }
            5 => self.write_mmio(input.quad(), input.quad()),
            6 => self.configure(input),
            7 => self.poke(input),
            8 => self.describe(input),
            9 | 10 => self.offer(input),
            11 => self.receive(input),
            12 => match self.devices.outstanding_disk_requests().as_slice() {
                [] => self.event(input, EventKind::Timer),
                outstanding => self.complete(input, outstanding),
            },
            13 => {
                let count = usize::from(input.byte());
                let typed = input.take(count).to_vec();
                self.event(input, EventKind::ConsoleInput(typed))
            }
            14 => self.interrupt(),
            _ => {
                self.outside.choose(input);
                let mut effects = Vec::new();
                self.devices.flush_consoles(&mut effects);
                self.leaves(effects)
            }
        }
    }

    fn device(&self, input: &mut Input<'_>) -> u64 {
        driver::device(self.devices.kind(), input)
    }

    fn port(&self, input: &mut Input<'_>) -> u16 {
        match (input.byte(), self.devices.kind()) {
            (0xff, _) => input.word(),
            (choice, Kind::Small) => PORTS[usize::from(choice) % PORTS.len()],
            (choice, Kind::Pc) => PC_PORTS[usize::from(choice) % PC_PORTS.len()],
        }
    }

    fn read_port(&mut self, input: &mut Input<'_>) -> String {
        let (port, size_bytes) = (self.port(input), input.pick(&[1, 2, 4]));
        let read = self
            .devices
            .read_port(port, size_bytes, &mut |question| self.outside.answer(question));
        format!("{port:#x} reads {:?}", read.map_err(|error| error.to_string()))
    }

    fn write_port(&mut self, input: &mut Input<'_>) -> String {
        let (port, value) = (self.port(input), input.long());
        let mut effects = Vec::new();
        let mut ask = |question| self.outside.answer(question);
        let written = self
            .devices
            .write_port(port, value, &self.memory, &mut ask, &mut effects);
        match written {
            Ok(()) => self.leaves(effects),
            Err(error) => error.to_string(),
        }
    }

    fn read_mmio(&mut self, input: &mut Input<'_>) -> String {
        let (address, size_bytes) = (driver::register(self.device(input), input), input.byte());
        let read = self
            .devices
            .read_mmio(address, size_bytes, &mut |question| self.outside.answer(question));
        format!("{address:#x} reads {:?}", read.map_err(|error| error.to_string()))
    }

    fn write_mmio(&mut self, address: u64, value: u64) -> String {
        let (mut effects, mut asked) = (Vec::new(), 0);
        let mut ask = |question| {
            asked += 1;
            assert!(asked <= QUEUE_SIZE, "questions of one access");
            self.outside.answer(question)
        };
        let written = self
            .devices
            .write_mmio(address, value, &self.memory, &mut ask, &mut effects);
        match written {
            Ok(()) => self.leaves(effects),
            Err(error) => error.to_string(),
        }
    }

    /// A driver's beginning, with rings where [`driver`] keeps them, or where the guest says.
    fn configure(&mut self, input: &mut Input<'_>) -> String {
        let (writes, strays) = driver::configuration(self.device(input), input);
        self.strayed |= strays;
        writes
            .into_iter()
            .map(|(address, value)| self.write_mmio(address, value))
            .collect()
    }

    fn poke(&mut self, input: &mut Input<'_>) -> String {
        let address = driver::address(input, &mut self.strayed);
        let count = usize::from(input.byte()) % 64;
        // Outside memory it is no write at all.
        let _ = self.memory.write_slice(input.take(count), GuestAddress(address));
        String::new()
    }

    fn describe(&mut self, input: &mut Input<'_>) -> String {
        let (address, descriptor) = driver::descriptor(input, &mut self.strayed);
        self.memory
            .write_slice(&descriptor, GuestAddress(address))
            .expect("a table in memory");
        String::new()
    }

    /// Makes chains available, and tells the device of them.
    fn offer(&mut self, input: &mut Input<'_>) -> String {
        let (queue, writes) = driver::offer(input, &self.memory);
        for (address, value) in writes {
            self.memory
                .write_slice(&value, GuestAddress(address))
                .expect("a ring in memory");
        }
        let notify = self.device(input) + driver::NOTIFY;
        self.write_mmio(notify, queue)
    }

    fn receive(&mut self, input: &mut Input<'_>) -> String {
        let length = input.pick(&[0, 14, 60, 1514, FRAME_BYTES_MAX]);
        let mut frame = input.take(16).to_vec();
        frame.resize(length, 0x5a);
        self.event(input, EventKind::Frame(frame))
    }

    /// Something arrives, at a device that takes it or at another one.
    fn event(&mut self, input: &mut Input<'_>, kind: EventKind) -> String {
        let fits = |taker: &Taker| taker.takes.fits(&kind);
        let fitting = self.takers().into_iter().find(fits).map(|taker| taker.device);
        let device = match input.byte() {
            choice @ 0xf0.. => DeviceId(choice & 0xf),
            _ => fitting.expect("a device for everything that arrives"),
        };
        let event = Event {
            device,
            monotonic_ns: self.outside.time_ns(),
            kind,
        };
        let mut effects = Vec::new();
        let taken = self.devices.event(&event, &self.memory, &mut effects);
        assert_eq!(taken.is_ok(), Some(device) == fitting, "{event:?}");
        format!("{taken:?} {:?} {}", self.takers(), self.leaves(effects))
    }

    /// A disk has done one of its requests; one that it was not asked for, or with other bytes than it
    /// reads, does not enter.
    fn complete(&mut self, input: &mut Input<'_>, outstanding: &[(DeviceId, Request)]) -> String {
        let (device, request) = &outstanding[usize::from(input.byte()) % outstanding.len()];
        let strange = input.byte() > 0xf0;
        let number = request.number + u64::from(strange) * outstanding.len() as u64;
        let read = match request.operation {
            Operation::Read { length_bytes, .. } => ReadData::Bytes(vec![0x3c; length_bytes as usize]),
            _ => ReadData::Nothing,
        };
        let event = Event {
            device: *device,
            monotonic_ns: self.outside.time_ns(),
            kind: EventKind::Completion(Completion { number, read }),
        };
        let known = outstanding.iter().any(|(_, request)| request.number == number);
        let mut effects = Vec::new();
        let taken = self.devices.event(&event, &self.memory, &mut effects);
        assert!(taken.is_ok() || strange, "{event:?}");
        assert!(taken.is_err() || known, "{event:?}");
        format!("{taken:?} {}", self.leaves(effects))
    }

    fn takers(&self) -> Vec<Taker> {
        let mut takers = Vec::new();
        self.devices
            .takers(&self.memory, DeviceSet::default(), &mut takers);
        takers
    }

    fn interrupt(&mut self) -> String {
        let waits = self.devices.interrupt_pending();
        let vector = self.devices.acknowledge_interrupt();
        assert_eq!(
            vector.is_some(),
            waits,
            "an interrupt that waits can be taken, and no other"
        );
        format!("{vector:?}")
    }

    /// Takes what left, which is bounded.
    fn leaves(&mut self, effects: Vec<Effect>) -> String {
        assert!(effects.len() <= usize::from(QUEUE_SIZE));
        effects.iter().map(|effect| self.left(effect)).collect()
    }

    fn left(&mut self, effect: &Effect) -> String {
        match effect {
            Effect::Output(target, bytes) => {
                self.sent_bytes += bytes.len();
                assert!(!bytes.is_empty() && bytes.len() <= FRAME_BYTES_MAX.max(serial::LINE_BYTES_MAX));
                format!("{target:?} {} bytes {}; ", bytes.len(), Digest::of(bytes))
            }
            Effect::Disk(device, request) => format!("{device} {} {}; ", request.number, request.digest()),
            Effect::DiskDone(device, request) => format!("{device} {} done; ", request.number),
            Effect::PowerOff(status) => format!("off {status}; "),
            Effect::Reset => "reset; ".to_owned(),
        }
    }

    fn check(&self) {
        for taker in self.takers() {
            match taker.takes {
                Takes::Frames { max } => assert!(max <= usize::from(QUEUE_SIZE)),
                Takes::ConsoleInput { bytes_max, .. } => assert!(bytes_max <= serial::LINE_BYTES_MAX),
                Takes::Completions { outstanding } => assert!(outstanding <= IN_FLIGHT_MAX),
                Takes::Expiry { .. } => {}
            }
        }
    }

    /// Digests of everything: of all memory only where all of it may have changed, which takes its
    /// time.
    fn state(&self) -> String {
        let memory = if self.strayed {
            memory::digest(&self.memory).expect("memory that can be read")
        } else {
            let mut used = vec![0; driver::MEMORY_BYTES];
            self.memory
                .read_slice(&mut used, GuestAddress(0))
                .expect("memory");
            Digest::of(&used)
        };
        format!("{:?} memory {memory}", self.devices.digests().expect("digests"))
    }
}

const _: () = assert!(driver::MEMORY_BYTES as u64 <= MEMORY_BYTES_MIN && mmio::REGISTERS == 0x1000);
