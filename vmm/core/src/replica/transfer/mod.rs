//! Carrying a machine that runs to a newcomer: its memory in rounds while the guest goes on, then
//! what is left, the rest of the machine and its position in the log (docs/joining.md).
//!
//! ```text
//!   Sender::new -> record            who and what this is
//!   Round over memory -> Sender::pages -> record, record, …    everything that is not zero, then what was written meanwhile
//!   Rounds: another round, copies while the guest runs, or stop it
//!   Capture -> Sender::last -> record, record, …    pages, machine, position in the log, end
//!
//!   record, record, … -> Receiver::take -> Received { machine, memory, position }
//! ```
//!
//! A record is what one message of the channel carries:
//!
//! ```text
//!   number u64 | bytes before compression u32 | LZ4 block                  numbers little-endian, counted from 0
//! ```
//!
//! Uncompressed, record 0 is `"LSTF" | version u16 | 0 u16 | name of the pair, 16 bytes | bytes of memory u64`. All others are sections of
//! a saved state ([`format`](crate::machine::saved::format)), cut where one is longer than a
//! record: memory sections in any order and with any page as often as it was written, then machine,
//! position, end. The end has the number of pages and the digest of all digests before it, so
//! whatever is missing, added, changed or out of order is refused.

mod copies;
mod error;
mod receiver;
mod rounds;
mod sender;
#[cfg(test)]
mod tests;

pub use copies::{Copies, NoRoom};
pub use error::TransferError;
pub use receiver::{Received, Receiver, Taken};
pub use rounds::{Next, PAUSE_PAGES_MAX, ROUNDS_MAX, Rounds};
pub use sender::{Round, Sender};

use crate::machine::saved::SavedMachine;
use crate::machine::saved::format::LogPosition;
use lockstep_logging_channel::BODY_BYTES_MAX;

/// Version of the transfer: of the records, and of what may come in which order.
pub const VERSION: u16 = 1;
const MAGIC: [u8; 4] = *b"LSTF";
const START_BYTES: usize = 4 + 2 + 2 + 16 + 8;
/// Name of record 0, in messages.
const START: &str = "first record";

/// Number and length before compression.
const RECORD_HEADER_BYTES: usize = 8 + 4;
/// Bytes of a record before compression. A memory section of
/// [`PAGES_PER_PART`](crate::machine::saved::pages::PAGES_PER_PART) pages has 24 + 31 × 4104 =
/// 127,248.
pub const RAW_BYTES_MAX: usize = 127_248;
/// LZ4 makes what cannot be compressed longer by a 255th, and by 20 bytes at most
/// (`get_maximum_output_size` of lz4_flex is larger). The record has 12 + 127,248 + 500 + 20 =
/// 127,780 then; a body of the channel has 131,072, a few of them for the length.
pub const RECORD_BYTES_MAX: usize = RECORD_HEADER_BYTES + RAW_BYTES_MAX + RAW_BYTES_MAX / 255 + 1 + 20;
const _: () = assert!(RECORD_BYTES_MAX + 3 <= BODY_BYTES_MAX);

/// State captured of a machine where the guest stands, beside the pages that are left.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Capture {
    /// The machine without its memory.
    pub machine: SavedMachine,
    /// Its position in the log.
    pub position: LogPosition,
}
