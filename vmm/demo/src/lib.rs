//! `lockstep demo`: a protected pair under load loses one of its processes, and its clients must not notice.
//!
//! Real processes of this executable: a switch, a primary and a backup of the key-value guest, in a directory of
//! their own. Clients keep persistent TCP connections to the guest, write, read back and know what was acknowledged;
//! in mid-load a replica is killed, or stopped and woken later. At the end everything acknowledged is read back.
//!
//! ```text
//!   workload (pure: what to ask, what must be answered) <- client (TCP, RESP) -> switch -> guest
//!   replica reports (JSON lines)  -> replica_report -> timeline \
//!   what the clients saw          -> load                        > verdict -> text, JSON
//! ```
//!
//! Nothing is left behind on any way out: the processes are killed and waited for, the directory is removed.

#![deny(clippy::print_stdout, clippy::print_stderr)]

mod arguments;
mod client;
mod command_lines;
mod control;
mod error;
mod load;
mod processes;
mod progress;
mod random;
mod replica_report;
mod resp;
mod run;
mod scene;
#[cfg(test)]
mod tests;
mod timeline;
mod verdict;
mod waits;
mod workload;

pub use arguments::{DemoArguments, Kill, KillSignal, TIMEOUT_MS};
pub use error::DemoError;
pub use run::run;
