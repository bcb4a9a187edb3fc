//! `lockstep switch`: the network between a pair and its clients, in a small process outside the
//! fault domain.
//!
//! ```text
//!   clients --TCP--> [forward: host port] --relay--> smoltcp --+
//!                                                              |        +--> port 1: primary  (Unix socket)
//!   the host's own address (ARP, ping) --- responder ----------+-fabric-+--> port 2: backup
//!                                                              learns   +--> port n: any virtual machine
//! ```
//!
//! One thread, one tokio runtime, no busy waiting. [`fabric`] decides where a frame goes and is
//! pure; [`host`] is the station with the host's address, which carries each forwarded TCP
//! connection in a smoltcp interface of its own, so that the work for a segment does not grow with
//! the number of connections; [`port`] and [`forward`](mod@forward) are the tasks around them.
//!
//! A machine that goes live on another port is found again in three ways: its frames are learned,
//! its gratuitous ARP is learned, and its [`Announcement`](lockstep_network::Announcement) fences
//! every port of the same pair with a lower generation. At a move and at every announcement of a
//! pair's current generation, what is unacknowledged on the forwarded connections is sent again at
//! once, so that a request that died with the old machine does not wait for a retransmission
//! timeout: a machine may announce itself again when it has begun to receive.
//!
//! Two pairs never share an address: the first to use it keeps it ([`owners`]), the other is
//! refused and told.
//!
//! Limits, all constants: [`port_id::PORTS_MAX`], [`queue::QUEUE_BYTES_MAX`],
//! [`table::STATIONS_MAX`], [`host::CONNECTIONS_MAX`]. What does not fit is dropped and counted, or
//! waits outside.

#![deny(clippy::print_stdout, clippy::print_stderr)]

mod arguments;
mod backplane;
mod capture;
mod core;
mod error;
mod fabric;
mod fence;
mod forward;
mod host;
mod listener;
mod owners;
mod port;
mod port_id;
mod queue;
mod relay;
mod run;
mod table;
#[cfg(test)]
mod tests;
mod timers;

pub use arguments::{Forward, ForwardParseError, HostAddress, HostAddressParseError, SwitchArguments};
pub use backplane::Backplane;
pub use error::SwitchError;
pub use run::{Ready, run, serve};
