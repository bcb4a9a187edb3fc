//! The append-only file: every command that changed something, on a disk, in the order in which
//! they were done. Replayed, they make the same keys.
//!
//! ```text
//!   0          4 KiB        8 KiB                    middle                    end
//!   superblock | superblock | records of one half    | records of the other    |
//!   of even      of odd
//!   generations  generations
//! ```
//!
//! One half is in use, by the parity of the generation. A rewrite puts the keys that there are into
//! the other half, and makes it durable before the superblock of the next generation says so. The
//! formats are in `docs/guest-interface.md`.
//!
//! What is assumed of the disk: a flush makes durable what was written before, a sector of 512
//! bytes is written whole or not at all, and of what was not flushed anything may be lost, in any
//! order.
//!
//! A record has a digest that is keyed by a secret of its half and says what the record before it
//! was. So neither old records nor what a client has stored are taken for the next one. It also
//! says up to where the file was durable: where an earlier record is broken all the same, the file
//! is damaged, and refused; where none says so, the file's end was being written when the power
//! went, and is cut.

mod layout;
mod log;
mod opening;
mod record;
mod rewriting;
mod storage;

pub use log::{AppendOnly, Policy};
pub use opening::{OpenError, Opened};
pub use storage::{Storage, StorageError};
