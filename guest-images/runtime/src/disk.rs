//! Disks: virtio-blk over virtio-mmio version 2 (virtio 1.2, sections 4.2 and 5.2).
//!
//! A guest submits requests, tells the device of them with [`Disk::notify`], and [`wait`]s for one
//! to be complete. Interrupts are on only while it waits.

use crate::interrupts;
use crate::mmio::Transport;
pub use crate::requests::{
    BUFFER_BYTES_MAX, Completed, Failed, IN_FLIGHT_MAX, Operation, Request, SECTOR_BYTES, SERIAL_BYTES, Shape,
};
use crate::requests::{Requests, SEGMENT_BYTES_MAX, SEGMENTS_MAX};
use crate::ring0::{self, Routine};
use crate::virtqueue::{NO_INTERRUPT, QueueMemory};
use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::sync::atomic::Ordering;

/// Disks of a machine.
pub const DISKS_MAX: usize = 4;

/// Address of the first one's registers; those of the others follow.
pub(crate) const BASE: u32 = 0xD000_1000;
/// Bytes of one device's registers.
pub(crate) const DEVICE_BYTES: u32 = 0x1000;
/// The line of each, and its handler in the shim.
const LINES: [(usize, Routine); DISKS_MAX] = [
    (11, ring0::ring0_disk_0_interrupt),
    (12, ring0::ring0_disk_1_interrupt),
    (14, ring0::ring0_disk_2_interrupt),
    (6, ring0::ring0_disk_3_interrupt),
];

const BLOCK_DEVICE: u32 = 2;
const REQUEST_QUEUE: u32 = 0;

/// Feature bits.
const FEATURE_SIZE_MAX: u64 = 1 << 1;
const FEATURE_SEGMENTS_MAX: u64 = 1 << 2;
const FEATURE_READ_ONLY: u64 = 1 << 5;
const FEATURE_BLOCK_BYTES: u64 = 1 << 6;
const FEATURE_FLUSH: u64 = 1 << 9;
const FEATURE_DISCARD: u64 = 1 << 13;
const FEATURE_WRITE_ZEROES: u64 = 1 << 14;
const NEEDED: u64 = FEATURE_SIZE_MAX | FEATURE_SEGMENTS_MAX | FEATURE_FLUSH;
const WANTED: u64 = FEATURE_READ_ONLY | FEATURE_BLOCK_BYTES | FEATURE_DISCARD | FEATURE_WRITE_ZEROES;

/// Fields of the configuration, as distances from its beginning.
const SECTORS: u32 = 0;
const SIZE_MAX: u32 = 8;
const SEGMENTS: u32 = 12;
const BLOCK_BYTES: u32 = 20;
const DISCARD_SECTORS_MAX: u32 = 36;
const ZEROED_SECTORS_MAX: u32 = 48;

/// Why there is no disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DiskError {
    /// The device lacks a feature, or refused the driver's choice.
    Features,
    /// The device takes less in a request, or in its queue, than this driver gives.
    TooSmall,
    /// It did not give its serial number.
    Serial(Failed),
}

impl fmt::Display for DiskError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Features => formatter.write_str("the disk refuses this driver's features"),
            Self::TooSmall => formatter.write_str("the disk takes smaller requests than this driver makes"),
            Self::Serial(failed) => write!(formatter, "the disk does not give its serial number: {failed:?}"),
        }
    }
}

/// A disk, started.
pub struct Disk {
    transport: Transport,
    memory: &'static QueueMemory,
    requests: Requests<'static>,
    line: usize,
    shape: Shape,
}

/// Starts all disks of the machine, and opens their interrupt lines beside `lines`. To be called
/// once.
///
/// # Errors
/// A disk is not as expected; with its number.
pub fn start_all(lines: u16) -> Result<Vec<Disk>, (usize, DiskError)> {
    let mut disks = Vec::new();
    for (number, (line, handler)) in LINES.into_iter().enumerate() {
        let transport = Transport::at(BASE + DEVICE_BYTES * number as u32);
        if transport.device() == Some(BLOCK_DEVICE) {
            let disk = Disk::start(transport, line, handler).map_err(|error| (number, error))?;
            disks.push(disk);
        }
    }
    let opened = disks
        .iter()
        .fold(lines, |lines, disk| lines | interrupts::bit(disk.line));
    interrupts::open(opened);
    for (number, disk) in disks.iter_mut().enumerate() {
        disk.identify().map_err(|error| (number, error))?;
    }
    Ok(disks)
}

