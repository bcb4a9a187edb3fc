//! A machine that has a name: who this side is, and what the store remembers.

pub mod process;
