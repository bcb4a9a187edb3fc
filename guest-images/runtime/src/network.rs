//! The network device: virtio-net over virtio-mmio version 2 (virtio 1.2, sections 4.2 and 5.1), polled.
//!
//! A guest works through what has been received, fills frames to send, and then asks for one
//! [`Network::exchange`]: it tells the device of the frames and, if nothing has come in meanwhile, halts.
//! Interrupts of the receive queue are on only while it halts, or until the next frame where it asks for that
//! ([`Network::interrupt_at_next`]); those of the transmit queue never.
#![allow(unsafe_code)]

use crate::interrupts;
use crate::mmio::Transport;
use crate::ring0;
use crate::virtqueue::{Direction, ENTRIES, NO_INTERRUPT, Queue, QueueMemory};
use core::cell::UnsafeCell;
use core::fmt;
use core::sync::atomic::Ordering;

/// Address of the device's registers.
pub(crate) const BASE: u32 = 0xD000_0000;
pub(crate) const TRANSMIT_QUEUE: u32 = 1;
const RECEIVE_QUEUE: u32 = 0;
const TRANSPORT: Transport = Transport::at(BASE);

const NETWORK_DEVICE: u32 = 1;

/// Feature bit: the device has a MAC address.
const FEATURE_MAC: u64 = 1 << 5;

/// The header before every frame; all zero, since nothing is offloaded.
const HEADER_BYTES: usize = 12;
/// The longest Ethernet frame, without its check sequence.
pub const FRAME_BYTES_MAX: usize = 1514;
/// Header, frame, and what makes it a power of two: two to a page.
const BUFFER_BYTES: usize = 2048;

/// Receive buffers given back to the device before it is told: half of them, so that it never runs dry of
/// what it knows, and is told once in 128 frames.
const RECEIVE_ANNOUNCE: u16 = ENTRIES as u16 / 2;
/// A used index that never is.
const DO_NOT_WAIT: u64 = 1 << 16;

pub(crate) static RECEIVE_MEMORY: QueueMemory = QueueMemory::new();
static TRANSMIT_MEMORY: QueueMemory = QueueMemory::new();
static RECEIVE_BUFFERS: Buffers = Buffers::new();
static TRANSMIT_BUFFERS: Buffers = Buffers::new();

/// Buffers shared with the device. Driver and device own each buffer in turn, as the queue says.
#[repr(C, align(4096))]
struct Buffers(UnsafeCell<[[u8; BUFFER_BYTES]; ENTRIES]>);

// SAFETY: a guest has one thread; the device touches only buffers that the driver has offered.
unsafe impl Sync for Buffers {}

impl Buffers {
    const fn new() -> Self {
        Self(UnsafeCell::new([[0; BUFFER_BYTES]; ENTRIES]))
    }

    /// Address of `buffer`; one that does not exist is taken for another.
    fn address(&self, buffer: u16) -> *mut [u8; BUFFER_BYTES] {
        let index = usize::from(buffer) % ENTRIES;
        // SAFETY: within the array.
        unsafe { self.0.get().cast::<[u8; BUFFER_BYTES]>().add(index) }
    }
}

/// Why there is no network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NetworkError {
    /// No virtio network device at the address.
    NoDevice,
    /// The device lacks a feature, or refused the driver's choice.
    Features,
    /// A queue of the device is shorter than the driver's.
    QueueSize,
}

impl fmt::Display for NetworkError {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(match self {
            Self::NoDevice => "no virtio network device",
            Self::Features => "the network device refuses this driver's features",
            Self::QueueSize => "the network device's queues are too short",
        })
    }
}

/// Frames that have come in.
#[derive(Debug)]
pub struct Receiver {
    queue: Queue<'static>,
}

impl Receiver {
    fn offer(&mut self, buffer: u16) {
        self.queue.offer(
            buffer,
            RECEIVE_BUFFERS.address(buffer).addr() as u64,
            BUFFER_BYTES as u32,
        );
    }

    /// The oldest frame, left where it is.
    #[must_use]
    pub fn peek(&self) -> Option<&[u8]> {
        let used = self.queue.peek()?;
        // SAFETY: the device has given the buffer back, and it is not offered again while `self` is borrowed.
        let bytes = unsafe { &*RECEIVE_BUFFERS.address(used.buffer) };
        Some(bytes.get(HEADER_BYTES..used.length as usize).unwrap_or_default())
    }

    /// Drops the oldest frame: its buffer goes back to the device.
    pub fn drop_frame(&mut self) {
        if let Some(used) = self.queue.take() {
            self.offer(used.buffer);
        }
    }
}

/// Frames to send.
pub struct Transmitter {
    queue: Queue<'static>,
    free: [u16; ENTRIES],
    free_count: usize,
}

