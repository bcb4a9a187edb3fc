//! The network device (VIRTIO 1.2, 5.1): one pair of queues, no offloads.

use super::queue::{self, Notify, QUEUE_SIZE, SavedQueue, is_too_long, next_chain, notify, waiting_chains};
use super::{Mmio, Virtio};
use crate::machine::devices::saved::Impossible;
use crate::machine::memory::Memory;
use serde::{Deserialize, Serialize};
use std::io::{Read, Write};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ids::VIRTIO_ID_NET;
use virtio_bindings::virtio_net::VIRTIO_NET_F_MAC;
use virtio_queue::{DescriptorChain, Error, Queue, QueueT};

/// The queue the guest sends from.
pub const TRANSMIT_QUEUE: u32 = 1;
/// The longest frame: 65,536 bytes and an Ethernet header; VIRTIO 1.2, 5.1.6.
pub const FRAME_BYTES_MAX: usize = 65_550;
/// `struct virtio_net_hdr` with `num_buffers`.
const HEADER_BYTES: usize = 12;
/// More than any guest lives to lose: counting on from there never overflows.
const DROPPED_FRAMES_MAX: u64 = 1 << 62;
const NUM_BUFFERS_OFFSET: usize = 10;

/// The device.
pub struct Net {
    mac: [u8; 6],
    receive: Queue,
    transmit: Queue,
    dropped_frames: u64,
}

/// State of the device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedNet {
    mac: [u8; 6],
    receive: SavedQueue,
    transmit: SavedQueue,
    dropped_frames: u64,
}

impl Net {
    /// A device with this address.
    ///
    /// # Errors
    /// Never for the constant queue size; the library's signature.
    pub fn new(mac: [u8; 6]) -> Result<Self, Error> {
        Ok(Self {
            mac,
            receive: Queue::new(QUEUE_SIZE)?,
            transmit: Queue::new(QUEUE_SIZE)?,
            dropped_frames: 0,
        })
    }

    /// Sends what the guest queued: frames are given to `send`.
    ///
    /// # Errors
    /// The queue is not one.
    pub fn transmit(&mut self, memory: &Memory, send: &mut impl FnMut(Vec<u8>)) -> Result<Notify, Error> {
        // At most a queue's worth each time: a guest that adds on cannot hold the vCPU thread here.
        for _ in 0..QUEUE_SIZE {
            let Some(chain) = next_chain(&mut self.transmit, memory)? else {
                break;
            };
            let head = chain.head_index();
            match read_frame(chain, memory) {
                Some(frame) => send(frame),
                None => self.dropped_frames += 1,
            }
            self.transmit.add_used(memory, head, 0)?;
        }
        notify(&mut self.transmit, memory)
    }

    /// Receive buffers the guest has given; 0 when its ring cannot be read.
    #[must_use]
    pub fn receive_buffers(&self, memory: &Memory) -> usize {
        waiting_chains(&self.receive, memory)
    }

    /// Puts a frame into the guest's next receive buffer; drops it where there is none or it does
    /// not fit.
    ///
    /// # Errors
    /// The queue is not one.
    pub fn receive(&mut self, frame: &[u8], memory: &Memory) -> Result<Notify, Error> {
        let Some(chain) = next_chain(&mut self.receive, memory)? else {
            self.dropped_frames += 1;
            return Ok(Notify::No);
        };
        let head = chain.head_index();
        let written_bytes = write_frame(chain, memory, frame);
        if written_bytes == 0 {
            self.dropped_frames += 1;
        }
        self.receive.add_used(memory, head, written_bytes)?;
        notify(&mut self.receive, memory)
    }
}

impl Virtio for Net {
    const DEVICE_ID: u32 = VIRTIO_ID_NET;
    type Made = [u8; 6];
    type Saved = SavedNet;

    fn features(&self) -> u64 {
        1 << VIRTIO_F_VERSION_1 | 1 << VIRTIO_NET_F_MAC
    }

    fn reset(&mut self) {
        self.receive.reset();
        self.transmit.reset();
    }

    fn queue(&self, number: u32) -> Option<&Queue> {
        match number {
            0 => Some(&self.receive),
            TRANSMIT_QUEUE => Some(&self.transmit),
            _ => None,
        }
    }

    fn queue_mut(&mut self, number: u32) -> Option<&mut Queue> {
        match number {
            0 => Some(&mut self.receive),
            TRANSMIT_QUEUE => Some(&mut self.transmit),
            _ => None,
        }
    }

    fn read_configuration(&self, at: u32, size_bytes: u8) -> u64 {
        let byte = |index: u32| self.mac.get(index as usize).copied().unwrap_or(0);
        (0..u32::from(size_bytes.min(8))).fold(0, |value, index| {
            value | u64::from(byte(at.saturating_add(index))) << (8 * index)
        })
    }

    fn saved(&self) -> SavedNet {
        let Self {
            mac,
            receive,
            transmit,
            dropped_frames,
        } = self;
        SavedNet {
            mac: *mac,
            receive: queue::saved(receive),
            transmit: queue::saved(transmit),
            dropped_frames: *dropped_frames,
        }
    }

