//! What a host does for the machines that run on it: it builds them, gives them threads, networks,
//! a console and time, and keeps the two sides of a pair together.
//!
//! | module | provides |
//! | --- | --- |
//! | [`configuration`] | what holds for a machine, whoever said it |
//! | [`machine`] | a machine as configured, its thread, and how it is sent elsewhere |
//! | [`live`] | what a live machine meets: time, arrivals, the will of its operator |
//! | [`outside`], [`outlets`] | the host's side of a machine: network, console, signals |
//! | [`pair`] | a replica as a process |
//! | [`build`], [`error`] | which build this is, and why a machine cannot be run |

#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod build;
pub mod configuration;
pub mod error;
pub mod live;
pub mod machine;
pub mod outlets;
pub mod outside;
pub mod pair;
