//! The guest's side of a virtio device: rings at fixed places, filled with good and bad
//! descriptors (VIRTIO 1.2, 2.7).
//!
//! ```text
//!   0x1000 + 0x4000 q   descriptor table, 256 × 16 bytes
//!   0x2000 + 0x4000 q   available ring
//!   0x3000 + 0x4000 q   used ring
//!   0x9000              a table for indirect descriptors
//!   0xA000 to 0x20000   buffers
//! ```

use lockstep_core::machine::devices::board::Kind;
use lockstep_core::machine::devices::board::small::NETWORK_ADDRESS;
use lockstep_core::machine::devices::virtio::mmio;
use lockstep_core::machine::devices::virtio::net::FRAME_BYTES_MAX;
use lockstep_core::machine::devices::virtio::queue::QUEUE_SIZE;
use lockstep_core::machine::memory::Memory;
use vm_memory::{Bytes, GuestAddress};

use super::super::input::Input;

/// Memory that holds everything here.
pub const MEMORY_BYTES: usize = 0x2_0000;

/// Address of the entropy device of a PC.
const ENTROPY_ADDRESS: u64 = NETWORK_ADDRESS + mmio::REGISTERS;

/// Address of its disk.
const DISK_ADDRESS: u64 = ENTROPY_ADDRESS + mmio::REGISTERS;

/// Offset of the register by which the driver tells of chains.
pub const NOTIFY: u64 = 0x50;

const INDIRECT_TABLE: u64 = 0x9000;
const BUFFERS: u64 = 0xa000;
const QUEUE_BYTES: u64 = 0x4000;
const DESCRIPTOR_BYTES: u64 = 16;

/// Chains offered at once, at most: more than a queue has entries.
const OFFERED_MAX: u16 = 2 * QUEUE_SIZE;

fn table(queue: u64) -> u64 {
    0x1000 + QUEUE_BYTES * queue
}

fn available_ring(queue: u64) -> u64 {
    table(queue) + 0x1000
}

fn used_ring(queue: u64) -> u64 {
    table(queue) + 0x2000
}

/// Address of the device that an access is to: on the small board there is only one.
pub fn device(kind: Kind, input: &mut Input<'_>) -> u64 {
    match kind {
        Kind::Small => NETWORK_ADDRESS,
        Kind::Pc => input.pick(&[NETWORK_ADDRESS, ENTROPY_ADDRESS, DISK_ADDRESS]),
    }
}

/// A register of the device at `address`, or near to one.
pub fn register(address: u64, input: &mut Input<'_>) -> u64 {
    const REGISTERS: [u64; 28] = [
        0x00, 0x04, 0x08, 0x0c, 0x10, 0x14, 0x20, 0x24, 0x30, 0x34, 0x38, 0x44, 0x50, 0x60, 0x64, 0x70, 0x80,
        0x84, 0x90, 0x94, 0xa0, 0xa4, 0xfc, 0x100, 0x104, 0x105, 0xfff, 0x1000,
    ];
    match input.byte() {
        0xff => address + u64::from(input.word()),
        choice => address + REGISTERS[usize::from(choice) % REGISTERS.len()],
    }
}

