//! Outcomes of a load, in words.

use crate::header::Header;
use crate::ledger::Difference;
use core::fmt;
use lockstep_guest_runtime::requests::{self, Failed};

/// Failure of a load. The guest ends with it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wrong {
    /// The disk has no room for header and area.
    TooSmall,
    /// The disk holds something else.
    Foreign,
    /// The disk is of a load with another seed or area.
    Other(Header),
    /// A sector is not as it must be.
    Differs(Difference),
    /// A request failed.
    Failed(requests::Operation, Failed),
    /// A request that makes no sense was not refused.
    Accepted(requests::Operation),
}

impl fmt::Display for Wrong {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::TooSmall => formatter.write_str("the disk is too small"),
            Self::Foreign => formatter.write_str("the disk holds something else"),
            Self::Other(header) => write!(
                formatter,
                "the disk is of a load with seed {} on {} sectors",
                header.seed, header.sectors
            ),
            Self::Differs(difference) => write!(formatter, "differs: {difference}"),
            Self::Failed(operation, failed) => write!(formatter, "{operation:?} failed: {failed:?}"),
            Self::Accepted(operation) => write!(formatter, "{operation:?} was not refused"),
        }
    }
}

/// Outcome of a load, in words.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Note {
    /// The area was compared with what it must hold; the work begins.
    Begins {
        /// As it is on the disk now.
        header: Header,
        /// Sectors that hold what a request beyond the flushed ones wrote.
        newer: u64,
    },
    /// So many requests are done since then.
    Progress(u64),
    /// The end.
    Over {
        /// Requests that are done.
        requests: u64,
        /// Bytes that were read.
        read_bytes: u64,
        /// Sum over the digests of all that requests of the plan have read.
        read: u64,
        /// Digest of the area.
        content: u64,
    },
}