    fn restore(saved: SavedNet, mac: [u8; 6]) -> Result<Self, Impossible> {
        let SavedNet {
            mac: found,
            receive,
            transmit,
            dropped_frames,
        } = saved;
        let [a, b, c, d, e, f] = found;
        let address = u64::from_be_bytes([0, 0, a, b, c, d, e, f]);
        Impossible::unless(found == mac, "its Ethernet address", address)?;
        Impossible::unless(
            dropped_frames <= DROPPED_FRAMES_MAX,
            "its count of dropped frames",
            dropped_frames,
        )?;
        Ok(Self {
            mac,
            receive: queue::restore(receive)?,
            transmit: queue::restore(transmit)?,
            dropped_frames,
        })
    }
}

impl Mmio<Net> {
    /// Frames that the guest sends, where `queue` has been notified, are given to `send`.
    pub fn transmit(&mut self, queue: u32, memory: &Memory, send: &mut impl FnMut(Vec<u8>)) {
        if queue == TRANSMIT_QUEUE {
            let outcome = self.device.transmit(memory, send);
            self.finish(outcome);
        }
    }

    /// Receive buffers the guest has given.
    #[must_use]
    pub fn receive_buffers(&self, memory: &Memory) -> usize {
        if self.is_live() {
            self.device.receive_buffers(memory)
        } else {
            0
        }
    }

    /// Takes a frame from the network.
    pub fn receive(&mut self, frame: &[u8], memory: &Memory) {
        if self.is_live() {
            let outcome = self.device.receive(frame, memory);
            self.finish(outcome);
        }
    }
}

/// The frame behind the header, or none where the chain holds no frame that may be sent.
fn read_frame(chain: DescriptorChain<&Memory>, memory: &Memory) -> Option<Vec<u8>> {
    if is_too_long(&chain) {
        return None;
    }
    let mut reader = chain.reader(memory).ok()?;
    let length = reader.available_bytes().checked_sub(HEADER_BYTES)?;
    if length == 0 || length > FRAME_BYTES_MAX {
        return None;
    }
    reader.read_exact(&mut [0; HEADER_BYTES]).ok()?;
    let mut frame = vec![0; length];
    reader.read_exact(&mut frame).ok()?;
    Some(frame)
}

/// Bytes written, 0 where the frame does not fit.
fn write_frame(chain: DescriptorChain<&Memory>, memory: &Memory, frame: &[u8]) -> u32 {
    if is_too_long(&chain) {
        return 0;
    }
    let mut header = [0; HEADER_BYTES];
    if let Some(buffers) = header.get_mut(NUM_BUFFERS_OFFSET) {
        *buffers = 1;
    }
    let Ok(mut writer) = chain.writer(memory) else {
        return 0;
    };
    let needed = HEADER_BYTES + frame.len();
    if writer.available_bytes() < needed {
        return 0;
    }
    let written = writer.write_all(&header).and_then(|()| writer.write_all(frame));
    written.map_or(0, |()| needed as u32)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::machine::memory::{self, MEMORY_BYTES_MIN};
    use vm_memory::{Bytes, GuestAddress};

    const TABLE: u64 = 0x1000;
    const AVAILABLE: u64 = 0x2000;
    const USED: u64 = 0x3000;
    const INDIRECT: u64 = 0x10_0000;
    const NEXT: u16 = 1;
    const INDIRECT_FLAG: u16 = 4;

    fn describe(memory: &Memory, place: u64, length: u32, flags: u16, next: u16, buffer: u64) {
        memory.write_obj(buffer, GuestAddress(place)).unwrap();
        memory.write_obj(length, GuestAddress(place + 8)).unwrap();
        memory.write_obj(flags, GuestAddress(place + 12)).unwrap();
        memory.write_obj(next, GuestAddress(place + 14)).unwrap();
    }

    /// Frames that are sent from one chain of so many descriptors of one byte, in an indirect
    /// table.
    fn sent_from_indirect(descriptors: u16) -> Vec<Vec<u8>> {
        let memory = memory::allocate(MEMORY_BYTES_MIN).unwrap();
        for index in 0..descriptors {
            let flags = if index + 1 < descriptors { NEXT } else { 0 };
            describe(
                &memory,
                INDIRECT + 16 * u64::from(index),
                1,
                flags,
                index + 1,
                0x4000,
            );
        }
        describe(
            &memory,
            TABLE,
            16 * u32::from(descriptors),
            INDIRECT_FLAG,
            0,
            INDIRECT,
        );
        memory.write_obj(1_u16, GuestAddress(AVAILABLE + 2)).unwrap();
        let mut net = Net::new([2, 0, 0, 0, 0, 1]).unwrap();
        let queue = net.queue_mut(TRANSMIT_QUEUE).unwrap();
        queue.set_desc_table_address(Some(TABLE as u32), None);
        queue.set_avail_ring_address(Some(AVAILABLE as u32), None);
        queue.set_used_ring_address(Some(USED as u32), None);
        queue.set_ready(true);
        let mut sent = Vec::new();
        net.transmit(&memory, &mut |frame| sent.push(frame)).unwrap();
        assert_eq!(
            memory.read_obj::<u16>(GuestAddress(USED + 2)).unwrap(),
            1,
            "the chain is given back"
        );
        sent
    }

    #[test]
    fn a_chain_longer_than_a_queue_is_not_sent() {
        assert_eq!(
            sent_from_indirect(QUEUE_SIZE),
            [vec![0; usize::from(QUEUE_SIZE) - HEADER_BYTES]]
        );
        assert_eq!(sent_from_indirect(QUEUE_SIZE + 1), Vec::<Vec<u8>>::new());
    }
}
