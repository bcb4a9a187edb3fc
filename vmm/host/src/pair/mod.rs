//! A replica as a process: the pure role machine of [`lockstep_core::replica::role`] with sockets,
//! storage, a clock and a vCPU thread.
//!
//! ```text
//!   vCPU thread                         replica loop (tokio, one thread)
//!   Recorder -> BatchingJournal ---->   Replica::step -> actions -> channel to the peer, outlets, claims
//!   Replayer <- QueuedFeed      <----                            <- channel, frames, claims, signals
//! ```

pub mod asking;
pub mod begin;
pub mod copying;
pub mod diverging;
pub mod door;
pub mod driver;
pub mod failing;
pub mod feed;
pub mod flowing;
pub mod follows;
pub mod happened;
pub mod heard;
pub mod holding;
pub mod identity;
pub mod joinable;
pub mod journal;
pub mod last_text;
pub mod launch;
pub mod link;
pub mod listening;
pub mod meeting;
pub mod newcomers;
pub mod ownership;
pub mod pace;
pub mod parts;
pub mod received;
pub mod receiving;
pub mod reception;
pub mod replica;
pub mod report;
pub mod sending;
pub mod stop_point;
pub mod storage;
pub mod strangers;
pub mod telling;
pub mod terms;
pub mod turns;
pub mod witness;

pub use lockstep_core::replica::cpu::{Carried, FROM_CPU_WAITING_MAX, FromCpu, Payload};
use lockstep_process::clock;
