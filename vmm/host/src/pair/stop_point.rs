//! Steps of the protocol at which a process can be made to stop or die, so that a campaign of
//! faults meets each exactly.
//!
//! Without the feature `crash-points` a step that is passed is nothing at all, and no variable is
//! read. With it, a build without debug assertions, such as a release build, is refused; and
//! `LOCKSTEP_STOP_POINT` may say `STEP:N:WHAT`, for example `before-send:17:KILL`: at the N-th
//! passing of that step the process says so on standard error and raises the signal, `KILL` or
//! `STOP`, at itself; or, with `HOLD400`, the thread that passes it, and no other, rests for 400
//! ms.

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
    /// An acknowledgement was read and nothing has followed from it; on a backup, is about to be
    /// sent.
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
    /// The replaying vCPU takes something from the loop. Backup, and a newcomer that has loaded.
    Replay,

    /// The machine's folder is about to be made in the store, or opened.
    BeforeFolder,
    /// The machine's folder is there.
    AfterFolder,
    /// A side that starts has read the store, and has done nothing about it.
    Looked,
    /// A side that starts is about to claim the generation in which it would begin the machine.
    BeforeBeginning,
    /// That claim is decided, and nothing has begun.
    AfterBeginning,
    /// The holder is about to give a sign of life.
    BeforeSeen,
    /// It has given one.
    AfterSeen,
    /// A side that joins is about to record itself in the store.
    BeforeRecord,
    /// It is recorded, and has said nothing of it.
    AfterRecord,
    /// A side that was not armed is about to remove its record.
    BeforeForget,
    /// The record is removed.
    AfterForget,
    /// The end of the machine is about to be recorded.
    BeforeEnded,
    /// The end is recorded.
    AfterEnded,
    /// A newcomer that lost the machine is about to start itself again.
    BeforeAgain,

    /// A newcomer was welcomed, and nothing is sent yet. Holder.
    Welcomed,
    /// A piece of the machine is about to be sent. Holder.
    BeforePiece,
    /// A round over the channel begins. Holder.
    Round,
    /// The vCPU is about to be stopped for the capture. Holder.
    BeforeCapture,
    /// The vCPU stands, and the machine is saved. Holder.
    Saved,
    /// The last pages are copied, and nobody was told of it. Holder.
    Captured,
    /// The role machine knows of the capture. Holder.
    SavedAt,
    /// Everything was sent, and the newcomer has not said that it has loaded it. Holder.
    AllSent,
    /// The newcomer has loaded the machine, and the role machine does not know. Holder.
    BeforeJoined,
    /// The newcomer is sent the log. Holder.
    AfterJoined,
    /// The gate is closed, and the newcomer is not told yet that it is armed. Holder.
    BeforeArming,
    /// The newcomer is told, and the message may not have left. Holder.
    AfterArming,

    /// The holder has welcomed this side. Newcomer.
    Found,
    /// A piece of the machine came. Newcomer.
    AfterPiece,
    /// All of the machine came. Newcomer.
    AllReceived,
    /// The machine that was received stands. Newcomer.
    Stands,
    /// The holder is about to be told that the machine is loaded. Newcomer.
    BeforeLoaded,
    /// The holder is told. Newcomer.
    AfterLoaded,
    /// The message that arms this side was read, and nothing has followed from it. Newcomer.
    BeforeArmed,
    /// This side is armed. Newcomer.
    AfterArmed,

    /// The guest is about to be asked to stand, for a switchover. Holder.
    BeforeStand,
    /// The guest stands, and the role machine may not know. Holder.
    GuestStands,
    /// The backup is about to be told that it may go on. Holder.
    BeforeHandover,
    /// The backup is told, and the message may not have left. Holder.
    AfterHandover,
    /// The message by which this side may go on was read, and nothing has followed from it. Backup.
    HandoverRead,

    /// A part of a common point is with the system. Holder.
    PartSent,
    /// A common point is with the system. Holder.
    CommonPointSent,
    /// An acknowledgement of a common point was read, and nothing has followed from it. Holder.
    CommonPointAcknowledged,
    /// A common point was read, and nothing has followed from it. Backup.
    CommonPointReceived,
    /// The vCPU has met a common point, and the role machine does not know. Backup.
    CommonPointMet,
}

