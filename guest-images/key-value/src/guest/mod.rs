//! The server around the library: one loop, in ring 3, with interrupts off.
//!
//! ```text
//!   frames in ─► TCP ─► sessions ─► TCP ─► frames out ─► exchange: tell the device, halt if nothing came ─┐
//!       ▲                                                                                                 │
//!       └─────────────────────────────────────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Where there is an append-only file with the policy `always`, what the sessions did is made
//! durable before the frames are filled: no reply leaves before. Other frames wait meanwhile in the
//! device's queue.
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
mod storage;
mod writer;

pub use options::Options;
pub use server::{STATUS_FILE, Server, StartError};

/// The port clients connect to.
pub const PORT: u16 = 6379;
