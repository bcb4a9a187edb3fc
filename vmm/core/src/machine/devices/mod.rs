//! The devices, and the bus that finds them.
//!
//! Every device has the same shape: `read` and `write` for its registers, `saved` for its state as
//! a value of its own (its digest is what divergence reports name), `restore` to be built from it,
//! and a way to take what arrives for it. A device owns no thread, timer or descriptor: what it
//! wants done, it leaves for the bus to collect.

pub mod bus;
pub mod clock;
pub mod pic;
pub mod pit;
pub mod power;
pub mod saved;
pub mod serial;
pub mod virtio;

pub use bus::Devices;
