//! Deliberate defects: the simulator must find each of them, or it proves nothing.
//!
//! Without the feature `mutants` every question asked here is the constant `false`, and no switch
//! exists. With it, a build without debug assertions, such as a release build, is refused.

#[cfg(all(feature = "mutants", not(debug_assertions)))]
compile_error!("the feature `mutants` breaks replicas on purpose: it cannot be part of a release build");

/// A deliberate defect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Mutant {
    /// An output leaves when the entry before it is acknowledged.
    ReleaseOneEarly,
    /// The backup acknowledges an entry more than it has.
    AcknowledgeUnread,
    /// Whoever wants to act alone does so without asking the store.
    SkipTestAndSet,
    /// A claim that was lost counts as won.
    TakeLostForWon,
    /// A claim without a verdict counts as won.
    TakeUnreachableForWon,
    /// A replica that has lost a generation claims the next.
    LoserClaimsTheNext,
    /// A claim without a verdict is not made again.
    AskOnce,
    /// A claim that is not answered is not made again beside it.
    TrustAHangingQuestion,
    /// Outputs that wait leave while the store is asked.
    SpeakWhileClaiming,
    /// The backup goes live with entries unreplayed.
    GoLiveEarly,
    /// The primary releases whatever is acknowledged, without a lease.
    IgnoreLease,
    /// The lease counts from hearing the echo.
    LeaseFromHearing,
    /// The backup claims after an eighth of the timeout.
    ImpatientBackup,
    /// The backup takes a jump of its clock for silence.
    CountJumpsAsSilence,
    /// The backup claims at once when the connection breaks on its own side.
    DoNotWaitOutLease,
    /// Nobody asks to be woken.
    ForgetTimer,
    /// The backup forgets what it has received and not what has left.
    ForgetUnreleased,
    /// The backup takes the end of the log for the end of what is to be said.
    EndIsEnough,
    /// The primary leaves before the end entry is acknowledged.
    LeaveBeforeTheEnd,
    /// The window is not kept.
    IgnoreWindow,
    /// Once told to wait, the guest waits for ever.
    ThrottleForEver,
    /// The switch lets through what a generation says that is over.
    AcceptOldGeneration,
    /// A backup that goes live starts its clocks anew.
    ForgetTime,
    /// The primary lets the backup run past entries that may still come.
    AdvanceTooFar,
    /// A side that reaches no witness claims without waiting.
    IgnoreWitness,
    /// Any answer of a witness counts, however long ago.
    TrustStaleWitness,
    /// A side waits before it claims though it reaches a witness.
    WaitThoughReached,
    /// A side that reaches no witness never claims.
    WaitForEver,
    /// The primary waits for ever for a lease that echoes renew too late.
    WaitForTheLease,
    /// Entries are sent as fast as they are made, however long the channel takes for them.
    FillTheChannel,
    /// Entries are sent however much output the backup keeps.
    IgnoreKeptOutputs,
    /// A batch is as large as what one execution point has logged.
    NeverCutBatches,
    /// A newcomer is armed before it was sent every entry.
    ArmTooEarly,
    /// A newcomer is armed however far its replay is behind.
    ArmFarBehind,
    /// The gate closes some time after the newcomer was armed.
    CloseGateLate,
    /// A newcomer claims before it is armed.
    ClaimUnarmed,
    /// Pages that were written while the state was under way are not in it.
    LeavePageOut,
    /// The log that is kept for a newcomer lacks its beginning.
    LogOneBatchLate,
    /// A newcomer that is lost is waited for.
    KeepLostNewcomer,
    /// A replica that acts alone goes on though a later generation exists.
    IgnoreLaterGeneration,
    /// A primary that has handed over goes on, whatever the store says.
    ActAfterHandingOver,
    /// A primary hands over before everything was acknowledged and has left.
    HandOverUnacknowledged,
    /// A primary that has handed over does not look whether its backup goes on.
    HandOverForEver,
    /// An entry that does not fit its batch is in none.
    LoseAtBorder,
    /// An entry that does not fit its batch is in this one and in the next.
    RepeatAtBorder,
    /// A backup whose replay differs claims, as if it had lost its primary.
    ClaimDiverged,
    /// One that differs when it has won joins again.
    JoinAgainThoughWon,
    /// A batch is not handed over when the guest idles.
    KeepWhenIdle,
    /// A guest that was told to wait runs on.
    IgnoreThrottle,
    /// The exit that the recording has passed is reported to the replay before entries that came
    /// earlier.
    AdvanceOvertakes,
    /// Outputs right before the guest's end are not reported by its replay.
    KeepTheEnd,
    /// Typed bytes wait as long as there is a frame.
    FramesFirst,
    /// The source that something was taken from is asked first again.
    TakeFromTheSame,
    /// Frames whose time is over are let out.
    LetLateOut,
    /// Console text whose time is over is dropped.
    DropLateText,
    /// Outputs leave behind everything else of their step.
    LetOutLast,
    /// The count of exits is told before the entries that were logged on the way.
    CountBeforeEntries,
    /// The end of the guest is told before the entries that it logged last.
    EndBeforeEntries,
    /// Guest time of a backup that goes live may be behind the counter.
    ForgetCounter,
    /// The guest's wall clock is the host's, also where that goes back.
    WallFollowsHost,
    /// A replay lets an event in at another device that takes such a thing.
    EnterElsewhere,
    /// The first of the pages that are taken at a common point is not in it.
    LeaveOutOfPart,
    /// The log of written pages is read when the pages of a common point have been taken.
    ReadWritesLate,
    /// A common point gives its memory, and the registers stay those of the exit before.
    KeepRegisters,
    /// The pages of a part are counted, and the part is not in the log.
    LosePart,
    /// The next common point covers parts from before a machine was captured.
    CountOldParts,
    /// A replay runs on though a common point may come next.
    RunPastUnknown,
    /// A replay runs on though a common point comes next.
    RunPastCommonPoint,
    /// A replay lets nothing in at a common point.
    EnterOnOneSide,
    /// In checkpoint mode, an output waits for its own entry instead of the common point behind it.
    LetGoWithItsEntry,
    /// The outputs of an epoch wait for its last part instead of its common point.
    LetGoWithLastPart,
    /// An output counts on the backup before the common point behind it has come.
    SayUnfinishedEpoch,
    /// A backup drops the outputs that a common point lets go.
    ForgetHeldOutputs,
    /// A primary drops what it holds for a common point when nobody follows any more.
    ForgetHeldAlone,
    /// A backup goes live with pages of an epoch that was not over.
    PutHalfAnEpoch,
    /// A backup goes live with the registers of the first common point that it met.
    KeepFirstRegisters,
    /// A common point does not tell the guest times of its epoch.
    ForgetEpochTimes,
    /// A machine that is captured in checkpoint mode does not log what it writes from then on.
    LogWritesTooLate,
    /// A backup that does not run has its disk do what comes before the common point behind it.
    ChangeDisksAtOnce,
    /// A backup that does not run does not have its disk do what a common point has.
    ForgetChanges,
    /// A machine that goes live from a common point does not ask its disk for what was not done.
    ForgetOutstanding,
    /// A disk says that it has written what it is still writing.
    CompleteBeforeTheWrite,
    /// A machine that goes live does what its disk has left in the wrong order.
    ReissueBackwards,
    /// A flush waits for nothing.
    FlushAtOnce,
    /// Who replays touches a shared disk.
    TouchBeforeTheClaim,
    /// What one's own disk reads is not compared.
    BelieveOwnDisk,
    /// The last block of what is written is not marked.
    MarkOneBlockShort,
    /// Blocks are marked when they have been written.
    MarkBehindTheWrite,
    /// With the marks of before a flush those are cleared that were made before it was done.
    ClearWhatFollows,
}

