//! The commands, one file each, and what several of them share.

pub mod disk;
pub mod inspect;
pub mod log;
pub mod machines;
pub mod record;
pub mod replay;
pub mod run;
pub mod switchover;
pub mod verify;
