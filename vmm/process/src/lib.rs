//! Facilities that every process of Lockstep has, whatever it runs: text for people, the terminal,
//! signals, descriptors, its clocks, its exit status.
//!
//! | module | provides |
//! | --- | --- |
//! | [`writing`] | bounded queues and a thread for each descriptor that people or programs read |
//! | [`console`] | standard input, the keys of this program, and the terminal as it was found |
//! | [`signals`] | SIGTERM, SIGINT and SIGHUP end every command in a second, or when its machine says |
//! | [`descriptors`] | as many file descriptors as are needed, or an error |
//! | [`once_a_minute`] | a bound on lines that somebody outside can cause |
//! | [`clock`] | the clock of roles, and the clock of reports |
//! | [`status`] | exit statuses |
//! | [`time`] | times as arguments of a command line |
//! | [`causes`] | an error and its causes on one line |

#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod causes;
pub mod clock;
pub mod console;
pub mod descriptors;
pub mod once_a_minute;
pub mod signals;
pub mod status;
pub mod time;
pub mod writing;
