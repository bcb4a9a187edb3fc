//! Recordings in files: what a recording writes, what a replay reads.
//!
//! | module | provides |
//! | --- | --- |
//! | [`journal`], [`feed`] | the log: written by a recording, read by a replay |
//! | [`folder`] | snapshots, by their names |
//! | [`taking`] | snapshots while a guest runs |
//! | [`pieces`] | replays: whole, from a snapshot, between two |
//! | [`checking`] | all pieces at the same time, compared where they meet |

pub mod checking;
pub mod feed;
pub mod folder;
pub mod journal;
pub mod pieces;
pub mod taking;

pub use feed::FileFeed;
pub use folder::{Folder, Named, Snapshot};
pub use journal::FileJournal;
pub use taking::Snapshots;
