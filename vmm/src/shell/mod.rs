//! Command line, configuration, network attachments, control. Imported by nobody.

pub mod build;
pub mod cli;
pub mod commands;
pub mod configuration;
pub mod demo;
pub mod doctor;
pub mod error;
pub mod live;
pub mod machine;
pub mod outlets;
pub mod pair;
mod printing;
pub mod settings;
pub mod start;
pub mod status;

// Short names of the crates below, for all of the shell.
use lockstep_network as network;
use lockstep_process::{console, descriptors, once_a_minute, signals, writing};
use lockstep_switch as switch;
