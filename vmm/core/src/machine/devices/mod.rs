//! The devices, the board that says where they are, and the bus that finds them.
//!
//! Every device has the same shape: `read` and `write` for its registers, by their offsets; `saved`
//! for its state as a value of its own (its digest is what divergence reports name), `restore` to
//! be built from it, and a way to take what arrives for it. A device knows neither its address nor
//! its line: these are the board's. It owns no thread, timer or descriptor: what it wants done, it
//! leaves for the bus to collect.

pub mod addresses;
pub mod board;
pub mod bus;
pub mod clock;
pub mod cmos;
mod effect;
pub mod pic;
pub mod pit;
pub mod power;
pub mod saved;
pub mod serial;
pub mod set;
pub mod virtio;

pub use board::Board;
pub use bus::Devices;
pub use set::DeviceSet;