impl Transmitter {
    /// Whether a frame can be filled now.
    pub fn has_room(&mut self) -> bool {
        while let Some(used) = self.queue.take() {
            if let Some(place) = self.free.get_mut(self.free_count) {
                *place = used.buffer;
                self.free_count += 1;
            }
        }
        self.free_count > 0
    }

    /// Has `fill` write a frame of `length_bytes`, at most [`FRAME_BYTES_MAX`], and puts it in line. Where
    /// there is no room the frame is lost, as on any network.
    pub fn send<R>(&mut self, length_bytes: usize, fill: impl FnOnce(&mut [u8]) -> R) -> R {
        if !self.has_room() {
            let mut nowhere = [0; FRAME_BYTES_MAX];
            return fill(nowhere.get_mut(..length_bytes).unwrap_or_default());
        }
        self.free_count -= 1;
        let buffer = self.free.get(self.free_count).copied().unwrap_or_default();
        let address = TRANSMIT_BUFFERS.address(buffer);
        let end = HEADER_BYTES + length_bytes.min(FRAME_BYTES_MAX);
        // SAFETY: a free buffer: the device does not have it, and nobody else holds a reference.
        let bytes = unsafe { &mut *address };
        let result = fill(bytes.get_mut(HEADER_BYTES..end).unwrap_or_default());
        self.queue.offer(buffer, address.addr() as u64, end as u32);
        result
    }
}

/// The device, started.
pub struct Network {
    /// Frames that have come in.
    pub receiver: Receiver,
    /// Frames to send.
    pub transmitter: Transmitter,
    mac: [u8; 6],
}

impl Network {
    /// Starts the device and its interrupt line. To be called once.
    ///
    /// # Errors
    /// There is no such device, or it is not the one expected.
    pub fn start() -> Result<Self, NetworkError> {
        if TRANSPORT.device() != Some(NETWORK_DEVICE) {
            return Err(NetworkError::NoDevice);
        }
        TRANSPORT
            .negotiate(FEATURE_MAC, 0)
            .ok_or(NetworkError::Features)?;
        let queues = [
            (RECEIVE_QUEUE, &RECEIVE_MEMORY),
            (TRANSMIT_QUEUE, &TRANSMIT_MEMORY),
        ];
        for (queue, memory) in queues {
            if !TRANSPORT.start_queue(queue, memory) {
                return Err(NetworkError::QueueSize);
            }
        }
        interrupts::make_level(interrupts::bit(interrupts::NETWORK_LINE));
        // SAFETY: written for this line.
        unsafe { interrupts::set_handler(interrupts::NETWORK_LINE, ring0::ring0_network_interrupt) };
        TRANSPORT.go();
        Ok(Self::with_buffers())
    }

    fn with_buffers() -> Self {
        let mut receiver = Receiver {
            queue: Queue::new(&RECEIVE_MEMORY, Direction::Receive),
        };
        (0..ENTRIES as u16).for_each(|buffer| receiver.offer(buffer));
        let transmitter = Transmitter {
            queue: Queue::new(&TRANSMIT_MEMORY, Direction::Transmit),
            free: core::array::from_fn(|buffer| buffer as u16),
            free_count: ENTRIES,
        };
        Self {
            receiver,
            transmitter,
            mac: core::array::from_fn(|byte| TRANSPORT.configuration_byte(byte as u32)),
        }
    }

    /// The device's MAC address.
    #[must_use]
    pub const fn mac(&self) -> [u8; 6] {
        self.mac
    }

    /// Tells the device of frames to send. With `wait`, halts unless frames have come in by then; any
    /// interrupt ends it. The network's line and whatever else is to end it must be open.
    pub fn exchange(&mut self, wait: bool) {
        if self.receiver.queue.announce(RECEIVE_ANNOUNCE) {
            TRANSPORT.notify(RECEIVE_QUEUE);
        }
        let notify = self.transmitter.queue.announce(1);
        if notify || wait {
            let seen = if wait {
                u64::from(self.receiver.queue.taken())
            } else {
                DO_NOT_WAIT
            };
            // SAFETY: the arguments are as the routine describes them.
            unsafe { ring0::call(ring0::ring0_network_exchange, [u64::from(notify), seen, 0]) };
        }
    }

    /// Has the next frame interrupt, for a guest that does something else than halt meanwhile. False where
    /// frames are there already, which may not. The interrupt ends this; it makes no exit.
    #[must_use]
    pub fn interrupt_at_next(&mut self) -> bool {
        RECEIVE_MEMORY.available_flags.store(0, Ordering::SeqCst);
        self.receiver.queue.peek().is_none()
    }
}

const _: () = assert!(NO_INTERRUPT == 1 && HEADER_BYTES + FRAME_BYTES_MAX <= BUFFER_BYTES);
