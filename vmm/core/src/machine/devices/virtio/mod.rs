//! Virtio devices: the MMIO transport, and the devices behind it.
//!
//! Source: Virtual I/O Device (VIRTIO) 1.2, sections 2 (queues), 4.2 (MMIO), 5.1 (network), 5.2
//! (block), 5.4 (entropy).

use super::saved::Impossible;
use virtio_queue::Queue;

pub mod block;
pub mod entropy;
pub mod mmio;
pub mod net;
pub mod queue;

pub use block::Block;
pub use entropy::Entropy;
pub use mmio::Mmio;
pub use net::Net;

/// A device as the transport sees it.
pub trait Virtio: Sized {
    /// Virtio device type.
    const DEVICE_ID: u32;
    /// Value with which it is restored, besides its saved form.
    type Made;
    /// Its saved form.
    type Saved;

    /// Feature bits offered.
    fn features(&self) -> u64;

    /// Forgets the driver.
    fn reset(&mut self);

    /// A queue of its own.
    fn queue(&self, number: u32) -> Option<&Queue>;

    /// The same, to be set up.
    fn queue_mut(&mut self, number: u32) -> Option<&mut Queue>;

    /// Reads `size_bytes` of the configuration at `at`.
    fn read_configuration(&self, at: u32, size_bytes: u8) -> u64;

    /// The state as a value.
    fn saved(&self) -> Self::Saved;

    /// The device in a saved state.
    ///
    /// # Errors
    /// [`Impossible`] for a value that it never has.
    fn restore(saved: Self::Saved, made: Self::Made) -> Result<Self, Impossible>;
}
