//! The number that the log, the store of claims and the network's announcements share.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Ordinal of a period. At most one virtual machine acts alone in each.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Generation(pub u32);

impl Generation {
    /// The generation in which a machine that has none begins.
    pub const FIRST: Self = Self(1);

    /// The generation after this one; `None` after the last that can be counted.
    #[must_use]
    pub fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }
}

impl fmt::Display for Generation {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}
