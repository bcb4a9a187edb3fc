//! Test-and-set on storage that both machines of a pair reach: for each generation, exactly one claimant
//! ever wins. It is what decides which of two survivors goes on when they cannot hear each other.
//!
//! Knows nothing of KVM or of log entries. Calls block for as long as the storage does: make them from a
//! thread that may wait.

#![deny(clippy::print_stdout, clippy::print_stderr)]

mod claim;
mod directory;
mod publish;

pub use claim::{Claimant, PairName, StoreError, TestAndSet, Verdict};
pub use directory::DirectoryStore;
pub use lockstep_generation::Generation;
pub use publish::Step;
