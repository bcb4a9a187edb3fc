//! Requests of a disk on their way (virtio 1.2, section 5.2.6): what the driver lends to the
//! device, and gets back.
//!
//! ```text
//!   submit ─► chain: head (16 bytes) ─ buffer in pieces of 4 KiB ─ status (1 byte) ─► device
//!   complete ◄───────────────────────────────────────────────────── used ring ◄──────┘
//! ```
//!
//! A request owns its buffer until it is complete. At most [`IN_FLIGHT_MAX`] are on their way, and
//! as many as have room in the queue.
#![allow(unsafe_code)]

use crate::virtqueue::chains::{Chains, Segment};
use crate::virtqueue::{Direction, QueueMemory};
use alloc::boxed::Box;
use alloc::vec::Vec;
use core::cell::UnsafeCell;
use core::sync::atomic::{AtomicU8, Ordering, fence};

/// Requests on their way at a time: as many as the device works on.
pub const IN_FLIGHT_MAX: usize = 64;
/// Bytes of one piece of a buffer (SIZE_MAX of the device).
pub const SEGMENT_BYTES_MAX: usize = 4096;
/// Pieces of one buffer (SEG_MAX of the device).
pub const SEGMENTS_MAX: usize = 31;
/// Bytes of the longest buffer: 126,976.
pub const BUFFER_BYTES_MAX: usize = SEGMENT_BYTES_MAX * SEGMENTS_MAX;
/// Bytes of a sector, by which the device counts whatever its blocks are.
pub const SECTOR_BYTES: usize = 512;
/// Bytes of a serial number.
pub const SERIAL_BYTES: usize = 20;

/// Parts of a chain beside the buffer: head and status.
const PARTS_MAX: usize = SEGMENTS_MAX + 2;
/// A status that the device never writes.
const NO_STATUS: u8 = 0xFF;

/// Properties of a disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    /// Sectors of 512 bytes.
    pub sectors: u64,
    /// Bytes of a block: requests begin and end where one does.
    pub block_bytes: u32,
    /// It cannot be written.
    pub read_only: bool,
    /// Sectors that one request may discard; 0 where it cannot.
    pub discard_sectors_max: u32,
    /// Sectors that one request may fill with zeros; 0 where it cannot.
    pub zeroed_sectors_max: u32,
    /// Serial number, padded with zeros.
    pub serial: [u8; SERIAL_BYTES],
}

impl Shape {
    /// Bytes of the whole disk.
    #[must_use]
    pub const fn bytes(&self) -> u64 {
        self.sectors.saturating_mul(SECTOR_BYTES as u64)
    }

    /// The serial number as text; empty where it is none.
    #[must_use]
    pub fn serial(&self) -> &str {
        let text = self.serial.split(|byte| *byte == 0).next().unwrap_or_default();
        core::str::from_utf8(text).unwrap_or_default()
    }
}

/// Operation that a disk is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Fills the buffer with what is at a sector.
    Read {
        /// The first one.
        sector: u64,
    },
    /// Writes the buffer from a sector on.
    Write {
        /// The first one.
        sector: u64,
    },
    /// Makes durable what was written before.
    Flush,
    /// Fills the buffer with the serial number, [`SERIAL_BYTES`] long.
    Identify,
    /// Gives up the content of some sectors.
    Discard {
        /// The first one.
        sector: u64,
        /// Their number.
        sectors: u32,
    },
    /// Fills some sectors with zeros.
    WriteZeroes {
        /// The first one.
        sector: u64,
        /// Their number.
        sectors: u32,
        /// The disk may give up the room that they take.
        may_unmap: bool,
    },
}

impl Operation {
    const fn code(self) -> u32 {
        match self {
            Self::Read { .. } => 0,
            Self::Write { .. } => 1,
            Self::Flush => 4,
            Self::Identify => 8,
            Self::Discard { .. } => 11,
            Self::WriteZeroes { .. } => 13,
        }
    }

    /// The sector in the head of the request: zero where the request has a range of its own.
    const fn head_sector(self) -> u64 {
        match self {
            Self::Read { sector } | Self::Write { sector } => sector,
            _ => 0,
        }
    }

    /// The range that is sent instead of a buffer.
    const fn range(self) -> Option<Range> {
        match self {
            Self::Discard { sector, sectors } => Some(Range {
                sector,
                sectors,
                flags: 0,
            }),
            Self::WriteZeroes {
                sector,
                sectors,
                may_unmap,
            } => Some(Range {
                sector,
                sectors,
                flags: may_unmap as u32,
            }),
            _ => None,
        }
    }
}

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failed {
    /// The device could not carry it out, or it makes no sense (`VIRTIO_BLK_S_IOERR`).
    Error,
    /// The device does not know it (`VIRTIO_BLK_S_UNSUPP`).
    Unsupported,
    /// A status that is none.
    Unknown(u8),
}

/// A request, for the device or back from it.
#[derive(Debug, PartialEq, Eq)]
pub struct Request {
    /// The operation.
    pub operation: Operation,
    /// Bytes to write, or room for those that are read; empty for the others.
    pub buffer: Vec<u8>,
    /// The caller's own mark.
    pub mark: u64,
}

