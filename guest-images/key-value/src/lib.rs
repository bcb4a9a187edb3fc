//! A key-value server that speaks the Redis protocol (RESP2): everything but the network and the
//! processor. Those are in `guest`, which only an image has.
//!
//! ```text
//!  bytes in ─► Session ─► request ─► table ─► commands::* ─► store::Keyspace
//!  bytes out ◄── Reply ◄──────────────────────────┘
//! ```
//!
//! Nothing else here has an effect: bytes and the time come in, bytes go out. Two runs with the
//! same input and the same clock give the same bytes, in the same order; there is no randomness,
//! `SPOP` included.
//!
//! Protocol and commands: the Redis serialization protocol specification, version 2, and the
//! command reference of Redis 7.0, with its error texts.
//!
//! Limits: a string or an argument has at most 1 MiB, a request 2 MiB, a reply 16 MiB. What the
//! keyspace holds is counted, and commands that might bring it above [`Limits::memory_bytes_max`]
//! are refused.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

pub mod append_only;
mod arguments;
mod client;
mod command;
mod commands;
mod context;
mod database;
mod failure;
mod glob;
#[cfg(feature = "image")]
pub mod guest;
mod inline;
mod number;
mod reply;
mod request;
mod session;
mod store;
mod table;

#[cfg(test)]
mod tests;

pub use database::{Clock, Database, Limits};
pub use session::{Next, OUTPUT_BYTES_FULL, Session};
