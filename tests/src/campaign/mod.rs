//! The campaign on real pairs: rounds of real processes on `/dev/kvm` with real clients, each with
//! a fault at a drawn point, judged by checkers that know nothing of the implementation.
//!
//! ```text
//!   plan, kind        what is done, from a seed
//!   round, faults     one round: processes, clients, the fault, until it is clear who goes on
//!   clients, history  what clients did and were told
//!   linearizability   is there an order of operations that explains every answer?
//!   session           did each client see its own writes, and nothing go back?
//!   promises          what was broken of what clients are promised
//!   wire              had every frame that left an entry which the backup had acknowledged?
//!   outcome           everything of a round in one judgement
//!   summary, picture  of many rounds
//!
//!   scenario          which sort of round comes when
//!   web, healing      one machine that heals, watched and judged
//!   chain             it is struck again and again, ten generations deep
//!   switchover        it is switched over and back, struck at a step of the way
//!   diverging         its replay differs, and it is struck while it recovers
//!   steady            a pair whose guest makes no exit, struck at a step of a common point
//!   disks             it has a disk, is struck, and begins again from what is on it
//!   starts            starts of the same machine in any order, killed between any two steps
//! ```
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "a round that cannot go on fails, with what the processes said"
)]

pub mod chain;
pub mod clients;
pub mod course;
pub mod disks;
pub mod diverging;
pub mod evidence;
pub mod faults;
#[cfg(test)]
mod fixtures;
pub mod healing;
pub mod history;
pub mod kind;
pub mod linearizability;
pub mod outcome;
pub mod picture;
pub mod plan;
pub mod promises;
pub mod round;
pub mod scenario;
pub mod session;
pub mod starts;
pub mod steady;
pub mod stop_point;
pub mod summary;
pub mod switchover;
pub mod web;
pub mod wire;

pub use evidence::Evidence;
pub use outcome::Outcome;
pub use scenario::{Only, Scenario};
pub use summary::Summary;
