//! Exit statuses (docs/errors.md).

use std::process::ExitCode;

/// Documented exit statuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Status {
    /// All went well.
    Success = 0,
    /// The guest failed, or something else that has no status of its own.
    Failure = 1,
    /// The command line is wrong.
    Usage = 2,
    /// The configuration, or a file it names, is wrong.
    Configuration = 3,
    /// The host lacks something.
    Host = 4,
    /// A replay differs from its log.
    Divergence = 40,
    /// Another machine of the pair has gone on alone.
    Fenced = 41,
    /// The log is damaged.
    DamagedLog = 42,
    /// The peer or the environment does not match.
    Mismatch = 43,
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> Self {
        Self::from(status as u8)
    }
}
