//! Recordings in files: what a recording writes, what a replay reads.
//!
//! | module | provides |
//! | --- | --- |
//! | [`journal`], [`feed`] | the log: written by a recording, read by a replay |
//! | [`folder`] | snapshots, by their names |
//! | [`taking`], [`disks`] | snapshots while a guest runs, and what its disks have then |
//! | [`not_taken`] | reasons why one is given up |
//! | [`restoring`] | disks as they were at a snapshot |
//! | [`pieces`] | replays: whole, from a snapshot, between two |
//! | [`checking`] | all pieces at the same time, compared where they meet |

pub mod checking;
pub mod disks;
pub mod feed;
pub mod folder;
pub mod journal;
pub mod not_taken;
pub mod pieces;
pub mod restoring;
pub mod taking;

pub use disks::RecordedDisks;
pub use feed::FileFeed;
pub use folder::{Folder, Named, Snapshot};
pub use journal::FileJournal;
pub use taking::Snapshots;
