//! Disks of a machine, as its host has them.
//!
//! | module | provides |
//! | --- | --- |
//! | [`setting`] | a disk as it is written on the command line |
//! | [`images`] | the images of a machine, opened and locked |
//! | [`shared`] | the image that both sides of a pair share |
//! | [`storage`] | bytes, and how one request is carried out on them |
//! | [`target`] | what requests are carried out on: bytes, and marks of what changes |
//! | [`changes`] | blocks that may differ from the other side's, kept beside the image |
//! | [`mirrored`] | images of which each side has its own, block by block |
//! | [`contents`] | what disks hold, block by block, for snapshots of recordings |
//! | [`executor`] | the thread of a disk, which keeps the order of its requests |
//! | [`carrying`] | ways in which requests are carried out |
//! | [`orders`] | orders to the thread of a disk |
//! | [`disks`] | the vCPU thread's end: requests out, completions in |
//! | [`threads`] | the host's end: start, state, end |
//! | [`watch`] | disks that are copied while the machine runs |

pub mod carrying;
pub mod changes;
pub mod contents;
pub mod disks;
pub mod executor;
pub mod images;
pub mod mirrored;
mod orders;
pub mod setting;
pub mod shared;
pub mod storage;
mod target;
pub mod threads;
pub mod watch;

pub use changes::{KeptChanges, Known};
pub use contents::Contents;
pub use disks::Disks;
pub use images::{Images, Purpose};
pub use mirrored::Mirrored;
pub use orders::Durability;
pub use setting::{Aio, DiskSetting, OnError};
pub use shared::SharedImage;
pub use threads::{DiskThreads, Drive};
pub use watch::Watch;
