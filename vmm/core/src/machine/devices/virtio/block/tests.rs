//! A driver of the disk.

mod refused;

use super::*;
use crate::machine::memory::{self, MEMORY_BYTES_MIN};

const TABLE: u64 = 0x1000;
const AVAILABLE: u64 = 0x2000;
const USED: u64 = 0x3000;
const HEADER: u64 = 0x4000;
const DATA: u64 = 0x10_0000;
const STATUS: u64 = 0x5000;
const NEXT: u16 = 1;
const WRITABLE: u16 = 2;
const NOTIFY: u64 = 0x50;

const READ: u32 = 0;
const WRITE: u32 = 1;
const FLUSH: u32 = 4;
const SERIAL: u32 = 8;
const DISCARD: u32 = 11;
const ZEROES: u32 = 13;
const IOERR: u8 = 1;
const UNSUPP: u8 = 2;
/// What a test finds where no status was written.
const NONE: u8 = 0xee;

const SHAPE: DiskShape = DiskShape {
    sectors: 1 << 20,
    block_bytes: 512,
    read_only: false,
    serial: *b"lockstep-disk-000001",
};

struct Driver {
    memory: Memory,
    disk: Mmio<Block>,
    /// Chains that were made available; each has descriptors, header, data and status of its own.
    offered: u16,
    sent: Vec<Request>,
}

impl Driver {
    fn of(shape: DiskShape) -> Self {
        let mut driver = Self {
            memory: memory::allocate(MEMORY_BYTES_MIN).unwrap(),
            disk: Mmio::new(Block::new(shape).unwrap()),
            offered: 0,
            sent: Vec::new(),
        };
        driver.set_up();
        driver
    }

    fn new() -> Self {
        Self::of(SHAPE)
    }

    fn set_up(&mut self) {
        self.offered = 0;
        self.memory.write_obj(0_u16, GuestAddress(AVAILABLE + 2)).unwrap();
        self.memory.write_obj(0_u16, GuestAddress(USED + 2)).unwrap();
        let setup = [
            (0x70, 1),
            (0x70, 3),
            (0x24, 1),
            (0x20, 1),
            (0x70, 11),
            (0x30, 0),
            (0x38, 256),
            (0x80, TABLE as u32),
            (0x90, AVAILABLE as u32),
            (0xa0, USED as u32),
            (0x44, 1),
            (0x70, 15),
        ];
        for (offset, value) in setup {
            assert_eq!(self.disk.write(offset, value), None);
        }
        assert_eq!(self.disk.read(0x70, 4), 15, "the features were accepted");
    }

    fn put(&self, address: u64, bytes: &[u8]) {
        self.memory.write_slice(bytes, GuestAddress(address)).unwrap();
    }

    fn get(&self, address: u64, bytes: usize) -> Vec<u8> {
        let mut found = vec![0; bytes];
        self.memory.read_slice(&mut found, GuestAddress(address)).unwrap();
        found
    }

    /// Makes a chain of these descriptors available: address, bytes, flags.
    fn chain(&mut self, descriptors: &[(u64, u32, u16)]) {
        let first = (self.offered * 3) % 200;
        for (index, (address, bytes, flags)) in (first..).zip(descriptors) {
            let last = usize::from(index - first) + 1 == descriptors.len();
            let flags = if last { *flags } else { flags | NEXT };
            let place = GuestAddress(TABLE + 16 * u64::from(index));
            self.memory.write_obj(*address, place).unwrap();
            let place = GuestAddress(TABLE + 16 * u64::from(index) + 8);
            self.memory.write_obj(*bytes, place).unwrap();
            let place = GuestAddress(TABLE + 16 * u64::from(index) + 12);
            self.memory
                .write_obj(u32::from(flags) | u32::from(index + 1) << 16, place)
                .unwrap();
        }
        let slot = GuestAddress(AVAILABLE + 4 + 2 * u64::from(self.offered % 256));
        self.memory.write_obj(first, slot).unwrap();
        self.offered += 1;
        self.memory
            .write_obj(self.offered, GuestAddress(AVAILABLE + 2))
            .unwrap();
    }

    fn header(&self, kind: u32, sector: u64) -> u64 {
        let place = HEADER + 16 * u64::from(self.offered % 64);
        let bytes = [kind.to_le_bytes(), [0; 4]].concat();
        self.put(place, &[bytes, sector.to_le_bytes().to_vec()].concat());
        place
    }

