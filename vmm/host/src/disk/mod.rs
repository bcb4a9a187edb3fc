//! Disks of a machine, as its host has them.
//!
//! | module | provides |
//! | --- | --- |
//! | [`setting`] | a disk as it is written on the command line |
//! | [`images`] | the images of a machine, opened and locked |
//! | [`storage`] | bytes, and how one request is carried out on them |
//! | [`executor`] | the threads of a disk |
//! | [`disks`] | the vCPU thread's end: requests out, completions in |
//! | [`threads`] | the host's end: start, state, end |

pub mod disks;
pub mod executor;
pub mod images;
pub mod setting;
pub mod storage;
pub mod threads;

pub use disks::Disks;
pub use images::{Images, Purpose};
pub use setting::DiskSetting;
pub use threads::{DiskThreads, Drive};
