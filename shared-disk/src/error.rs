//! Why a store gave no answer.

use std::io::ErrorKind;
use std::path::PathBuf;

/// Why a store gave no answer. What was asked may or may not have been done: ask again.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The storage does not answer now and may later.
    #[error("shared storage {} {} ({doing})", path.display(), trouble(source))]
    Unreachable {
        /// What was being accessed.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// The storage will not do as it is: no directory, no permission, no hard links.
    #[error("shared storage {} cannot be used ({doing}): {hint}", path.display())]
    Unusable {
        /// What was being accessed.
        path: PathBuf,
        /// What was being done.
        doing: &'static str,
        /// What to do about it.
        hint: &'static str,
        /// What the system said.
        source: std::io::Error,
    },
    /// A file of the store does not say what this software writes there.
    #[error("shared storage: {} is damaged or not ours: {detail}", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What is wrong in it.
        detail: &'static str,
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
            Self::Damaged { .. } => false,
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
            Self::Damaged { .. } => false,
        }
    }
}

/// What stands in the way, and what a person can do about it where that is known.
fn trouble(source: &std::io::Error) -> &'static str {
    match source.kind() {
        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => "is full: free some space on it",
        ErrorKind::NotFound => "is not there: it was removed, or its file system is not mounted",
        _ => "cannot be reached",
    }
}
