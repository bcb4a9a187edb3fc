//! The virtual machine monitor of Lockstep: a deterministic machine, the replica logic around it, and the shell
//! that gives both a host.
//!
//! | module | provides | must not know |
//! | --- | --- | --- |
//! | [`machine`] | vCPU trait, memory, devices, boot, image rewriting, the door | sockets, threads, clocks, KVM |
//! | [`kvm`] | the vCPU behind the trait, instruction clocks | devices, the log |
//! | [`replica`] | recorder, replayer, roles, output gate, going live | KVM |
//! | [`shell`] | command line, configuration, network, control | is imported by nobody |

#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod shell;

// What has moved into a crate of its own keeps its name here.
use lockstep_core::{machine, replica};
use lockstep_kvm as kvm;
