//! The network device: virtio-net over virtio-mmio version 2 (virtio 1.2, sections 4.2 and 5.1), polled.
//!
//! A guest works through what has been received, fills frames to send, and then asks for one
//! [`Network::exchange`]: it tells the device of the frames and, if nothing has come in meanwhile, halts.
//! Interrupts of the receive queue are on only while it halts, or until the next frame where it asks for that
//! ([`Network::interrupt_at_next`]); those of the transmit queue never.
#![allow(unsafe_code)]

use crate::interrupts;
use crate::ring0;
use crate::virtqueue::{Direction, ENTRIES, NO_INTERRUPT, Queue, QueueMemory};
use core::cell::UnsafeCell;
use core::fmt;
use core::ptr;
use core::sync::atomic::Ordering;

/// Where the device's registers are, and what is in them.
pub(crate) mod registers {
    pub const BASE: u32 = 0xD000_0000;
    pub const MAGIC: u32 = 0x000;
    pub const VERSION: u32 = 0x004;
    pub const DEVICE: u32 = 0x008;
    pub const DEVICE_FEATURES: u32 = 0x010;
    pub const DEVICE_FEATURES_SELECT: u32 = 0x014;
    pub const DRIVER_FEATURES: u32 = 0x020;
    pub const DRIVER_FEATURES_SELECT: u32 = 0x024;
    pub const QUEUE_SELECT: u32 = 0x030;
    pub const QUEUE_SIZE_MAX: u32 = 0x034;
    pub const QUEUE_SIZE: u32 = 0x038;
    pub const QUEUE_READY: u32 = 0x044;
    pub const QUEUE_NOTIFY: u32 = 0x050;
    pub const INTERRUPT_ACKNOWLEDGE: u32 = 0x064;
    pub const STATUS: u32 = 0x070;
    pub const QUEUE_ADDRESSES: [u32; 3] = [0x080, 0x090, 0x0A0];
    pub const CONFIGURATION: u32 = 0x100;

    pub const RECEIVE_QUEUE: u32 = 0;
    pub const TRANSMIT_QUEUE: u32 = 1;
}
use registers::*;

/// "virt", little-endian.
const VIRTIO_MAGIC: u32 = 0x7472_6976;
const VIRTIO_VERSION: u32 = 2;
const NETWORK_DEVICE: u32 = 1;

const STATUS_ACKNOWLEDGE: u32 = 1;
const STATUS_DRIVER: u32 = 2;
const STATUS_DRIVER_OK: u32 = 4;
const STATUS_FEATURES_OK: u32 = 8;

/// Feature bit 5, in the low half: the device has a MAC address.
const FEATURE_MAC: u32 = 1 << 5;
/// Feature bit 32, in the high half: virtio 1.
const FEATURE_VERSION_1: u32 = 1;

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

fn read(register: u32) -> u32 {
    // SAFETY: a register of the device.
    unsafe { ptr::read_volatile((BASE + register) as usize as *const u32) }
}

fn write(register: u32, value: u32) {
    // SAFETY: a register of the device; it touches only memory that has been handed to it.
    unsafe { ptr::write_volatile((BASE + register) as usize as *mut u32, value) };
}

fn read_mac() -> [u8; 6] {
    // SAFETY: six byte registers of the device.
    core::array::from_fn(|byte| unsafe {
        ptr::read_volatile((BASE + CONFIGURATION + byte as u32) as usize as *const u8)
    })
}

fn negotiate() -> Result<(), NetworkError> {
    let offered = [0, 1].map(|half| {
        write(DEVICE_FEATURES_SELECT, half);
        read(DEVICE_FEATURES)
    });
    let wanted = [FEATURE_MAC, FEATURE_VERSION_1];
    for (half, (offered, wanted)) in offered.into_iter().zip(wanted).enumerate() {
        if offered & wanted != wanted {
            return Err(NetworkError::Features);
        }
        write(DRIVER_FEATURES_SELECT, half as u32);
        write(DRIVER_FEATURES, wanted);
    }
    write(STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK);
    if read(STATUS) & STATUS_FEATURES_OK == 0 {
        Err(NetworkError::Features)
    } else {
        Ok(())
    }
}

fn start_queue(queue: u32, memory: &QueueMemory) -> Result<(), NetworkError> {
    write(QUEUE_SELECT, queue);
    if read(QUEUE_SIZE_MAX) < ENTRIES as u32 {
        return Err(NetworkError::QueueSize);
    }
    write(QUEUE_SIZE, ENTRIES as u32);
    for (register, address) in QUEUE_ADDRESSES.into_iter().zip(memory.addresses()) {
        write(register, address as u32);
        write(register + 4, (address >> 32) as u32);
    }
    write(QUEUE_READY, 1);
    Ok(())
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
        if [read(MAGIC), read(VERSION), read(DEVICE)] != [VIRTIO_MAGIC, VIRTIO_VERSION, NETWORK_DEVICE] {
            return Err(NetworkError::NoDevice);
        }
        write(STATUS, 0);
        write(STATUS, STATUS_ACKNOWLEDGE);
        write(STATUS, STATUS_ACKNOWLEDGE | STATUS_DRIVER);
        negotiate()?;
        start_queue(RECEIVE_QUEUE, &RECEIVE_MEMORY)?;
        start_queue(TRANSMIT_QUEUE, &TRANSMIT_MEMORY)?;
        interrupts::set_level(interrupts::bit(interrupts::NETWORK_LINE));
        // SAFETY: written for this line.
        unsafe { interrupts::set_handler(interrupts::NETWORK_LINE, ring0::ring0_network_interrupt) };
        write(
            STATUS,
            STATUS_ACKNOWLEDGE | STATUS_DRIVER | STATUS_FEATURES_OK | STATUS_DRIVER_OK,
        );
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
            mac: read_mac(),
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
            write(QUEUE_NOTIFY, RECEIVE_QUEUE);
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
