//! The command `lockstep`: settings, commands and the replica loop, on the crates that decide, run
//! guests and carry their frames.

#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod shell;

// Short names of the crates below, for all of the shell.
use lockstep_core::{machine, replica};
use lockstep_kvm as kvm;