impl Mutant {
    /// Every one of them.
    pub const ALL: &[Self] = &[
        Self::ReleaseOneEarly,
        Self::AcknowledgeUnread,
        Self::SkipTestAndSet,
        Self::TakeLostForWon,
        Self::TakeUnreachableForWon,
        Self::LoserClaimsTheNext,
        Self::AskOnce,
        Self::TrustAHangingQuestion,
        Self::SpeakWhileClaiming,
        Self::GoLiveEarly,
        Self::IgnoreLease,
        Self::LeaseFromHearing,
        Self::ImpatientBackup,
        Self::CountJumpsAsSilence,
        Self::DoNotWaitOutLease,
        Self::ForgetTimer,
        Self::ForgetUnreleased,
        Self::EndIsEnough,
        Self::LeaveBeforeTheEnd,
        Self::IgnoreWindow,
        Self::ThrottleForEver,
        Self::AcceptOldGeneration,
        Self::ForgetTime,
        Self::AdvanceTooFar,
        Self::IgnoreWitness,
        Self::TrustStaleWitness,
        Self::WaitThoughReached,
        Self::WaitForEver,
        Self::WaitForTheLease,
        Self::FillTheChannel,
        Self::IgnoreKeptOutputs,
        Self::NeverCutBatches,
        Self::ArmTooEarly,
        Self::ArmFarBehind,
        Self::CloseGateLate,
        Self::ClaimUnarmed,
        Self::LeavePageOut,
        Self::LogOneBatchLate,
        Self::KeepLostNewcomer,
        Self::IgnoreLaterGeneration,
        Self::ActAfterHandingOver,
        Self::HandOverUnacknowledged,
        Self::HandOverForEver,
        Self::LoseAtBorder,
        Self::RepeatAtBorder,
        Self::ClaimDiverged,
        Self::JoinAgainThoughWon,
        Self::KeepWhenIdle,
        Self::IgnoreThrottle,
        Self::AdvanceOvertakes,
        Self::KeepTheEnd,
        Self::FramesFirst,
        Self::TakeFromTheSame,
        Self::LetLateOut,
        Self::DropLateText,
        Self::LetOutLast,
        Self::CountBeforeEntries,
        Self::EndBeforeEntries,
        Self::ForgetCounter,
        Self::WallFollowsHost,
        Self::EnterElsewhere,
        Self::LeaveOutOfPart,
        Self::ReadWritesLate,
        Self::KeepRegisters,
        Self::LosePart,
        Self::CountOldParts,
        Self::RunPastUnknown,
        Self::RunPastCommonPoint,
        Self::EnterOnOneSide,
        Self::LetGoWithItsEntry,
        Self::LetGoWithLastPart,
        Self::SayUnfinishedEpoch,
        Self::ForgetHeldOutputs,
        Self::ForgetHeldAlone,
        Self::PutHalfAnEpoch,
        Self::KeepFirstRegisters,
        Self::ForgetEpochTimes,
        Self::LogWritesTooLate,
        Self::ChangeDisksAtOnce,
        Self::ForgetChanges,
        Self::ForgetOutstanding,
        Self::CompleteBeforeTheWrite,
        Self::ReissueBackwards,
        Self::FlushAtOnce,
        Self::TouchBeforeTheClaim,
        Self::BelieveOwnDisk,
        Self::MarkOneBlockShort,
        Self::MarkBehindTheWrite,
        Self::ClearWhatFollows,
    ];
}

#[cfg(feature = "mutants")]
thread_local! {
    static ACTIVE: std::cell::Cell<Option<Mutant>> = const { std::cell::Cell::new(None) };
}

/// Makes this thread's replicas do that wrong, or nothing.
#[cfg(feature = "mutants")]
pub fn activate(mutant: Option<Mutant>) {
    ACTIVE.set(mutant);
}

/// True where this is done wrong now.
#[cfg(feature = "mutants")]
#[must_use]
pub fn is(mutant: Mutant) -> bool {
    ACTIVE.get() == Some(mutant)
}

/// Nothing is done wrong.
#[cfg(not(feature = "mutants"))]
#[must_use]
pub const fn is(_: Mutant) -> bool {
    false
}
