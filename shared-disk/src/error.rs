//! Reasons why a store did not answer.

use std::io::ErrorKind;
use std::path::PathBuf;

/// Reason why a store did not answer. The request may or may not have been carried out: ask again.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The storage does not answer now and may later.
    #[error("shared storage {} {} ({doing})", path.display(), trouble(source))]
    Unreachable {
        /// The path that was being accessed.
        path: PathBuf,
        /// The operation that was being done.
        doing: &'static str,
        /// The error that the system reported.
        source: std::io::Error,
    },
    /// The storage will not do as it is: no directory, no permission, no hard links.
    #[error("shared storage {} cannot be used ({doing}): {hint}", path.display())]
    Unusable {
        /// The path that was being accessed.
        path: PathBuf,
        /// The operation that was being done.
        doing: &'static str,
        /// Advice on what to do about it.
        hint: &'static str,
        /// The error that the system reported.
        source: std::io::Error,
    },
    /// A file of the store does not say what this software writes there.
    #[error("shared storage: {} is damaged or not ours: {detail}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// The defect in it.
        detail: &'static str,
    },
    /// The name of a machine is that of something else in the store's place.
    #[error("{} is {what}, which is not a machine: the name is taken", path.display())]
    Taken {
        /// Its path.
        path: PathBuf,
        /// Its kind.
        what: &'static str,
    },
    /// A file of the store is of another version of its format.
    #[error(
        "shared storage: {} was written by {} Lockstep (version {found} of its format, this one reads {known})",
        path.display(),
        if found > known { "a later" } else { "an earlier" }
    )]
    Version {
        /// The file.
        path: PathBuf,
        /// Its version.
        found: u32,
        /// The version that this software reads and writes.
        known: u32,
    },
}

impl StoreError {
    /// True where asking again may help although nobody does anything about it: the storage does
    /// not answer, or is not mounted yet.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Unreachable { .. } => true,
            Self::Unusable { source, .. } => source.kind() == std::io::ErrorKind::NotFound,
            Self::Damaged { .. } | Self::Taken { .. } | Self::Version { .. } => false,
        }
    }
}

impl StoreError {
    /// True where what was accessed does not exist.
    pub(crate) fn is_missing(&self) -> bool {
        match self {
            Self::Unreachable { source, .. } | Self::Unusable { source, .. } => {
                source.kind() == ErrorKind::NotFound
            }
            Self::Damaged { .. } | Self::Taken { .. } | Self::Version { .. } => false,
        }
    }
}

/// Names the obstacle, and what a person can do about it where that is known.
fn trouble(source: &std::io::Error) -> &'static str {
    match source.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "is full: free some space on it",
        ErrorKind::NotFound => "is not there: it was removed, or its file system is not mounted",
        _ => "cannot be reached",
    }
}
