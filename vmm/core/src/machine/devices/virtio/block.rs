//! The block device (VIRTIO 1.2, 5.2): one queue of requests.
//!
//! ```text
//!   notify ----> chain is read, bytes to be written are copied out, the request gets a number --> door
//!   completion ----> bytes that were read are copied in, status, line; chains that wait are read
//! ```
//!
//! A request that is not done is state: whoever goes on from a saved machine asks for it again.
//! When the driver resets the device, or the guest restarts, what it has asked for is still done,
//! in order, and its completion is taken and changes nothing.

mod chain;
#[cfg(test)]
mod tests;

use super::queue::{self, Notify, QUEUE_SIZE, SavedQueue, next_chain, notify};
use super::{Mmio, Virtio};
use crate::machine::devices::saved::Impossible;
use crate::machine::disk::{
    DiskShape, IN_FLIGHT_BYTES_MAX, IN_FLIGHT_MAX, Operation, REQUEST_BYTES_MAX, Request, SECTOR_BYTES,
    SEGMENT_BYTES_MAX, SEGMENTS_MAX, ZEROED_SECTORS_MAX,
};
use crate::machine::memory::Memory;
use chain::{Asked, OK, PIECES_MAX, Piece};
use lockstep_logging_channel::{Completion, Digest, ReadData};
use serde::{Deserialize, Serialize};
use std::collections::VecDeque;
use virtio_bindings::virtio_blk::{
    VIRTIO_BLK_F_BLK_SIZE, VIRTIO_BLK_F_DISCARD, VIRTIO_BLK_F_FLUSH, VIRTIO_BLK_F_RO, VIRTIO_BLK_F_SEG_MAX,
    VIRTIO_BLK_F_SIZE_MAX, VIRTIO_BLK_F_WRITE_ZEROES,
};
use virtio_bindings::virtio_config::VIRTIO_F_VERSION_1;
use virtio_bindings::virtio_ids::VIRTIO_ID_BLOCK;
use virtio_queue::{Error, Queue, QueueT};
use vm_memory::{Bytes, GuestAddress};

/// The only queue.
const REQUEST_QUEUE: u32 = 0;
/// More requests than any guest lives to make: counting on from there never overflows.
const NUMBER_MAX: u64 = 1 << 62;

/// The device.
pub struct Block {
    shape: DiskShape,
    requests: Queue,
    /// Number of the next request.
    next: u64,
    /// In the order of their numbers.
    outstanding: VecDeque<Outstanding>,
    /// Digest of all requests so far, each behind the digest before it.
    requested: Digest,
}

/// A request that is not done. The order of the fields is that of the saved form.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Outstanding {
    request: Request,
    /// None where the driver has forgotten it.
    chain: Option<Chain>,
}

/// The chain of a request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Chain {
    head: u16,
    /// The place of the bytes that are read, and behind them of the status.
    room: Vec<Piece>,
}

/// State of the device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct SavedBlock {
    shape: DiskShape,
    requests: SavedQueue,
    next: u64,
    outstanding: Vec<Outstanding>,
    requested: Digest,
}

/// A completion of no request that is outstanding, or with other bytes than that one reads.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct NotOutstanding;

impl Block {
    /// A disk of this shape, without a driver.
    ///
    /// # Errors
    /// Never for the constant queue size; the library's signature.
    pub fn new(shape: DiskShape) -> Result<Self, Error> {
        Ok(Self {
            shape,
            requests: Queue::new(QUEUE_SIZE)?,
            next: 0,
            outstanding: VecDeque::new(),
            requested: Digest::default(),
        })
    }

    /// True where a further request may be taken.
    fn has_room(&self) -> bool {
        let carried = self
            .outstanding
            .iter()
            .map(|one| one.request.operation.carried_bytes());
        self.outstanding.len() < IN_FLIGHT_MAX && carried.sum::<u64>() < IN_FLIGHT_BYTES_MAX
    }

    /// Takes chains while there is room; requests are given to `send`.
    fn take(&mut self, memory: &Memory, send: &mut impl FnMut(Request)) -> Result<Notify, Error> {
        let mut answered = Notify::No;
        // At most a queue's worth each time: a guest that adds on cannot hold the vCPU thread here.
        for _ in 0..QUEUE_SIZE {
            if !self.has_room() {
                break;
            }
            let Some(chain) = next_chain(&mut self.requests, memory)? else {
                break;
            };
            let head = chain.head_index();
            match chain::read(chain, memory, &self.shape) {
                Asked::Operation(operation, room) => send(self.number(operation, Chain { head, room })),
                Asked::Answered(written_bytes) => {
                    self.requests.add_used(memory, head, written_bytes)?;
                    answered = notify(&mut self.requests, memory)?;
                }
            }
        }
        Ok(answered)
    }

