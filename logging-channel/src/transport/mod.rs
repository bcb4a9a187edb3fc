//! The way of records between two processes, over TCP or a Unix socket.
//!
//! Knows records, not roles: who says what first is in [`crate::handshake`], and how much may be under way the
//! replicas decide, up to [`WINDOW_BYTES_MAX`].

mod address;
mod connect;
mod connection;
mod error;
mod listener;
mod local_listener;
mod reader;
mod writer;

pub use address::{Address, AddressError};
pub use connect::connect;
pub use connection::Connection;
pub use error::ChannelError;
pub use listener::Listener;
pub use local_listener::{LocalListenError, LocalListener};
pub use reader::RecordReader;
pub use writer::{QUEUE_BYTES_MAX, RecordWriter, WINDOW_BYTES_MAX};