    /// Its status byte.
    fn status_of(&self, ordinal: u16) -> u8 {
        self.get(STATUS + u64::from(ordinal % 64), 1)[0]
    }

    /// Asks for it in three descriptors, and says the ordinal of the chain.
    fn ask(&mut self, kind: u32, sector: u64, data: (u32, u16)) -> u16 {
        let ordinal = self.offered;
        let header = self.header(kind, sector);
        let status = STATUS + u64::from(ordinal % 64);
        self.put(status, &[NONE]);
        self.chain(&[(header, 16, 0), (DATA, data.0, data.1), (status, 1, WRITABLE)]);
        ordinal
    }

    fn notify(&mut self) -> Vec<Request> {
        let mut sent = Vec::new();
        if let Some(queue) = self.disk.write(NOTIFY, 0) {
            self.disk
                .take(queue, &self.memory, &mut |request| sent.push(request));
        }
        self.sent.extend(sent.clone());
        sent
    }

    /// The status of something that is answered at once.
    fn at_once(&mut self, kind: u32, sector: u64, data: (u32, u16)) -> u8 {
        let ordinal = self.ask(kind, sector, data);
        assert_eq!(self.notify(), []);
        assert_eq!(self.used(), self.offered, "the chain is given back");
        self.status_of(ordinal)
    }

    fn read(&mut self, sector: u64, bytes: u32) -> u16 {
        self.ask(READ, sector, (bytes, WRITABLE))
    }

    fn write(&mut self, sector: u64, bytes: u32) -> u16 {
        self.ask(WRITE, sector, (bytes, 0))
    }

    fn used(&self) -> u16 {
        self.memory.read_obj(GuestAddress(USED + 2)).unwrap()
    }

    fn used_bytes(&self, index: u64) -> u32 {
        self.memory
            .read_obj(GuestAddress(USED + 4 + 8 * index + 4))
            .unwrap()
    }

    fn complete(&mut self, number: u64, read: ReadData) -> Result<Vec<Request>, NotOutstanding> {
        let mut sent = Vec::new();
        let completion = Completion { number, read };
        self.disk
            .complete(&completion, &self.memory, &mut |request| sent.push(request))?;
        self.sent.extend(sent.clone());
        Ok(sent)
    }

    fn numbers(&self) -> Vec<u64> {
        self.disk.outstanding().map(|request| request.number).collect()
    }
}

fn write_of(offset_bytes: u64, bytes: Vec<u8>) -> Operation {
    Operation::Write { offset_bytes, bytes }
}

#[test]
fn it_says_what_it_is() {
    let driver = Driver::of(DiskShape {
        sectors: 0x1_0000_0008,
        block_bytes: 4096,
        ..SHAPE
    });
    let read = |at: u64, bytes| driver.disk.read(0x100 + at, bytes);
    assert_eq!(driver.disk.read(8, 4), 2, "its type");
    assert_eq!([read(0, 4), read(4, 4)], [8, 1], "capacity");
    assert_eq!(read(0, 8), 0x1_0000_0008);
    assert_eq!([read(8, 4), read(12, 4), read(20, 4)], [4096, 31, 4096]);
    assert_eq!(
        [36, 40, 44, 48, 52].map(|at| read(at, 4)),
        [1 << 16, 1, 8, 1 << 16, 1]
    );
    assert_eq!((read(56, 1), read(57, 4), read(1000, 4)), (1, 0, 0));
}

#[test]
fn features_say_whether_it_can_be_written() {
    let read_only = DiskShape {
        read_only: true,
        ..SHAPE
    };
    let low = |shape| {
        let mut driver = Driver::of(shape);
        let _ = driver.disk.write(0x14, 0);
        driver.disk.read(0x10, 4)
    };
    let both = 1 << 1 | 1 << 2 | 1 << 6 | 1 << 9;
    assert_eq!(low(SHAPE), both | 1 << 13 | 1 << 14);
    assert_eq!(low(read_only), both | 1 << 5);
}

