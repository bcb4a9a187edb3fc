//! Reasons why a host could not be qualified.

use lockstep_kvm::HostError;
use std::io;

/// Reason why a host could not be qualified.
#[derive(Debug, thiserror::Error)]
pub enum QualifyError {
    /// It lacks something.
    #[error(transparent)]
    Host(#[from] HostError),
    /// It starts no thread.
    #[error("cannot start the measuring thread")]
    Thread(#[source] io::Error),
    /// A probe ended without a finding.
    #[error("{thread}: a probe ended without a finding")]
    NoFinding {
        /// Name of its thread.
        thread: String,
    },
}
