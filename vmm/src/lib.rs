//! The virtual machine monitor of Lockstep: a deterministic machine, the replica logic around it, and the shell
//! that gives both a host.

pub mod replica;
pub mod shell;