#[test]
fn written_bytes_are_those_of_the_moment_of_asking() {
    let mut driver = Driver::new();
    driver.put(DATA, &[7; 512]);
    let ordinal = driver.write(3, 512);
    let sent = driver.notify();
    driver.put(DATA, &[8; 512]);
    let request = Request {
        number: 0,
        operation: write_of(3 * 512, vec![7; 512]),
    };
    assert_eq!(sent, [request]);
    assert_eq!(
        (driver.used(), driver.status_of(ordinal)),
        (0, NONE),
        "not before it is done"
    );
    assert!(!driver.disk.line());

    assert_eq!(driver.complete(0, ReadData::Nothing), Ok(vec![]));
    assert_eq!((driver.used(), driver.status_of(ordinal)), (1, OK));
    assert_eq!(driver.used_bytes(0), 1);
    assert!(driver.disk.line());
    assert!(driver.numbers().is_empty());
}

#[test]
fn bytes_that_are_read_come_with_the_completion() {
    let mut driver = Driver::new();
    // In pieces of any length, and with the status in the last.
    let header = driver.header(READ, 8);
    let pieces = [(DATA, 100), (DATA + 0x1000, 400), (DATA + 0x2000, 13)];
    let chain: Vec<_> = pieces.iter().map(|(at, bytes)| (*at, *bytes, WRITABLE)).collect();
    driver.chain(&[vec![(header, 16, 0)], chain].concat());
    let operation = Operation::Read {
        offset_bytes: 4096,
        length_bytes: 512,
    };
    assert_eq!(driver.notify(), [Request { number: 0, operation }]);
    let bytes: Vec<u8> = (0..512).map(|index| index as u8).collect();
    driver.complete(0, ReadData::Bytes(bytes.clone())).unwrap();
    let found = pieces.map(|(at, bytes)| driver.get(at, bytes as usize)).concat();
    assert_eq!((&found[..512], found[512]), (bytes.as_slice(), OK));
    assert_eq!(driver.used_bytes(0), 513);
}

#[test]
fn the_other_operations_are_asked_for_as_they_are() {
    let mut driver = Driver::new();
    let range = |sector: u64, sectors: u32, flags: u32| {
        let words = [sectors.to_le_bytes(), flags.to_le_bytes()].concat();
        [sector.to_le_bytes().to_vec(), words].concat()
    };
    driver.ask(FLUSH, 0, (0, 0));
    driver.put(DATA, &range(4, 8, 0));
    driver.ask(DISCARD, 0, (16, 0));
    let mut operations: Vec<_> = driver.notify();
    for flags in [0, 1] {
        driver.put(DATA, &range(4, 1 << 16, flags));
        driver.ask(ZEROES, 0, (16, 0));
        operations.extend(driver.notify());
    }
    let operations: Vec<_> = operations.into_iter().map(|request| request.operation).collect();
    let zeroes = |may_unmap| Operation::WriteZeroes {
        offset_bytes: 2048,
        length_bytes: 32 << 20,
        may_unmap,
    };
    let discard = Operation::Discard {
        offset_bytes: 2048,
        length_bytes: 4096,
    };
    assert_eq!(
        operations,
        [Operation::Flush, discard, zeroes(false), zeroes(true)]
    );

    for (kind, bytes, status) in [
        (DISCARD, range(4, 8, 1), UNSUPP),
        (ZEROES, range(4, 8, 2), UNSUPP),
        (ZEROES, range(4, 0, 0), IOERR),
        (ZEROES, range(4, (1 << 16) + 1, 0), IOERR),
        (ZEROES, range(1 << 20, 1, 0), IOERR),
        (DISCARD, range(u64::MAX, 1, 0), IOERR),
        (DISCARD, range(4, 8, 0)[..15].to_vec(), IOERR),
        (DISCARD, [range(4, 8, 0), range(12, 8, 0)].concat(), IOERR),
    ] {
        driver.put(DATA, &bytes);
        let ordinal = driver.ask(kind, 0, (bytes.len() as u32, 0));
        assert_eq!(driver.notify(), []);
        assert_eq!(driver.status_of(ordinal), status, "{kind} {bytes:?}");
    }
}

#[test]
fn the_serial_number_is_given_at_once() {
    let mut driver = Driver::new();
    assert_eq!(driver.at_once(SERIAL, 0, (20, WRITABLE)), OK);
    assert_eq!(driver.get(DATA, 21), b"lockstep-disk-000001\0");
    assert_eq!(driver.used_bytes(0), 21);
    driver.put(DATA, &[0; 20]);
    assert_eq!(driver.at_once(SERIAL, 0, (4, WRITABLE)), OK);
    assert_eq!(driver.get(DATA, 5), b"lock\0");
    assert_eq!(driver.at_once(SERIAL, 0, (100, WRITABLE)), OK);
    assert_eq!(driver.get(DATA + 20, 1), [0]);
}

