//! A host's work for the machines that run on it: it builds them, gives them threads, networks,
//! a console and time, and keeps the two sides of a pair together.
//!
//! | module | provides |
//! | --- | --- |
//! | [`configuration`] | settings of a machine, whoever said them |
//! | [`disk`] | disks: settings, and the thread that carries requests out |
//! | [`machine`] | a machine as configured, its thread, and how it is sent elsewhere |
//! | [`live`] | surroundings of a live machine: time, arrivals, orders of its operator |
//! | [`recording`] | log files of machines that run alone, and their replays |
//! | [`outside`], [`outlets`] | the host's side of a machine: network, console, signals |
//! | [`pair`] | a replica as a process |
//! | [`progress`] | lines that say how far something long is |
//! | [`build`], [`error`] | the name of this build; reasons why a machine cannot be run |

#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod build;
pub mod configuration;
pub mod disk;
pub mod error;
pub mod live;
pub mod machine;
pub mod outlets;
pub mod outside;
pub mod pair;
pub mod progress;
pub mod recording;