/// A request that the device has given back.
#[derive(Debug, PartialEq, Eq)]
pub struct Completed {
    /// The request, with its buffer.
    pub request: Request,
    /// Its outcome.
    pub result: Result<(), Failed>,
}

#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Head {
    code: u32,
    reserved: u32,
    sector: u64,
}

#[derive(Clone, Copy, Default)]
#[repr(C)]
struct Range {
    sector: u64,
    sectors: u32,
    flags: u32,
}

/// Memory that a request lends to the device beside its buffer.
#[repr(C)]
struct Lent {
    head: UnsafeCell<Head>,
    range: UnsafeCell<Range>,
    status: AtomicU8,
}

/// Place of a request on its way.
struct Slot {
    lent: Box<Lent>,
    head: u16,
    request: Option<Request>,
}

/// Requests on their way.
pub struct Requests<'m> {
    chains: Chains<'m>,
    slots: Vec<Slot>,
}

impl<'m> Requests<'m> {
    /// None yet, through a queue nobody has used.
    #[must_use]
    pub fn new(memory: &'m QueueMemory) -> Self {
        let slot = || Slot {
            lent: Box::new(Lent {
                head: UnsafeCell::default(),
                range: UnsafeCell::default(),
                status: AtomicU8::new(NO_STATUS),
            }),
            head: 0,
            request: None,
        };
        Self {
            chains: Chains::new(memory),
            slots: (0..IN_FLIGHT_MAX).map(|_| slot()).collect(),
        }
    }

    /// Number of those on their way.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.slots.iter().filter(|slot| slot.request.is_some()).count()
    }

    /// Puts a request in line for the device.
    ///
    /// # Errors
    /// The request itself, where there is no room for it now, or never: its buffer is too long.
    pub fn submit(&mut self, mut request: Request) -> Result<(), Request> {
        let pieces = request.buffer.len().div_ceil(SEGMENT_BYTES_MAX);
        let slot = self.slots.iter_mut().find(|slot| slot.request.is_none());
        let Some(slot) = slot.filter(|_| pieces <= SEGMENTS_MAX) else {
            return Err(request);
        };
        let mut parts = [Segment {
            address: 0,
            length_bytes: 0,
            direction: Direction::Transmit,
        }; PARTS_MAX];
        let count = describe(&slot.lent, &mut request, &mut parts);
        match self.chains.offer(parts.get(..count).unwrap_or_default()) {
            Some(head) => {
                slot.head = head;
                slot.request = Some(request);
                Ok(())
            }
            None => Err(request),
        }
    }

    /// True if the device has to be told of requests.
    pub fn announce(&mut self) -> bool {
        self.chains.announce()
    }

    /// True if a request is complete that was not taken yet.
    #[must_use]
    pub fn has_completed(&self) -> bool {
        self.chains.has_used()
    }

    /// Takes the next request that is complete.
    pub fn complete(&mut self) -> Option<Completed> {
        let used = self.chains.take()?;
        let is_its = |slot: &&mut Slot| slot.request.is_some() && slot.head == used.buffer;
        let slot = self.slots.iter_mut().find(is_its)?;
        fence(Ordering::Acquire);
        let result = match slot.lent.status.load(Ordering::Relaxed) {
            0 => Ok(()),
            1 => Err(Failed::Error),
            2 => Err(Failed::Unsupported),
            other => Err(Failed::Unknown(other)),
        };
        let request = slot.request.take()?;
        Some(Completed { request, result })
    }
}

/// Fills what the request lends, and describes its parts. Returns how many they are.
fn describe(lent: &Lent, request: &mut Request, parts: &mut [Segment; PARTS_MAX]) -> usize {
    let operation = request.operation;
    let head = Head {
        code: operation.code(),
        reserved: 0,
        sector: operation.head_sector(),
    };
    // SAFETY: the slot is free, so the device has none of this.
    unsafe { lent.head.get().write(head) };
    lent.status.store(NO_STATUS, Ordering::Relaxed);
    let mut count = 0;
    let mut add = |address: usize, length_bytes: usize, direction| {
        if let Some(part) = parts.get_mut(count) {
            *part = Segment {
                address: address as u64,
                length_bytes: length_bytes as u32,
                direction,
            };
            count += 1;
        }
    };
    add(
        lent.head.get().expose_provenance(),
        size_of::<Head>(),
        Direction::Transmit,
    );
    if let Some(range) = operation.range() {
        // SAFETY: as above.
        unsafe { lent.range.get().write(range) };
        add(
            lent.range.get().expose_provenance(),
            size_of::<Range>(),
            Direction::Transmit,
        );
    }
    let direction = match operation {
        Operation::Read { .. } | Operation::Identify => Direction::Receive,
        _ => Direction::Transmit,
    };
    let (start, bytes) = (
        request.buffer.as_mut_ptr().expose_provenance(),
        request.buffer.len(),
    );
    for from in (0..bytes).step_by(SEGMENT_BYTES_MAX) {
        add(start + from, SEGMENT_BYTES_MAX.min(bytes - from), direction);
    }
    add(lent.status.as_ptr().expose_provenance(), 1, Direction::Receive);
    count
}

#[cfg(test)]
mod tests;
