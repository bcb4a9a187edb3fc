//! The log of a protected virtual machine and the channel that carries it: entries, their encoding,
//! the log file, the transport, handshake, acknowledgement and heartbeat.
//!
//! Knows nothing of KVM or of devices.

#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod codec;
pub mod diff;
mod done;
pub mod dump;
pub mod entry;
mod error;
pub mod file;
pub mod handshake;
pub mod info;
mod kind;
pub mod measuring;
pub mod message;
mod order;
mod short;
pub mod transport;
pub mod view;

pub use codec::{BODY_BYTES_MAX, FORMAT_VERSION, HEADER_BYTES, RECORD_BYTES_MAX, Record};
pub use entry::*;
pub use error::LogError;
pub use file::{Existing, LogReader, LogWriter};
pub use kind::Kind;
pub use lockstep_generation::Generation;
pub use message::Message;
pub use order::Order;