/// The register writes by which a driver begins: status, features, both queues. `true` where a ring
/// is elsewhere.
pub fn configuration(address: u64, input: &mut Input<'_>) -> (Vec<(u64, u64)>, bool) {
    let faults = input.byte();
    let has = |bit: u8| faults & 1 << bit != 0;
    let mut writes = vec![
        (0x70, 0),
        (0x70, 1),
        (0x70, 3),
        (0x24, 1),
        (0x20, 1),
        (0x24, 0),
        (0x20, if address == NETWORK_ADDRESS { 1 << 5 } else { 0 }),
    ];
    if has(0) {
        writes.extend([
            (0x24, u64::from(input.byte() & 3)),
            (0x20, u64::from(input.long())),
        ]);
    }
    writes.push((0x70, if has(1) { u64::from(input.long()) } else { 11 }));
    let size = if has(2) {
        u64::from(input.word())
    } else {
        u64::from(QUEUE_SIZE)
    };
    for queue in 0..2 {
        let moved = if has(3) { input.quad() } else { 0 };
        let rings = [
            (0x80, table(queue)),
            (0x90, available_ring(queue)),
            (0xa0, used_ring(queue) ^ moved),
        ];
        writes.extend([(0x30, queue), (0x38, size)]);
        rings
            .iter()
            .for_each(|(low, place)| writes.extend([(*low, place & 0xffff_ffff), (low + 4, place >> 32)]));
        writes.push((0x44, u64::from(!has(4) || queue == 0)));
    }
    writes.push((0x70, if has(5) { u64::from(input.byte()) } else { 15 }));
    (
        writes
            .into_iter()
            .map(|(offset, value)| (address + offset, value))
            .collect(),
        has(3),
    )
}

/// An address among the rings and buffers, or any at all.
pub fn address(input: &mut Input<'_>, strayed: &mut bool) -> u64 {
    match input.byte() % 8 {
        0 => table(0) + u64::from(input.word() & 0x7fff),
        1..=5 => BUFFERS + u64::from(input.word()),
        6 => {
            *strayed = true;
            u64::from(input.long())
        }
        _ => {
            *strayed = true;
            input.quad()
        }
    }
}

/// A descriptor, and where it is to stand.
pub fn descriptor(input: &mut Input<'_>, strayed: &mut bool) -> (u64, [u8; 16]) {
    let place = match input.byte() % 8 {
        0..=2 => table(0),
        3..=5 => table(1),
        _ => INDIRECT_TABLE,
    };
    let index = u64::from(input.byte());
    let at = if input.byte() % 8 == 7 {
        INDIRECT_TABLE
    } else {
        address(input, strayed)
    };
    let length = match input.byte() % 8 {
        0 => 12,
        1 => 72,
        2 => 1526,
        3 => FRAME_BYTES_MAX as u32 + 12,
        4 => u32::from(input.byte()),
        5 => DESCRIPTOR_BYTES as u32 * u32::from(input.word()),
        6 => u32::from(input.word()),
        _ => input.long(),
    };
    let flags = input.pick(&[0_u16, 0, 1, 1, 2, 3, 4, 5, 0xffff]);
    let next = if input.byte() % 4 == 3 {
        input.word()
    } else {
        index as u16 + 1
    };
    let mut descriptor = [0; 16];
    descriptor[..8].copy_from_slice(&at.to_le_bytes());
    descriptor[8..12].copy_from_slice(&length.to_le_bytes());
    descriptor[12..14].copy_from_slice(&flags.to_le_bytes());
    descriptor[14..].copy_from_slice(&next.to_le_bytes());
    (place + DESCRIPTOR_BYTES * index, descriptor)
}

/// The writes that make chains of a queue available, and the number of the queue.
pub fn offer(input: &mut Input<'_>, memory: &Memory) -> (u64, Vec<(u64, [u8; 2])>) {
    let choice = input.byte();
    let queue = u64::from(choice & 1);
    let ring = available_ring(queue);
    let mut index = memory.read_obj::<u16>(GuestAddress(ring + 2)).unwrap_or(0);
    let count = if choice & 2 == 0 {
        1
    } else {
        input.word() % OFFERED_MAX
    };
    let (head, step) = (u16::from(input.byte()), u16::from(choice >> 2 & 1));
    let mut writes = Vec::new();
    for offered in 0..count {
        let slot = u64::from(index % QUEUE_SIZE);
        writes.push((
            ring + 4 + 2 * slot,
            head.wrapping_add(step * offered).to_le_bytes(),
        ));
        index = index.wrapping_add(1);
    }
    let suppressed = u16::from(choice >> 3 & 1);
    writes.extend([(ring, suppressed.to_le_bytes()), (ring + 2, index.to_le_bytes())]);
    (
        if choice & 16 == 0 {
            queue
        } else {
            u64::from(input.byte())
        },
        writes,
    )
}
