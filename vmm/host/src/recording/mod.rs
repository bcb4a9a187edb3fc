//! Recordings in files: what a recording writes, what a replay reads.

pub mod feed;
pub mod journal;

pub use feed::FileFeed;
pub use journal::FileJournal;
