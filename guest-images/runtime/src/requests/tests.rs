//! Requests, with a disk in memory at the other end of the queue.

use super::*;
use crate::virtqueue::chains::tests::Device;
use core::ptr::{with_exposed_provenance, with_exposed_provenance_mut};

/// A disk in memory, at the other end of the queue.
struct Disk<'m> {
    device: Device<'m>,
    content: Vec<u8>,
}

fn bytes(segment: &Segment) -> &[u8] {
    let start = with_exposed_provenance(segment.address as usize);
    // SAFETY: the driver has lent it.
    unsafe { std::slice::from_raw_parts(start, segment.length_bytes as usize) }
}

fn put(segment: &Segment, bytes: &[u8]) {
    assert_eq!(segment.direction, Direction::Receive);
    let start = with_exposed_provenance_mut::<u8>(segment.address as usize);
    // SAFETY: the driver has lent it, to be written.
    unsafe { start.copy_from(bytes.as_ptr(), bytes.len()) };
}

fn number(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .rev()
        .fold(0, |sum, byte| sum << 8 | u64::from(*byte))
}

impl Disk<'_> {
    /// Carries out the next request, without giving it back.
    fn take(&mut self) -> Option<u16> {
        let (head, segments) = self.device.next_chain()?;
        let (first, rest) = segments.split_first().unwrap();
        let (status, middle) = rest.split_last().unwrap();
        assert_eq!(first.length_bytes, 16);
        let code = number(&bytes(first)[..4]);
        let mut at = number(&bytes(first)[8..]) as usize * SECTOR_BYTES;
        let mut outcome = 0;
        for segment in middle {
            assert!(segment.length_bytes as usize <= SEGMENT_BYTES_MAX);
            let end = at + segment.length_bytes as usize;
            match code {
                0 => put(segment, &self.content[at..end]),
                1 => self.content[at..end].copy_from_slice(bytes(segment)),
                8 => put(segment, b"a serial number\0\0\0\0\0"),
                11 | 13 => {
                    let range = bytes(segment);
                    let from = number(&range[..8]) as usize * SECTOR_BYTES;
                    let length = number(&range[8..12]) as usize * SECTOR_BYTES;
                    self.content[from..from + length].fill(0);
                    outcome = number(&range[12..]) as u8;
                }
                _ => outcome = 2,
            }
            at = end;
        }
        put(status, &[outcome]);
        Some(head)
    }

    fn serve(&mut self) {
        while let Some(head) = self.take() {
            self.device.give_back(head, 1);
        }
    }
}

fn disk(memory: &QueueMemory) -> (Requests<'_>, Disk<'_>) {
    let disk = Disk {
        device: Device::new(memory),
        content: vec![0; 1 << 20],
    };
    (Requests::new(memory), disk)
}

fn request(operation: Operation, buffer: Vec<u8>, mark: u64) -> Request {
    Request {
        operation,
        buffer,
        mark,
    }
}

#[test]
fn what_was_written_is_read() {
    let memory = QueueMemory::new();
    let (mut requests, mut disk) = disk(&memory);
    let content: Vec<u8> = (0..BUFFER_BYTES_MAX).map(|index| (index * 7) as u8).collect();

    let write = request(Operation::Write { sector: 3 }, content.clone(), 1);
    requests.submit(write).unwrap();
    assert!(requests.announce());
    disk.serve();
    assert_eq!(requests.complete().unwrap().result, Ok(()));
    let room = vec![0; BUFFER_BYTES_MAX];
    requests
        .submit(request(Operation::Read { sector: 3 }, room, 2))
        .unwrap();
    disk.serve();
    let done = requests.complete().unwrap();

    assert_eq!((done.request.mark, done.request.buffer == content), (2, true));
    assert_eq!(requests.complete(), None);
}

#[test]
fn ranges_and_serial_numbers_have_their_own_form() {
    let memory = QueueMemory::new();
    let (mut requests, mut disk) = disk(&memory);
    disk.content.fill(9);
    let zeroes = Operation::WriteZeroes {
        sector: 2,
        sectors: 3,
        may_unmap: true,
    };
    let discard = Operation::Discard {
        sector: 8,
        sectors: 1,
    };

    for operation in [zeroes, discard, Operation::Flush] {
        requests.submit(request(operation, Vec::new(), 0)).unwrap();
    }
    requests
        .submit(request(Operation::Identify, vec![0; SERIAL_BYTES], 0))
        .unwrap();
    disk.serve();

    // This disk answers with the flags of the range.
    assert_eq!(requests.complete().unwrap().result, Err(Failed::Error));
    assert_eq!(requests.complete().unwrap().result, Ok(()));
    assert_eq!(requests.complete().unwrap().result, Ok(()));
    let serial = requests.complete().unwrap().request.buffer;
    assert!(serial.starts_with(b"a serial number\0"));
    let is_zero = |sector: usize| disk.content[sector * SECTOR_BYTES..][..SECTOR_BYTES] == [0; SECTOR_BYTES];
    let zero: Vec<usize> = (0..10).filter(|sector| is_zero(*sector)).collect();
    assert_eq!(zero, [2, 3, 4, 8]);
}

#[test]
fn no_more_are_on_their_way_than_there_is_room_for() {
    let memory = QueueMemory::new();
    let (mut requests, mut disk) = disk(&memory);
    let flush = |mark| request(Operation::Flush, Vec::new(), mark);

    for mark in 0..IN_FLIGHT_MAX as u64 {
        requests.submit(flush(mark)).unwrap();
    }
    assert_eq!(requests.submit(flush(99)), Err(flush(99)));
    disk.serve();
    let done: Vec<u64> = core::iter::from_fn(|| requests.complete())
        .map(|done| done.request.mark)
        .collect();
    assert!(done.into_iter().eq(0..IN_FLIGHT_MAX as u64));

    // 256 descriptors hold seven of the longest.
    let read = |mark| request(Operation::Read { sector: 0 }, vec![0; BUFFER_BYTES_MAX], mark);
    let fitting = (0..9).filter(|mark| requests.submit(read(*mark)).is_ok()).count();
    assert_eq!((fitting, requests.in_flight()), (7, 7));
}

#[test]
fn a_buffer_that_is_too_long_is_never_submitted() {
    let memory = QueueMemory::new();
    let (mut requests, _) = disk(&memory);
    let long = request(Operation::Write { sector: 0 }, vec![0; BUFFER_BYTES_MAX + 1], 0);

    assert!(requests.submit(long).is_err());
    assert_eq!(requests.in_flight(), 0);
}

#[test]
fn requests_that_end_in_another_order_are_told_apart() {
    let memory = QueueMemory::new();
    let (mut requests, mut disk) = disk(&memory);
    for mark in 0..3 {
        requests
            .submit(request(Operation::Read { sector: mark }, vec![0; 512], mark))
            .unwrap();
    }
    let heads: Vec<u16> = core::iter::from_fn(|| disk.take()).collect();

    for index in [1, 2, 0] {
        disk.device.give_back(heads[index], 513);
        assert_eq!(requests.complete().unwrap().request.mark, index as u64);
    }
}
