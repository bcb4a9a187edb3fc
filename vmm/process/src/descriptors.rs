//! File descriptors. A process that runs out of them cannot say what it lacks any more, so their
//! number is looked at first.

use nix::sys::resource::{Resource, getrlimit, setrlimit};

/// The most that a replica opens: 48 of its own (KVM, timers, terminal, network, report), 4 for each
/// of 4 disks (image, io_uring, the two ends of its bell), 64 connections that have not said who they
/// are, and 16 claims that wait for storage.
const DESCRIPTORS_MIN: u64 = 48 + 4 * 4 + 64 + 16;

/// Raises the limit to `wanted` where the hard limit allows it, and returns what holds then.
pub fn raise(wanted: u64) -> u64 {
    let Ok((soft, hard)) = getrlimit(Resource::RLIMIT_NOFILE) else {
        return u64::MAX;
    };
    let raised = hard.min(soft.max(wanted));
    match setrlimit(Resource::RLIMIT_NOFILE, raised, hard) {
        Ok(()) => raised,
        Err(_) => soft,
    }
}

/// The hard limit allows too few.
#[derive(Debug, thiserror::Error)]
#[error(
    "this process may open {limit} files and needs {needed}: raise the limit (`ulimit -n 1024`, or LimitNOFILE= of its service)"
)]
pub struct TooFewDescriptors {
    /// The limit.
    pub limit: u64,
    /// Number that is needed.
    pub needed: u64,
}

/// Provides as many as a command needs that runs machines.
///
/// # Errors
/// The hard limit allows fewer.
pub fn provide() -> Result<(), TooFewDescriptors> {
    let limit = raise(DESCRIPTORS_MIN);
    if limit < DESCRIPTORS_MIN {
        return Err(TooFewDescriptors {
            limit,
            needed: DESCRIPTORS_MIN,
        });
    }
    Ok(())
}