impl Disk {
    #[allow(unsafe_code)]
    fn start(transport: Transport, line: usize, handler: Routine) -> Result<Self, DiskError> {
        let features = transport.negotiate(NEEDED, WANTED).ok_or(DiskError::Features)?;
        let has = |feature: u64| features & feature != 0;
        let number = |feature, offset| {
            if has(feature) {
                transport.configuration(offset)
            } else {
                0
            }
        };
        let shape = Shape {
            sectors: u64::from(transport.configuration(SECTORS))
                | u64::from(transport.configuration(SECTORS + 4)) << 32,
            block_bytes: number(FEATURE_BLOCK_BYTES, BLOCK_BYTES).max(SECTOR_BYTES as u32),
            read_only: has(FEATURE_READ_ONLY),
            discard_sectors_max: number(FEATURE_DISCARD, DISCARD_SECTORS_MAX),
            zeroed_sectors_max: number(FEATURE_WRITE_ZEROES, ZEROED_SECTORS_MAX),
            serial: [0; SERIAL_BYTES],
        };
        let takes = [SIZE_MAX, SEGMENTS].map(|offset| transport.configuration(offset) as usize);
        let memory: &'static QueueMemory = Box::leak(Box::new(QueueMemory::new()));
        if takes[0] < SEGMENT_BYTES_MAX
            || takes[1] < SEGMENTS_MAX
            || !transport.start_queue(REQUEST_QUEUE, memory)
        {
            return Err(DiskError::TooSmall);
        }
        interrupts::make_level(interrupts::bit(line));
        // SAFETY: written for this line.
        unsafe { interrupts::set_handler(line, handler) };
        transport.go();
        Ok(Self {
            transport,
            memory,
            requests: Requests::new(memory),
            line,
            shape,
        })
    }

    fn identify(&mut self) -> Result<(), DiskError> {
        let request = Request {
            operation: Operation::Identify,
            buffer: vec![0; SERIAL_BYTES],
            mark: 0,
        };
        let done = self.carry_out(request);
        done.result.map_err(DiskError::Serial)?;
        for (place, byte) in self.shape.serial.iter_mut().zip(done.request.buffer) {
            *place = byte;
        }
        Ok(())
    }

    /// Its properties.
    #[must_use]
    pub const fn shape(&self) -> &Shape {
        &self.shape
    }

    /// Requests on their way.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.requests.in_flight()
    }

    /// Puts a request in line.
    ///
    /// # Errors
    /// The request itself, where there is no room for it now, or where its buffer is too long.
    pub fn submit(&mut self, request: Request) -> Result<(), Request> {
        self.requests.submit(request)
    }

    /// Tells the device of the requests in line.
    pub fn notify(&mut self) {
        if self.requests.announce() {
            self.transport.notify(REQUEST_QUEUE);
        }
    }

    /// Takes the next request that is complete.
    pub fn complete(&mut self) -> Option<Completed> {
        self.requests.complete()
    }

    /// Carries out one request while nothing else is on its way, halting until it is complete.
    pub fn carry_out(&mut self, request: Request) -> Completed {
        if let Err(request) = self.submit(request) {
            return Completed {
                request,
                result: Err(Failed::Error),
            };
        }
        loop {
            self.notify();
            if let Some(done) = self.complete() {
                return done;
            }
            wait(core::slice::from_ref(self));
        }
    }

    fn want_interrupts(&self, wanted: bool) {
        let flags = if wanted { 0 } else { NO_INTERRUPT };
        self.memory.available_flags.store(flags, Ordering::SeqCst);
    }
}

/// Halts until a request of one of the disks is complete, or until another interrupt. What
/// completes after the look at the queues raises its line, which ends the halt.
pub fn wait(disks: &[Disk]) {
    disks.iter().for_each(|disk| disk.want_interrupts(true));
    if !disks.iter().any(|disk| disk.requests.has_completed()) {
        interrupts::wait();
    }
    disks.iter().for_each(|disk| disk.want_interrupts(false));
}
