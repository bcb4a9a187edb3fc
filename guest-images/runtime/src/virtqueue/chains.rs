//! Chains of descriptors: requests whose parts are in several places.
//!
//! The links of the chains, and of the descriptors that are free, are also kept outside of the
//! shared memory: what is freed does not depend on what the device left there.

use super::{DEVICE_WRITES, Direction, ENTRIES, Queue, QueueMemory, Used};
use core::sync::atomic::Ordering;

/// In a descriptor's flags: the chain goes on at `next`.
const NEXT: u16 = 1;

/// One part of a chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Segment {
    /// Its address.
    pub address: u64,
    /// Its length.
    pub length_bytes: u32,
    /// Side that writes it.
    pub direction: Direction,
}

/// The driver's side of a queue of chains.
#[derive(Debug)]
pub struct Chains<'m> {
    queue: Queue<'m>,
    /// The descriptor behind each, in its chain or among the free ones.
    next: [u16; ENTRIES],
    /// Descriptors of the chain that begins with each; 0 where none does.
    lengths: [u16; ENTRIES],
    first_free: u16,
    free: u16,
}

impl<'m> Chains<'m> {
    /// The driver of a queue nobody has used.
    #[must_use]
    pub fn new(memory: &'m QueueMemory) -> Self {
        Self {
            // The direction is that of each segment.
            queue: Queue::new(memory, Direction::Transmit),
            next: core::array::from_fn(|index| (index as u16 + 1) % ENTRIES as u16),
            lengths: [0; ENTRIES],
            first_free: 0,
            free: ENTRIES as u16,
        }
    }

    /// Descriptors that are free.
    #[must_use]
    pub const fn free(&self) -> usize {
        self.free as usize
    }

    /// Offers a chain to the device, and gives the descriptor that it begins with. None where it is
    /// empty, or where not enough descriptors are free.
    pub fn offer(&mut self, segments: &[Segment]) -> Option<u16> {
        if segments.is_empty() || segments.len() > self.free() {
            return None;
        }
        let head = self.first_free;
        let mut place = head;
        for (index, segment) in segments.iter().enumerate() {
            let is_last = index + 1 == segments.len();
            let behind = *self.next.get(usize::from(place))?;
            let descriptor = self.queue.memory.descriptors.get(usize::from(place))?;
            let written = if segment.direction == Direction::Receive {
                DEVICE_WRITES
            } else {
                0
            };
            let flags = if is_last { written } else { written | NEXT };
            descriptor.address.store(segment.address, Ordering::Relaxed);
            descriptor.length.store(segment.length_bytes, Ordering::Relaxed);
            descriptor.flags.store(flags, Ordering::Relaxed);
            descriptor
                .next
                .store(if is_last { 0 } else { behind }, Ordering::Relaxed);
            place = behind;
        }
        let length = segments.len() as u16;
        self.first_free = place;
        self.free -= length;
        *self.lengths.get_mut(usize::from(head))? = length;
        self.queue.publish(head);
        Some(head)
    }

    /// True if the device has given a chain back that was not taken yet.
    #[must_use]
    pub fn has_used(&self) -> bool {
        self.queue.peek().is_some()
    }

    /// Takes the next chain that the device has given back; its descriptors are free again. What no
    /// chain begins with is passed over.
    pub fn take(&mut self) -> Option<Used> {
        while let Some(used) = self.queue.take() {
            if self.release(used.buffer).is_some() {
                return Some(used);
            }
        }
        None
    }

    /// True if something was offered that the device has to be told of; then it counts as told.
    pub fn announce(&mut self) -> bool {
        self.queue.announce(1)
    }

    fn release(&mut self, head: u16) -> Option<()> {
        let length = self.lengths.get_mut(usize::from(head))?;
        if *length == 0 {
            return None;
        }
        let length = core::mem::take(length);
        let mut last = head;
        for _ in 1..length {
            last = *self.next.get(usize::from(last))?;
        }
        *self.next.get_mut(usize::from(last))? = self.first_free;
        self.first_free = head;
        self.free += length;
        Some(())
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// The device's side, as little of it as a test needs.
    pub(crate) struct Device<'m> {
        memory: &'m QueueMemory,
        seen: u16,
    }

