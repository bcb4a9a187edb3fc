//! Virtio devices: the MMIO transport and the network device behind it.
//!
//! Source: Virtual I/O Device (VIRTIO) 1.2, sections 2 (queues), 4.2 (MMIO), 5.1 (network).

pub mod mmio;
pub mod net;

pub use mmio::Mmio;
pub use net::Net;
