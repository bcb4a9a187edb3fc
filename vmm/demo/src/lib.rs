//! `lockstep demo`: a protected machine under load loses its processes, one after another, and its
//! clients must not notice.
//!
//! Real processes of this executable: a switch and the sides of a machine that runs the key-value
//! guest, in a directory of their own. Clients keep persistent TCP connections to the guest, write,
//! read back and know what was acknowledged; in mid-load a replica is killed, or stopped and woken
//! later. A new backup joins, and the next one is lost. At the end everything acknowledged is read
//! back.
//!
//! ```text
//!   workload (pure: what to ask, what must be answered) <- client (TCP, RESP) -> switch -> guest
//!   replica reports (JSON lines)  -> replica_report -> timeline \
//!   what the clients saw          -> waits, load                 > verdict -> text, JSON
//! ```
//!
//! Nothing is left behind on any way out: the processes are killed and waited for, the directory is
//! removed. Where the demonstration itself is killed its processes end with it ([`processes`]), and
//! the next one removes the directory ([`folder`]).

#![deny(clippy::print_stdout, clippy::print_stderr)]

mod arguments;
mod client;
mod command_lines;
mod control;
mod ending;
mod error;
mod folder;
mod joining;
mod load;
mod processes;
mod progress;
mod random;
mod replica_report;
mod resp;
mod rounds;
mod run;
mod scene;
#[cfg(test)]
mod tests;
mod timeline;
mod verdict;
mod waits;
mod workload;

pub use arguments::{DemoArguments, Kill, KillSignal, Mode, TIMEOUT_MS};
pub use error::DemoError;
pub use run::run;