    /// Gives an operation its number, and keeps it.
    fn number(&mut self, operation: Operation, chain: Chain) -> Request {
        let request = Request {
            number: self.next,
            operation,
        };
        self.next += 1;
        self.requested = Digest::of(&[self.requested.0, request.digest().0].concat());
        self.outstanding.push_back(Outstanding {
            request: request.clone(),
            chain: Some(chain),
        });
        request
    }

    /// The request that this completes, which is outstanding no more.
    fn finished(&mut self, completion: &Completion) -> Result<Outstanding, NotOutstanding> {
        let mut numbers = self.outstanding.iter().map(|one| one.request.number);
        let index = numbers.position(|number| number == completion.number);
        let index = index.ok_or(NotOutstanding)?;
        let operation = self.outstanding.get(index).map(|one| &one.request.operation);
        let fits = match (operation, &completion.read) {
            (Some(Operation::Read { length_bytes, .. }), ReadData::Bytes(bytes)) => {
                bytes.len() == *length_bytes as usize
            }
            (Some(Operation::Read { .. }), _) => false,
            (_, read) => *read == ReadData::Nothing,
        };
        if !fits {
            return Err(NotOutstanding);
        }
        self.outstanding.remove(index).ok_or(NotOutstanding)
    }

    /// Gives a chain back to the driver, and takes those that wait.
    fn answer(
        &mut self,
        chain: &Chain,
        read: &ReadData,
        memory: &Memory,
        send: &mut impl FnMut(Request),
    ) -> Result<Notify, Error> {
        let bytes = match read {
            ReadData::Bytes(bytes) => bytes.as_slice(),
            ReadData::Nothing | ReadData::Digest(_) => &[],
        };
        let written_bytes = write(memory, &chain.room, bytes);
        self.requests.add_used(memory, chain.head, written_bytes)?;
        let finished = notify(&mut self.requests, memory)?;
        let answered = self.take(memory, send)?;
        Ok(if finished == Notify::Yes {
            finished
        } else {
            answered
        })
    }
}

/// Puts what was read into the first pieces, and the status at the end of the last; bytes written.
fn write(memory: &Memory, room: &[Piece], read: &[u8]) -> u32 {
    let mut left = read;
    for piece in room {
        let (now, later) = left.split_at(left.len().min(piece.bytes as usize));
        // They were looked at when the chain was read: memory neither grows nor shrinks.
        let _ = memory.write_slice(now, GuestAddress(piece.address));
        left = later;
    }
    let Some(last) = room.iter().rfind(|piece| piece.bytes > 0) else {
        return 0;
    };
    let status = last.address.saturating_add(u64::from(last.bytes) - 1);
    let _ = memory.write_slice(&[OK], GuestAddress(status));
    read.len() as u32 + 1
}

impl Virtio for Block {
    const DEVICE_ID: u32 = VIRTIO_ID_BLOCK;
    type Made = DiskShape;
    type Saved = SavedBlock;

    fn features(&self) -> u64 {
        let written = if self.shape.read_only {
            1 << VIRTIO_BLK_F_RO
        } else {
            1 << VIRTIO_BLK_F_DISCARD | 1 << VIRTIO_BLK_F_WRITE_ZEROES
        };
        1 << VIRTIO_F_VERSION_1
            | 1 << VIRTIO_BLK_F_SIZE_MAX
            | 1 << VIRTIO_BLK_F_SEG_MAX
            | 1 << VIRTIO_BLK_F_BLK_SIZE
            | 1 << VIRTIO_BLK_F_FLUSH
            | written
    }

    /// What was asked for is done all the same: another driver may read what it writes.
    fn reset(&mut self) {
        self.requests.reset();
        for outstanding in &mut self.outstanding {
            outstanding.chain = None;
        }
    }

    fn queue(&self, number: u32) -> Option<&Queue> {
        (number == REQUEST_QUEUE).then_some(&self.requests)
    }

    fn queue_mut(&mut self, number: u32) -> Option<&mut Queue> {
        (number == REQUEST_QUEUE).then_some(&mut self.requests)
    }

    fn read_configuration(&self, at: u32, size_bytes: u8) -> u64 {
        let configuration = configuration(&self.shape);
        let byte = |index: u32| configuration.get(index as usize).copied().unwrap_or(0);
        (0..u32::from(size_bytes.min(8))).fold(0, |value, index| {
            value | u64::from(byte(at.saturating_add(index))) << (8 * index)
        })
    }

    fn saved(&self) -> SavedBlock {
        let Self {
            shape,
            requests,
            next,
            outstanding,
            requested,
        } = self;
        SavedBlock {
            shape: *shape,
            requests: queue::saved(requests),
            next: *next,
            outstanding: outstanding.iter().cloned().collect(),
            requested: *requested,
        }
    }

