//! Ways in which the requests of a disk are carried out. All have the same shape: [`carrier`].
//!
//! | module | provides |
//! | --- | --- |
//! | [`carrier`] | the shape |
//! | [`threads`] | threads, with calls that block |
//! | [`ring`] | io_uring, and threads for what that does no better |
//! | [`bell`] | what wakes a thread that waits in io_uring |
//! | [`no_ring`] | reasons why there is no io_uring |
//! | `start` | the choice |

pub(super) mod bell;
pub(super) mod carrier;
pub mod no_ring;
pub mod ring;
pub(super) mod start;
#[cfg(test)]
mod tests;
pub(super) mod threads;

pub(super) use carrier::{Carried, Carrier, Happened};
pub use no_ring::NoRing;
pub use ring::probe;
pub(super) use start::start;
