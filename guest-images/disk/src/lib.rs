//! Load for disks that checks itself: everything but the disks.
//!
//! ```text
//!   Plan: request N of a seed ─► Load ─► Request ─► disk ─► Completed ─► Load ─► compared with the Ledger
//! ```
//!
//! What request N is depends on the seed and N alone, and what it writes says which request wrote
//! it. A [`Header`] on the disk says up to which request everything was flushed. So a guest that
//! begins again on a disk computes what must be there, compares, and goes on where the flushed part
//! ends.
//!
//! [`Measured`] is another load, which compares nothing and is timed.
#![cfg_attr(not(test), no_std)]

extern crate alloc;

mod content;
mod header;
mod ledger;
mod load;
mod measured;
mod options;
mod outcome;
mod plan;
mod random;

#[cfg(test)]
mod tests;

pub use header::Header;
pub use ledger::{Difference, Held};
pub use load::Load;
pub use measured::{Kind, Measure, Measured};
pub use options::{OptionError, Options};
pub use outcome::{Note, Wrong};
pub use plan::{Operation, Plan, Step};
