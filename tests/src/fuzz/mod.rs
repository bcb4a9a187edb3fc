//! Fuzzing: what arbitrary bytes from outside may do to each part that takes some.
//!
//! A target is a function of bytes that panics where a promise is broken; what it promises stands
//! in its module. Two drive it: libFuzzer (`tests/fuzz`, `make fuzz`), and ordinary tests
//! (`tests/tests/fuzz_corpora`, stable), which run all seeds and a number of seeded mutations of
//! them. Seeds are text, in `tests/fuzz/seeds`.
//!
//! | target | what comes from outside |
//! | --- | --- |
//! | `log` | a log file, or the bytes of a channel |
//! | `handshake` | what a peer says before it is one |
//! | `configuration` | the text of a configuration file and of flags |
//! | `image` | the file of a guest |
//! | `kernel` | a Linux kernel, a module, an initrd |
//! | `devices` | port and memory accesses, descriptors, arrivals, answers |
//! | `saved` | a saved state |
//! | `switch` | the streams of attached machines |
//! | `resp` | what a client of the key-value guest sends |
//! | `transfer` | the saved machine that a newcomer gets |
//! | `snapshot` | a snapshot of a recording |
//! | `parts` | the parts of a common point |
//! | `disk` | the image of a disk, and what is beside it |
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::missing_panics_doc,
    reason = "a target fails by panicking"
)]

pub mod configuration;
pub mod corpus;
pub mod devices;
pub mod disk;
pub mod guest;
pub mod handshake;
pub mod image;
pub mod input;
pub mod kernel;
pub mod log;
pub mod mutate;
pub mod parts;
pub mod resp;
pub mod saved;
pub mod seal;
pub mod snapshot;
pub mod switch;
pub mod transfer;

/// What is fuzzed.
#[derive(Clone, Copy, Debug)]
pub struct Target {
    /// Its name: of its program in `tests/fuzz` and of its folder of seeds.
    pub name: &'static str,
    /// Panics where these bytes break a promise.
    pub run: fn(&[u8]),
    /// Mutations an ordinary test runs: what takes a second or two without optimisation.
    pub mutations: usize,
}

/// All of them.
pub const TARGETS: &[Target] = &[
    of("log", log::run, 5_000),
    of("handshake", handshake::run, 5_000),
    of("configuration", configuration::run, 5_000),
    of("image", image::run, 5_000),
    of("kernel", kernel::run, 3_000),
    of("devices", devices::run, 3_000),
    of("saved", saved::run, 1_000),
    of("switch", switch::run, 1_000),
    of("resp", resp::run, 3_000),
    of("transfer", transfer::run, 1_000),
    of("snapshot", snapshot::run, 1_000),
    of("parts", parts::run, 1_000),
    of("disk", disk::run, 300),
];

const fn of(name: &'static str, run: fn(&[u8]), mutations: usize) -> Target {
    Target { name, run, mutations }
}

/// The target of this name.
#[must_use]
pub fn target(name: &str) -> Target {
    *TARGETS
        .iter()
        .find(|target| target.name == name)
        .expect("a target of this name")
}
