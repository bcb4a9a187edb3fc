//! The sides of a pair.

/// One of the two replicas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Side {
    /// The one that starts live.
    Primary,
    /// The one that starts replaying.
    Backup,
}

impl Side {
    /// Both.
    pub const BOTH: [Self; 2] = [Self::Primary, Self::Backup];

    /// The other one.
    #[must_use]
    pub fn other(self) -> Self {
        match self {
            Self::Primary => Self::Backup,
            Self::Backup => Self::Primary,
        }
    }

    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Backup => "backup",
        }
    }

    /// Its index in an array of both.
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }
}