    fn restore(saved: SavedBlock, shape: DiskShape) -> Result<Self, Impossible> {
        let SavedBlock {
            shape: found,
            requests,
            next,
            outstanding,
            requested,
        } = saved;
        Impossible::unless(found == shape, "its shape, of so many sectors,", found.sectors)?;
        Impossible::unless(next <= NUMBER_MAX, "the number of its next request", next)?;
        let count = outstanding.len();
        Impossible::unless(
            count <= IN_FLIGHT_MAX,
            "the number of requests that are not done",
            count as u64,
        )?;
        let mut before = None;
        for Outstanding { request, chain } in &outstanding {
            let number = request.number;
            let follows = before < Some(number) && number < next;
            Impossible::unless(follows, "the number of a request that is not done", number)?;
            before = Some(number);
            let possible = request.operation.suits(&shape)
                && chain
                    .as_ref()
                    .is_none_or(|chain| chain.has_room_for(&request.operation));
            Impossible::unless(possible, "what is asked for by the request", number)?;
        }
        let carried = outstanding
            .iter()
            .map(|one| one.request.operation.carried_bytes());
        let carried = carried.sum::<u64>();
        let carried_max = IN_FLIGHT_BYTES_MAX + u64::from(REQUEST_BYTES_MAX);
        Impossible::unless(carried <= carried_max, "the bytes that it is to write", carried)?;
        Ok(Self {
            shape,
            requests: queue::restore(requests)?,
            next,
            outstanding: outstanding.into(),
            requested,
        })
    }
}

impl Chain {
    /// True where it has pieces as the device takes them for this operation.
    fn has_room_for(&self, operation: &Operation) -> bool {
        let room_bytes: u64 = self.room.iter().map(|piece| u64::from(piece.bytes)).sum();
        let fits = match operation {
            Operation::Read { length_bytes, .. } => room_bytes == u64::from(*length_bytes) + 1,
            _ => room_bytes > 0,
        };
        fits && self.head < QUEUE_SIZE && self.room.len() <= PIECES_MAX
    }
}

impl Mmio<Block> {
    /// Takes what the guest asks for, where `queue` has been notified: requests are given to
    /// `send`.
    pub fn take(&mut self, queue: u32, memory: &Memory, send: &mut impl FnMut(Request)) {
        if queue == REQUEST_QUEUE {
            let outcome = self.device.take(memory, send);
            self.finish(outcome);
        }
    }

    /// Takes a completion, and gives its request. Further ones are given to `send`.
    ///
    /// # Errors
    /// [`NotOutstanding`]; nothing has changed then.
    pub fn complete(
        &mut self,
        completion: &Completion,
        memory: &Memory,
        send: &mut impl FnMut(Request),
    ) -> Result<Request, NotOutstanding> {
        let Outstanding { request, chain } = self.device.finished(completion)?;
        if let Some(chain) = chain.filter(|_| self.is_live()) {
            let outcome = self.device.answer(&chain, &completion.read, memory, send);
            self.finish(outcome);
        } else if self.is_live() {
            let outcome = self.device.take(memory, send);
            self.finish(outcome);
        }
        Ok(request)
    }

    /// Requests that are not done, in the order of their numbers.
    pub fn outstanding(&self) -> impl ExactSizeIterator<Item = &Request> {
        self.device.outstanding.iter().map(|one| &one.request)
    }
}

/// `struct virtio_blk_config` (5.2.4) up to what write zeroes has there. Geometry, topology, cache
/// mode and queues belong to features that are not offered.
fn configuration(shape: &DiskShape) -> [u8; 60] {
    let block_sectors = u64::from(shape.block_bytes) / SECTOR_BYTES;
    let fields: [(usize, u32); 10] = [
        (0, shape.sectors as u32),
        (4, (shape.sectors >> 32) as u32),
        (8, SEGMENT_BYTES_MAX),
        (12, SEGMENTS_MAX),
        (20, shape.block_bytes),
        // Discard: sectors and ranges at most, alignment.
        (36, ZEROED_SECTORS_MAX),
        (40, 1),
        (44, block_sectors as u32),
        // Write zeroes: sectors and ranges at most.
        (48, ZEROED_SECTORS_MAX),
        (52, 1),
    ];
    let mut bytes = [0; 60];
    for (at, value) in fields {
        for (to, from) in bytes.iter_mut().skip(at).zip(value.to_le_bytes()) {
            *to = from;
        }
    }
    // Write zeroes may unmap.
    let [.., may_unmap, _, _, _] = &mut bytes;
    *may_unmap = 1;
    bytes
}