impl Step {
    /// Every one, by its name.
    pub const NAMES: [(&str, Self); 60] = [
        ("log-entry", Self::LogEntry),
        ("before-send", Self::BeforeSend),
        ("after-send", Self::AfterSend),
        ("before-acknowledge", Self::BeforeAcknowledge),
        ("after-acknowledge", Self::AfterAcknowledge),
        ("before-release", Self::BeforeRelease),
        ("after-release", Self::AfterRelease),
        ("before-claim", Self::BeforeClaim),
        ("claim-linked", Self::ClaimLinked),
        ("after-claim", Self::AfterClaim),
        ("before-announce", Self::BeforeAnnounce),
        ("after-announce", Self::AfterAnnounce),
        ("going-live", Self::GoingLive),
        ("live", Self::Live),
        ("output-alone", Self::OutputAlone),
        ("replay", Self::Replay),
        ("before-folder", Self::BeforeFolder),
        ("after-folder", Self::AfterFolder),
        ("looked", Self::Looked),
        ("before-beginning", Self::BeforeBeginning),
        ("after-beginning", Self::AfterBeginning),
        ("before-seen", Self::BeforeSeen),
        ("after-seen", Self::AfterSeen),
        ("before-record", Self::BeforeRecord),
        ("after-record", Self::AfterRecord),
        ("before-forget", Self::BeforeForget),
        ("after-forget", Self::AfterForget),
        ("before-ended", Self::BeforeEnded),
        ("after-ended", Self::AfterEnded),
        ("before-again", Self::BeforeAgain),
        ("welcomed", Self::Welcomed),
        ("before-piece", Self::BeforePiece),
        ("round", Self::Round),
        ("before-capture", Self::BeforeCapture),
        ("saved", Self::Saved),
        ("captured", Self::Captured),
        ("saved-at", Self::SavedAt),
        ("all-sent", Self::AllSent),
        ("before-joined", Self::BeforeJoined),
        ("after-joined", Self::AfterJoined),
        ("before-arming", Self::BeforeArming),
        ("after-arming", Self::AfterArming),
        ("found", Self::Found),
        ("after-piece", Self::AfterPiece),
        ("all-received", Self::AllReceived),
        ("stands", Self::Stands),
        ("before-loaded", Self::BeforeLoaded),
        ("after-loaded", Self::AfterLoaded),
        ("before-armed", Self::BeforeArmed),
        ("after-armed", Self::AfterArmed),
        ("before-stand", Self::BeforeStand),
        ("guest-stands", Self::GuestStands),
        ("before-handover", Self::BeforeHandover),
        ("after-handover", Self::AfterHandover),
        ("handover-read", Self::HandoverRead),
        ("part-sent", Self::PartSent),
        ("common-point-sent", Self::CommonPointSent),
        ("common-point-acknowledged", Self::CommonPointAcknowledged),
        ("common-point-received", Self::CommonPointReceived),
        ("common-point-met", Self::CommonPointMet),
    ];
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

    /// Passing of the steps of a common point.
    pub mod common_point {
        use crate::pair::Carried;
        use lockstep_core::replica::role::Batch;
        use lockstep_logging_channel::Sequence;

        /// Nothing happens here.
        pub const fn queued(_: &[u8]) {}

        /// Nothing happens here.
        pub const fn sent() {}

        /// Nothing happens here.
        pub const fn acknowledged(_: Sequence) {}

        /// Nothing happens here.
        pub const fn received(_: &Batch<Carried>) {}

        /// Nothing happens here.
        pub const fn met(_: Sequence) {}
    }
}
#[cfg(not(feature = "crash-points"))]
pub use off::{arm, common_point, pass, pass_several};

#[cfg(feature = "crash-points")]
pub mod common_point;
#[cfg(feature = "crash-points")]
mod on;
#[cfg(feature = "crash-points")]
pub use on::{VARIABLE, arm, pass, pass_several};