#[test]
fn no_more_are_outstanding_than_may_be_and_the_rest_waits_in_the_ring() {
    let mut driver = Driver::new();
    for sector in 0..70 {
        driver.read(sector, 512);
    }
    assert_eq!(driver.notify().len(), IN_FLIGHT_MAX);
    assert_eq!(driver.notify(), []);
    let next = driver.complete(5, ReadData::Bytes(vec![0; 512])).unwrap();
    let numbers = |requests: &[Request]| requests.iter().map(|request| request.number).collect::<Vec<_>>();
    assert_eq!(numbers(&next), [64]);
    assert_eq!(driver.numbers().len(), IN_FLIGHT_MAX);
}

#[test]
fn written_bytes_that_are_not_done_are_bounded() {
    let mut driver = Driver::new();
    for _ in 0..20 {
        driver.write(0, REQUEST_BYTES_MAX);
    }
    let taken = driver.notify().len() as u64;
    assert_eq!(taken, IN_FLIGHT_BYTES_MAX.div_ceil(REQUEST_BYTES_MAX.into()));
    assert_eq!(driver.complete(0, ReadData::Nothing).unwrap().len(), 1);
}

#[test]
fn what_was_asked_before_a_reset_is_done_and_changes_nothing() {
    let mut driver = Driver::new();
    driver.read(0, 512);
    driver.write(8, 512);
    driver.notify();
    let _ = driver.disk.write(0x70, 0);
    driver.set_up();
    driver.put(DATA, &[0xaa; 512]);
    driver.write(8, 512);
    let sent = driver.notify();
    assert_eq!(sent[0].number, 2, "numbers go on");
    assert_eq!(driver.numbers(), [0, 1, 2], "all of them are to be done");
    driver.complete(0, ReadData::Bytes(vec![7; 512])).unwrap();
    driver.complete(1, ReadData::Nothing).unwrap();
    assert_eq!(driver.get(DATA, 512), [0xaa; 512]);
    assert_eq!(driver.used(), 0);
    assert!(!driver.disk.line());
    driver.complete(2, ReadData::Nothing).unwrap();
    assert_eq!(driver.used(), 1);
}

#[test]
fn chains_wait_for_what_was_asked_before_a_reset() {
    let mut driver = Driver::new();
    for sector in 0..64 {
        driver.read(sector, 512);
    }
    driver.notify();
    let _ = driver.disk.write(0x70, 0);
    driver.set_up();
    driver.write(0, 512);
    assert_eq!(driver.notify(), []);
    let sent = driver.complete(0, ReadData::Bytes(vec![0; 512])).unwrap();
    assert_eq!(sent.len(), 1);
}

#[test]
fn it_is_saved_with_what_is_outstanding() {
    let mut driver = Driver::new();
    driver.read(0, 512);
    driver.put(DATA, &[7; 512]);
    driver.write(8, 512);
    driver.notify();
    let encoded = postcard::to_stdvec(&driver.disk.saved()).unwrap();
    let saved: crate::machine::devices::virtio::mmio::SavedMmio<SavedBlock> =
        postcard::from_bytes(&encoded).unwrap();
    driver.disk = Mmio::restore(saved, SHAPE).unwrap();
    let outstanding: Vec<_> = driver.disk.outstanding().cloned().collect();
    assert_eq!(outstanding, driver.sent);
    driver.complete(1, ReadData::Nothing).unwrap();
    driver.complete(0, ReadData::Bytes(vec![9; 512])).unwrap();
    assert_eq!(driver.get(DATA, 512), [9; 512]);
    assert_eq!(driver.used(), 2);
}

#[test]
fn its_state_tells_what_was_written_apart() {
    let states = [7, 8].map(|byte| {
        let mut driver = Driver::new();
        driver.put(DATA, &[byte; 512]);
        driver.write(8, 512);
        driver.notify();
        driver.complete(0, ReadData::Nothing).unwrap();
        driver.disk.saved()
    });
    assert_ne!(states[0], states[1]);
}
