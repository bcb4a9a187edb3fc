//! How far the primary may be ahead of its backup. Pure: time comes in as nanoseconds.
//!
//! Both instruments count entries from their sequence numbers, and take cumulative acknowledgements.
//! They never lose anything: where a limit is reached they say so, and the primary waits.

mod lag;
mod window;

pub use lag::{LAG_ENTRIES_MAX, Lag, LagLimits};
pub use window::{WINDOW_BYTES_MAX, Window};

use crate::Sequence;

/// A peer that says what cannot be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FlowError {
    /// It has replayed what was never appended.
    #[error("entry {} is acknowledged, but only {} were appended", acknowledged.0, appended.0)]
    NeverAppended {
        /// The entry it named.
        acknowledged: Sequence,
        /// The entry that would be appended next.
        appended: Sequence,
    },
}