    impl<'m> Device<'m> {
        pub(crate) fn new(memory: &'m QueueMemory) -> Self {
            Self { memory, seen: 0 }
        }

        /// The next chain that was offered: where it begins, and its parts.
        pub(crate) fn next_chain(&mut self) -> Option<(u16, Vec<Segment>)> {
            if self.memory.available_index.load(Ordering::Acquire) == self.seen {
                return None;
            }
            let slot = usize::from(self.seen) % ENTRIES;
            let head = self.memory.available_ring[slot].load(Ordering::Relaxed);
            self.seen = self.seen.wrapping_add(1);
            let (mut place, mut segments) = (head, Vec::new());
            loop {
                let descriptor = &self.memory.descriptors[usize::from(place)];
                let flags = descriptor.flags.load(Ordering::Relaxed);
                segments.push(Segment {
                    address: descriptor.address.load(Ordering::Relaxed),
                    length_bytes: descriptor.length.load(Ordering::Relaxed),
                    direction: if flags & DEVICE_WRITES == 0 {
                        Direction::Transmit
                    } else {
                        Direction::Receive
                    },
                });
                if flags & NEXT == 0 {
                    return Some((head, segments));
                }
                place = descriptor.next.load(Ordering::Relaxed);
            }
        }

        /// Gives a chain back.
        pub(crate) fn give_back(&self, head: u16, length: u32) {
            super::super::tests::give_back(self.memory, head, length);
        }
    }

    fn parts(count: usize, mark: u64) -> Vec<Segment> {
        let part = |index: usize| Segment {
            address: mark + 0x1000 * index as u64,
            length_bytes: index as u32 + 1,
            direction: if index == 0 {
                Direction::Transmit
            } else {
                Direction::Receive
            },
        };
        (0..count).map(part).collect()
    }

    #[test]
    fn the_device_finds_a_chain_as_it_was_offered() {
        let memory = QueueMemory::new();
        let mut chains = Chains::new(&memory);
        let mut device = Device::new(&memory);

        let first = chains.offer(&parts(3, 1 << 20)).unwrap();
        let second = chains.offer(&parts(33, 2 << 20)).unwrap();

        assert_eq!(device.next_chain(), Some((first, parts(3, 1 << 20))));
        assert_eq!(device.next_chain(), Some((second, parts(33, 2 << 20))));
        assert_eq!(device.next_chain(), None);
    }

    #[test]
    fn descriptors_are_lent_and_come_back_in_any_order() {
        let memory = QueueMemory::new();
        let mut chains = Chains::new(&memory);
        let mut device = Device::new(&memory);
        let mut out = Vec::new();

        for round in 0..20_000_usize {
            let wanted = parts(1 + round * 7 % 33, round as u64);
            if chains.free() >= wanted.len() {
                let head = chains.offer(&wanted).unwrap();
                assert_eq!(device.next_chain(), Some((head, wanted.clone())));
                out.push((head, wanted.len()));
            } else {
                assert_eq!(chains.offer(&wanted), None, "round {round}");
                let (head, _) = out.swap_remove(round * 5 % out.len());
                device.give_back(head, 1);
                assert_eq!(chains.take().map(|used| used.buffer), Some(head));
            }
            let lent: usize = out.iter().map(|(_, length)| length).sum();
            assert_eq!(chains.free() + lent, ENTRIES);
        }
    }

    #[test]
    fn what_no_chain_begins_with_is_passed_over() {
        let memory = QueueMemory::new();
        let mut chains = Chains::new(&memory);
        let device = Device::new(&memory);
        let head = chains.offer(&parts(3, 0)).unwrap();

        device.give_back(head + 1, 0);
        device.give_back(999, 0);
        device.give_back(head, 5);

        assert_eq!(
            chains.take().map(|used| (used.buffer, used.length)),
            Some((head, 5))
        );
        assert_eq!(chains.take(), None);
        assert_eq!(chains.free(), ENTRIES);
    }

    #[test]
    fn an_empty_chain_is_not_offered() {
        let memory = QueueMemory::new();

        assert_eq!(Chains::new(&memory).offer(&[]), None);
    }
}
