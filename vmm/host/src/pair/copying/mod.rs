//! Copies what differs between the images of two sides, from the holder's to the newcomer's, before
//! the newcomer is armed.
//!
//! ```text
//!   holder                               newcomer
//!     | ---- digests of 2,048 blocks ----> |   compared with its own
//!     | <--- those that differ ----------- |
//!     | ---- their bytes ----------------> |   written
//!     |      … to the end of each disk     |
//!     | ---- all ------------------------> |   flushed
//!     | <--- durable --------------------- |
//! ```
//!
//! Where the machine runs meanwhile, the blocks that it writes follow in rounds. When its state is
//! captured its disks are frozen: nothing is carried out that was not complete in the captured
//! state. What was written since the last round follows then, and the disks go on. So the
//! newcomer's images are those of the captured state, and it carries out itself what is outstanding
//! there.
//!
//! Shared disks have one image, and nothing is copied. Records are the channel's pieces.

mod giving;
mod taking;
mod wire;

pub use giving::{Given, Giving};
pub use taking::{NotTaken, take};

/// Blocks that are compared at once: their digests are 64 KiB, and fit a record.
const BATCH_BLOCKS: u64 = 2048;

#[cfg(test)]
mod tests;
