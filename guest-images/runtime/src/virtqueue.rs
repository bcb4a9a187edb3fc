//! The driver's side of a split virtqueue (virtio 1.2, section 2.7), one descriptor to a buffer.
//!
//! Descriptor N always stands for buffer N, so there are no chains and no free list of descriptors
//! to keep; [`chains`] is for devices whose requests have several parts. The device reads and
//! writes the shared memory between two instructions of the driver: every shared field is an
//! atomic.

pub mod chains;

use core::sync::atomic::{AtomicU16, AtomicU32, AtomicU64, Ordering};

/// Entries of a queue.
pub const ENTRIES: usize = 256;

/// In the driver's flags: no interrupt, please.
pub const NO_INTERRUPT: u16 = 1;
/// In the device's flags: no notification, please.
const NO_NOTIFY: u16 = 1;
/// In a descriptor's flags: the device writes the buffer.
const DEVICE_WRITES: u16 = 2;

#[derive(Debug)]
#[repr(C)]
struct Descriptor {
    address: AtomicU64,
    length: AtomicU32,
    flags: AtomicU16,
    next: AtomicU16,
}

impl Descriptor {
    const fn none() -> Self {
        Self {
            address: AtomicU64::new(0),
            length: AtomicU32::new(0),
            flags: AtomicU16::new(0),
            next: AtomicU16::new(0),
        }
    }
}

#[derive(Debug)]
#[repr(C)]
struct UsedElement {
    id: AtomicU32,
    length: AtomicU32,
}

impl UsedElement {
    const fn none() -> Self {
        Self {
            id: AtomicU32::new(0),
            length: AtomicU32::new(0),
        }
    }
}

/// What driver and device share: descriptors, the available ring, the used ring.
#[derive(Debug)]
#[repr(C, align(4096))]
pub struct QueueMemory {
    descriptors: [Descriptor; ENTRIES],
    /// Flags of the driver.
    pub available_flags: AtomicU16,
    available_index: AtomicU16,
    available_ring: [AtomicU16; ENTRIES],
    /// The unused event field, and padding to a multiple of 4.
    available_rest: [AtomicU16; 2],
    used_flags: AtomicU16,
    /// Buffers the device has given back so far, modulo 2^16.
    pub used_index: AtomicU16,
    used_ring: [UsedElement; ENTRIES],
}

impl QueueMemory {
    /// An empty queue whose driver wants no interrupts.
    #[must_use]
    #[allow(clippy::new_without_default, reason = "const, for statics")]
    pub const fn new() -> Self {
        Self {
            descriptors: [const { Descriptor::none() }; ENTRIES],
            available_flags: AtomicU16::new(NO_INTERRUPT),
            available_index: AtomicU16::new(0),
            available_ring: [const { AtomicU16::new(0) }; ENTRIES],
            available_rest: [const { AtomicU16::new(0) }; 2],
            used_flags: AtomicU16::new(0),
            used_index: AtomicU16::new(0),
            used_ring: [const { UsedElement::none() }; ENTRIES],
        }
    }

    /// Addresses of the descriptors, the available ring and the used ring.
    #[must_use]
    pub fn addresses(&self) -> [u64; 3] {
        [
            (&raw const self.descriptors).addr() as u64,
            (&raw const self.available_flags).addr() as u64,
            (&raw const self.used_flags).addr() as u64,
        ]
    }
}

/// A buffer the device has given back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Used {
    /// Which buffer.
    pub buffer: u16,
    /// Bytes the device wrote to it.
    pub length: u32,
}

/// Who may touch a buffer, and how.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Direction {
    /// The device writes it.
    Receive,
    /// The device reads it.
    Transmit,
}

/// The driver's side.
#[derive(Debug)]
pub struct Queue<'m> {
    memory: &'m QueueMemory,
    direction: Direction,
    /// Buffers offered so far, modulo 2^16.
    offered: u16,
    /// Of those, told to the device.
    announced: u16,
    /// Buffers taken back so far, modulo 2^16.
    taken: u16,
}

impl<'m> Queue<'m> {
    /// The driver of a queue nobody has used.
    #[must_use]
    pub const fn new(memory: &'m QueueMemory, direction: Direction) -> Self {
        Self {
            memory,
            direction,
            offered: 0,
            announced: 0,
            taken: 0,
        }
    }

    /// Offers `buffer` to the device: `length_bytes` at `address`. A buffer that does not exist is
    /// not offered.
    pub fn offer(&mut self, buffer: u16, address: u64, length_bytes: u32) {
        let Some(descriptor) = self.memory.descriptors.get(usize::from(buffer)) else {
            return;
        };
        let flags = if self.direction == Direction::Receive {
            DEVICE_WRITES
        } else {
            0
        };
        descriptor.address.store(address, Ordering::Relaxed);
        descriptor.length.store(length_bytes, Ordering::Relaxed);
        descriptor.flags.store(flags, Ordering::Relaxed);
        self.publish(buffer);
    }

