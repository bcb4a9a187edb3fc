//! Copies what differs between the images of two sides, from the holder's to the newcomer's, before
//! the newcomer is armed.
//!
//! ```text
//!   holder                               newcomer
//!     | ---- states of its image --------> |
//!     | <--- states, marked blocks ------- |   a common state: they differ in marked blocks only
//!     | ---- what is compared -----------> |   no common state: all, and its marks are forgotten
//!     | ---- digests of 2,048 blocks ----> |   compared with its own
//!     | <--- those that differ ----------- |
//!     | ---- their bytes ----------------> |   marked, and written
//!     |      … to the end of each disk     |
//!     | ---- state of this join ---------> |   only behind the last of it
//!     | ---- all ------------------------> |   flushed, and the state recorded
//!     | <--- durable --------------------- |   the holder clears its older marks
//! ```
//!
//! Where the machine runs meanwhile, the blocks that it writes follow in rounds. When its state is
//! captured its disks are frozen: nothing is carried out that was not complete in the captured
//! state. What was written since the last round follows then, and the disks go on. So the
//! newcomer's images are those of the captured state, and it carries out itself what is outstanding
//! there.
//!
//! The holder records the state of the join beside the one before it, when its own image has
//! everything of it durably, and before the newcomer records it: wherever one of them is lost, they
//! have a state in common.
//!
//! Shared disks have one image, and nothing is copied. Records are the channel's pieces.

mod asking;
mod giving;
mod known;
mod taking;
mod wire;

pub use giving::{Given, Giving};
pub use known::Compared;
pub use taking::{NotTaken, take};

/// Blocks that are compared at once: their digests are 64 KiB, and fit a record.
const BATCH_BLOCKS: u64 = 2048;
/// Ranges of marked blocks in a record: 20 bytes each at most, 40 KiB.
const RANGES_MAX: usize = 2048;

#[cfg(test)]
mod tests;
