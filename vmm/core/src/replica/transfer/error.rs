//! Why a transfer is refused.

use crate::machine::saved::SavedError;

/// Why a transfer is refused. No machine is built from a refused one.
#[derive(Debug, thiserror::Error)]
pub enum TransferError {
    /// Something else.
    #[error("this is not a transfer of a machine: it begins with other bytes")]
    Foreign,
    /// Of another release.
    #[error("the transfer has version {found}; this program reads version {known}")]
    Version {
        /// Its version.
        found: u16,
        /// The version that is read here.
        known: u16,
    },
    /// Of another machine.
    #[error("the transfer is of another machine: of pair {found}, not {expected}")]
    OtherMachine {
        /// Name of its pair, in hexadecimal.
        found: String,
        /// Name of the pair that was joined.
        expected: String,
    },
    /// A record that came before.
    #[error("the transfer repeats record {found}: record {expected} is next")]
    Repeated {
        /// Number of the record.
        found: u64,
        /// Number of the record that has to come.
        expected: u64,
    },
    /// Records are missing.
    #[error("the transfer lacks record {expected}: record {found} came instead")]
    Missing {
        /// Number of the record that has to come.
        expected: u64,
        /// Number of the record that came.
        found: u64,
    },
    /// A record of another form.
    #[error("record {number} of the transfer cannot be decoded: {why}")]
    Malformed {
        /// Number of the record that has to come.
        number: u64,
        /// Description of the defect.
        why: &'static str,
    },
    /// More than any sender sends.
    #[error("the transfer has more than {pages_max} memory pages")]
    TooLong {
        /// The bound.
        pages_max: u64,
    },
    /// Records behind the end.
    #[error("the transfer goes on behind its end")]
    BehindEnd,
    /// Not all of it came.
    #[error("the transfer was cut short: it ends before its {section}")]
    Cut {
        /// Name of the part that has to come.
        section: &'static str,
    },
    /// A section is refused.
    #[error(transparent)]
    Saved(#[from] SavedError),
}