    /// Puts the descriptor `head` into the available ring.
    fn publish(&mut self, head: u16) {
        let slot = usize::from(self.offered) % ENTRIES;
        if let Some(place) = self.memory.available_ring.get(slot) {
            place.store(head, Ordering::Relaxed);
        }
        self.offered = self.offered.wrapping_add(1);
        self.memory.available_index.store(self.offered, Ordering::Release);
    }

    /// The next buffer the device has given back, left where it is.
    #[must_use]
    pub fn peek(&self) -> Option<Used> {
        if self.memory.used_index.load(Ordering::Acquire) == self.taken {
            return None;
        }
        let element = self.memory.used_ring.get(usize::from(self.taken) % ENTRIES)?;
        Some(Used {
            buffer: element.id.load(Ordering::Relaxed) as u16,
            length: element.length.load(Ordering::Relaxed),
        })
    }

    /// Takes the next buffer the device has given back.
    pub fn take(&mut self) -> Option<Used> {
        let used = self.peek()?;
        self.taken = self.taken.wrapping_add(1);
        Some(used)
    }

    /// Buffers taken back so far, modulo 2^16: the device's used index when there is nothing to
    /// take.
    #[must_use]
    pub const fn taken(&self) -> u16 {
        self.taken
    }

    /// True if at least `threshold` buffers were offered that the device has not been told of, and
    /// it wants to be told. Where it does, the caller tells it: they count as told.
    pub fn announce(&mut self, threshold: u16) -> bool {
        let untold = self.offered.wrapping_sub(self.announced);
        if untold == 0 || untold < threshold {
            return false;
        }
        self.announced = self.offered;
        self.memory.used_flags.load(Ordering::Relaxed) & NO_NOTIFY == 0
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Gives `buffer` back, as a device does.
    pub(crate) fn give_back(memory: &QueueMemory, buffer: u16, length: u32) {
        let index = memory.used_index.load(Ordering::Relaxed);
        let element = &memory.used_ring[usize::from(index) % ENTRIES];
        element.id.store(u32::from(buffer), Ordering::Relaxed);
        element.length.store(length, Ordering::Relaxed);
        memory.used_index.store(index.wrapping_add(1), Ordering::Release);
    }

    #[test]
    fn the_rings_lie_where_the_specification_aligns_them() {
        let memory = QueueMemory::new();

        let [descriptors, available, used] = memory.addresses();

        assert_eq!(descriptors % 16, 0);
        assert_eq!(available - descriptors, 16 * ENTRIES as u64);
        assert_eq!(used % 4, 0);
        assert!(used >= available + 6 + 2 * ENTRIES as u64);
    }

    #[test]
    fn an_offered_buffer_is_in_descriptor_and_ring() {
        let memory = QueueMemory::new();
        let mut queue = Queue::new(&memory, Direction::Receive);

        queue.offer(7, 0x12_3000, 2048);

        let descriptor = &memory.descriptors[7];
        assert_eq!(descriptor.address.load(Ordering::Relaxed), 0x12_3000);
        assert_eq!(descriptor.length.load(Ordering::Relaxed), 2048);
        assert_eq!(descriptor.flags.load(Ordering::Relaxed), DEVICE_WRITES);
        assert_eq!(memory.available_ring[0].load(Ordering::Relaxed), 7);
        assert_eq!(memory.available_index.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn buffers_come_back_in_the_order_of_the_device_over_the_wrap_of_the_index() {
        let memory = QueueMemory::new();
        let mut queue = Queue::new(&memory, Direction::Transmit);

        for round in 0..70_000_u32 {
            let buffer = (round * 7 % 256) as u16;
            queue.offer(buffer, 0, 0);
            assert_eq!(queue.take(), None);
            give_back(&memory, buffer, round);
            assert_eq!(
                queue.take(),
                Some(Used {
                    buffer,
                    length: round
                })
            );
        }

        assert_eq!(queue.taken(), (70_000_u32 % 65_536) as u16);
    }

    #[test]
    fn the_device_is_told_once_it_is_worth_it_and_it_wants_to() {
        let memory = QueueMemory::new();
        let mut queue = Queue::new(&memory, Direction::Transmit);

        assert!(!queue.announce(1));
        queue.offer(0, 0, 0);
        assert!(!queue.announce(2));
        assert!(queue.announce(1));
        assert!(!queue.announce(1));
        queue.offer(1, 0, 0);
        memory.used_flags.store(NO_NOTIFY, Ordering::Relaxed);
        assert!(!queue.announce(1));
    }
}
