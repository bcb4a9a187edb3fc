//! The code that decides, without effects: the deterministic machine, and the replica logic around
//! it.
//!
//! | module | provides | must not know |
//! | --- | --- | --- |
//! | [`machine`] | vCPU trait, memory, devices, boot, image rewriting, the door | replicas, sockets, threads, clocks, KVM |
//! | [`replica`] | recorder, replayer, roles, output gate, going live | sockets, threads, clocks, KVM |
//! | [`mutant`] | deliberate defects of both, for tests | everything else |

#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod machine;
pub mod mutant;
pub mod replica;
