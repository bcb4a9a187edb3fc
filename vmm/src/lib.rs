//! The command `lockstep`: its command line and settings, what each command prints, and the exit
//! status of every error. What runs machines is beneath it.

#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod cli;
pub mod commands;
pub mod doctor;
mod printing;
pub mod settings;
pub mod start;
pub mod status;
