//! Disk images: files that hold the content of a machine's disk.
//!
//! An [`Image`] is open under a lock that keeps every other user away. Its calls block, take `&self`
//! and may be made from several threads; which of them may overlap is for the caller to say.
//!
//! ```text
//! raw       our own reads and writes, by O_DIRECT where it is written and the file system has it
//! qcow2     by the crate imago, behind a check of the whole file
//! overlay   a qcow2 file over a base that is only read
//! ```
//!
//! What is discarded reads as zeroes, always: two images that were given the same requests are
//! equal.

mod admit;
mod aligned;
mod beside;
mod compare;
mod create;
mod error;
mod holder;
mod kinds;
mod lock;
mod look;
mod opened;
mod probe;
mod qcow2;
mod ranges;
mod raw;
#[cfg(test)]
mod tests;

pub use aligned::Aligned;
pub use beside::changed::{ChangedBlocks, EQUAL_MAX, Equal};
pub use beside::identity::Identity;
pub use compare::{Compared, compare};
pub use create::create;
pub use error::ImageError;
pub use holder::{Holder, User};
pub use kinds::{Access, BLOCK_BYTES, COPY_BLOCK_BYTES, Format, Options, RawFile, SIZE_BYTES_MAX};
pub use look::{Bitmap, Look, Sound, check, look};
pub use opened::Image;
pub use qcow2::check::Checked;
pub use qcow2::header::MAGIC as QCOW2_MAGIC;
pub use ranges::{BlockDigests, DataRanges};
