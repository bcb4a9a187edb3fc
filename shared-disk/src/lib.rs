//! Test-and-set on storage that both machines of a pair reach: for each generation, exactly one
//! claimant ever wins. It is what decides which of two survivors goes on when they cannot hear each
//! other.
//!
//! Knows nothing of KVM or of log entries. [`Store`] is the only seam: nothing above this crate
//! knows what sort of store it is, but the place that reads the configuration.

#![deny(clippy::print_stdout, clippy::print_stderr)]

mod claim;
pub mod decision;
mod directory;
mod error;
pub mod fake;
pub mod image;
mod name;
mod publish;
mod record;
mod store;

pub use claim::{Backup, Claim, Ended, Party, Process, STATUS_BYTES_MAX, Seen, Switchover, Verdict};
pub use directory::DirectoryStore;
pub use error::StoreError;
pub use lockstep_generation::Generation;
pub use name::{LINE_BYTES_MAX, Line, MachineId, MachineName, NAME_BYTES_MAX, NameError};
pub use publish::Step;
pub use store::{Asked, MachineStore, Store};
