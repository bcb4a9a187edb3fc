//! Steps of the protocol at which a process can be made to stop or die, so that a campaign of faults meets each exactly.
//!
//! Without the feature `crash-points` a step that is passed is nothing at all, and no variable is read. With it, a build without debug
//! assertions, such as a release build, is refused; and `LOCKSTEP_STOP_POINT` may say `STEP:N:SIGNAL`, for example `before-send:17:KILL`: at the
//! N-th passing of that step the process says so on standard error and raises the signal, `KILL` or `STOP`, at itself.

#[cfg(all(feature = "crash-points", not(debug_assertions)))]
compile_error!("the feature `crash-points` kills replicas on purpose: it cannot be part of a release build");

/// A place in the protocol. On a primary and on a backup unless said otherwise.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// An entry was appended here, or was received.
    LogEntry,
    /// Entries are about to be sent: none of them has left. Primary.
    BeforeSend,
    /// All that was to be sent is with the system.
    AfterSend,
    /// An acknowledgement was read and nothing has followed from it; on a backup, is about to be sent.
    BeforeAcknowledge,
    /// An acknowledgement was taken, and what it lets out has left. Primary.
    AfterAcknowledge,
    /// An output that was acknowledged is about to leave. Primary.
    BeforeRelease,
    /// An output has left.
    AfterRelease,
    /// The store is about to be asked.
    BeforeClaim,
    /// The claim has its name, and may not be durable yet.
    ClaimLinked,
    /// The store has decided, and nobody here knows.
    AfterClaim,
    /// The generation is won, and the network has not been told.
    BeforeAnnounce,
    /// The network has been told.
    AfterAnnounce,
    /// The replaying vCPU is about to be told to go live. Backup.
    GoingLive,
    /// The vCPU is live, and the role machine does not know. Backup.
    Live,
    /// An output is about to leave without a peer: the first is that after a failover.
    OutputAlone,
}

#[cfg(not(feature = "crash-points"))]
mod off {
    use super::Step;
    use crate::error::RunError;

    /// Nothing is armed.
    ///
    /// # Errors
    /// Never.
    pub const fn arm() -> Result<(), RunError> {
        Ok(())
    }

    /// Nothing happens here.
    pub const fn pass(_: Step) {}

    /// Nothing happens here.
    pub const fn pass_several(_: Step, _: u64) {}
}
#[cfg(not(feature = "crash-points"))]
pub use off::{arm, pass, pass_several};

#[cfg(feature = "crash-points")]
mod on;
#[cfg(feature = "crash-points")]
pub use on::{VARIABLE, arm, pass, pass_several};
