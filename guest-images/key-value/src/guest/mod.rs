//! The server around the library: one loop, in ring 3, with interrupts off.
//!
//! ```text
//!   frames in ─► TCP ─► sessions ─► TCP ─► frames out ─► exchange: tell the device, halt if nothing came ─┐
//!       ▲                                                                                                 │
//!       └─────────────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! A turn of the loop makes at most two exits of its own, whatever it worked through: the
//! notification and the halt. Time is that of the last event, read from the clock page; it does not
//! pass within a turn.

mod alarm;
mod connection;
mod connections;
mod device;
mod limits;
mod options;
mod server;
mod writer;

pub use options::Options;
pub use server::Server;

/// The port clients connect to.
pub const PORT: u16 = 6379;
