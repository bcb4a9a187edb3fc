//! Rare paths, marked where they are taken: a set of runs that misses one has not tested it.

use std::fmt;

macro_rules! marks {
    ($($mark:ident = $text:literal,)*) => {
        /// A path worth reaching.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum Mark {
            $(#[doc = $text] $mark,)*
        }

        impl Mark {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$mark,)*];

            /// What happened.
            #[must_use]
            pub fn text(self) -> &'static str {
                match self {
                    $(Self::$mark => $text,)*
                }
            }
        }
    };
}

marks! {
    BackupLive = "a backup went live",
    BackupLiveWithBacklog = "a backup won with entries unreplayed",
    PrimarySolo = "a primary went on alone",
    PrimaryFenced = "a primary was fenced",
    BackupFenced = "a backup was fenced",
    BothClaimed = "both sides claimed",
    ClaimFailed = "a claim got no verdict",
    ClaimFailedAfterWork = "a claim was made and said to have failed",
    WonOnRetry = "a claim was won after one without a verdict",
    CrashedBetweenClaimAndAnswer = "a side died between its claim and the answer",
    WinnerDied = "a side that had won died before the end",
    StorageSilent = "the store did not answer for a second",
    SilentPrimary = "a primary fell silent",
    SilentBackup = "a backup fell silent",
    ConnectionClosed = "a peer closed",
    BrokenAtPrimary = "the connection broke at the primary",
    BrokenAtBackup = "the connection broke at the backup, which waited out the lease",
    Damaged = "damage on the way was found",
    Left = "a peer said goodbye",
    WokeWithMail = "a primary was stopped beyond its timeout and woke with acknowledgements waiting",
    LateRelease = "a release was carried out too late, and dropped",
    HeldByLease = "an acknowledged output waited for the lease, and left",
    SaidTwice = "an output of the dead primary was said again",
    SaidByBackup = "an output was first said by the backup that took over",
    JumpedClock = "the clock of a following backup jumped beyond its timeout",
    ThrottledByWindow = "the guest waited for the window",
    ThrottledByOutput = "the guest waited for held outputs",
    ThrottledByLag = "the guest waited for a backup far behind",
    EndedTogether = "both sides ended with the guest",
    EndedByBackup = "the backup said the end",
    EndedAlone = "the primary ended alone",
    Stopped = "a side stopped as it was asked to",
    BothDead = "nobody was left",
    FramesLost = "a network card was full",
    Retransmitted = "a client asked again",
}

/// The marks a run, or many, have reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks(u64);

impl Marks {
    /// Reaches a mark.
    pub fn reach(&mut self, mark: Mark) {
        self.0 |= 1 << mark as u64;
    }

    /// Whether it was reached.
    #[must_use]
    pub fn has(self, mark: Mark) -> bool {
        self.0 & 1 << mark as u64 != 0
    }

    /// Marks of both.
    pub fn add(&mut self, other: Self) {
        self.0 |= other.0;
    }

    /// Those not reached.
    #[must_use]
    pub fn missing(self) -> Vec<Mark> {
        Mark::ALL
            .iter()
            .copied()
            .filter(|mark| !self.has(*mark))
            .collect()
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.text())
    }
}
