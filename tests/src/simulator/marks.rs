//! Rare paths, marked where they are taken: a set of runs that misses one has not tested it.

use std::fmt;

use super::points::Point;

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
    // What the run came to.
    BackupLive = "a backup went live",
    BackupLiveWithBacklog = "a backup won with entries unreplayed",
    PrimarySolo = "a primary went on alone",
    PrimaryFenced = "a primary was fenced",
    BackupFenced = "a backup was fenced",
    EndedTogether = "both sides ended with the guest",
    EndedByBackup = "the backup said the end",
    EndedAlone = "the primary ended alone",
    Stopped = "a side stopped as it was asked to",
    BothDead = "nobody was left",
    // The store.
    BothClaimed = "both sides claimed",
    WonOnRetry = "a claim was won after one without a verdict",
    StoreUnreachable = "a claim did not reach the store",
    StoreFailedAfterWork = "a claim was made and said to have failed",
    StoreFull = "a claim found the store full",
    StoreHung = "a claim hung in the store",
    StoreSwallowed = "a claim was never answered",
    StoreSlow = "a claim took more than a hundred times as long as usual",
    StoreSilent = "the store did not answer for a second",
    DiedBetweenHalves = "a side died between the halves of its test-and-set, and nothing was claimed",
    ClaimedByTheDead = "a side died between the halves of its test-and-set, and the claim was made after its death",
    BeatenBetweenHalves = "a side found a generation free, and the other took it first",
    CrashedBetweenClaimAndAnswer = "a side died between its claim and the answer",
    WinnerDied = "a side that had won died before the end",
    // The channel.
    ConnectionClosed = "a peer closed",
    BrokenAtPrimary = "the connection broke at the primary",
    BrokenAtBackup = "the connection broke at the backup, which waited out the lease",
    Damaged = "damage on the way was found by its checksum",
    Misread = "damage on the way was found before a checksum was there to compare",
    Left = "a peer said goodbye",
    Delayed = "a message was under way for longer than a quarter of the timeout",
    OneWay = "one direction was cut: a side fell silent to the other, and heard it",
    Partitioned = "both directions were cut",
    TooFar = "a primary heard its backup too late for too long, and went on without it",
    RoundTripTold = "a round trip that had grown was told",
    HeldTold = "outputs that waited for too long were told",
    FlowsTold = "that outputs leave again was told",
    BatchCut = "a batch was cut by its bytes",
    RepeatRefused = "the channel said again what it had said, and was parted from",
    RepeatIgnored = "the channel said again what it had said, and that changed nothing",
    // Replicas and their clocks.
    SilentPrimary = "a primary fell silent",
    SilentBackup = "a backup fell silent",
    WokeWithMail = "a primary was stopped beyond its timeout and woke with acknowledgements waiting",
    PrimaryWokeTooLate = "a primary woke after the backup had gone on",
    BackupWokeTooLate = "a backup woke after the primary had gone on",
    JoinedLate = "a backup joined after the primary had gone on without it",
    LateRelease = "a release was carried out too late, and dropped",
    HeldByLease = "an acknowledged output waited for the lease, and left",
    ClocksApart = "silence was found by clocks whose speeds differ by more than 5 in 100",
    JumpedClock = "the clock of a following backup jumped beyond its timeout",
    JumpedPrimary = "the clock of a protecting primary jumped beyond its timeout",
    WallWentBack = "the host's wall clock went back, and the guest's did not",
    ThrottledByWindow = "the guest waited for the window",
    ThrottledByOutput = "the guest waited for held outputs",
    ThrottledByLag = "the guest waited for a backup far behind",
    // Witnesses.
    WaitedAndLost = "a side that reached no witness waited, and the other went on",
    WaitedAndWon = "a side that reached no witness waited, and went on itself",
    WitnessCameBack = "a witness answered a side that waited, and it claimed at once",
    OldAnswer = "an answer of a witness was read when it was too old to count",
    // Newcomers.
    Loaded = "a newcomer has loaded a machine's state",
    ArmedIt = "a newcomer was armed",
    WasArmed = "a newcomer heard that it is armed",
    NotArmed = "a newcomer lost the machine before it was armed, and claimed nothing",
    DivergedAgain = "a replay differed from the log, and its side joined again",
    DivergedForGood = "a replay differed from the log, and its side joined no more",
    DivergedUnarmed = "the replay of a newcomer differed before it was armed",
    DivergedWinner = "the replay of one that had won differed before it was live",
    DivergenceTold = "who was live heard that the other's replay differed",
    NewcomerForgotten = "a newcomer was lost, and the machine ran on alone",
    NewcomerDiedLoading = "a newcomer died while the state was under way to it",
    NewcomerDiedLoaded = "a newcomer died when it had loaded, before the other side knew",
    NewcomerDiedCatchingUp = "a newcomer died while it caught up",
    HolderDiedCatchingUp = "the side that a newcomer had joined died while that caught up",
    LoadingTookTooLong = "a state was under way for too long, and its newcomer was given up",
    StateDamaged = "a state was damaged on the way, and refused",
    HolderGoneWhileLoading = "the side that sent its state was gone before the newcomer had loaded it",
    LogTooLong = "the log that was kept for a newcomer became too long",
    TooSlow = "a newcomer did not catch up, and was given up",
    ThrottledInSlices = "the guest waited for slices of time for a newcomer",
    StartedAfresh = "an operator started the machine afresh while somebody acted alone",
    SawLaterGeneration = "who acted alone saw that a later generation exists",
    ArmedUnheard = "one that was armed never heard of it, and the other side claimed",
    ArmedTookOver = "a newcomer that was armed took over",
    FifthGeneration = "a machine came to its fifth generation",
    TenthGeneration = "a machine came to its tenth generation",
    EndedWithNewcomer = "the guest ended, or its process was stopped, while a newcomer was with it",
    // Common points.
    CommonPointMade = "a common point was made",
    CommonPointMet = "a common point was met",
    CommonPointAlone = "a guest that nobody followed was stopped at a common point",
    RanBetweenParts = "a guest ran on between two parts",
    CapturedInStretch = "a machine was captured where it made no exit",
    CapturedAmongParts = "a machine was captured behind parts of a common point",
    LiveInStretch = "a backup went live where it made no exit",
    LiveBehindParts = "a backup went live behind parts of a common point that never came",
    // Checkpoint mode.
    EpochEnded = "an epoch ended with a common point",
    EpochEndedEarly = "an epoch ended early, because the guest had said much",
    IdleEpochEnded = "the epoch of an idle guest ended",
    WasPut = "a backup that does not run was put to a common point",
    LiveFromPoint = "a backup that does not run went live from a common point",
    LiveFromStart = "a backup that does not run went live where it began, before any common point",
    LiveAmongParts = "a backup that does not run went live behind parts of an epoch that was not over",
    UnfinishedDropped = "outputs of an epoch that was not over were dropped by who went live",
    HeldLetGo = "outputs that were held left, because nobody followed any more",
    EndFollowed = "a backup that does not run ended with the guest that it followed",
    BroughtAlong = "a guest that was to stand brought its backup along",
    // Switchovers.
    HandedOver = "a primary handed over to its backup",
    TakingOver = "a backup was handed over to",
    SwitchedOver = "a side lost the machine in a switchover, and began anew",
    KeptAfterHandover = "a primary that had handed over went on, because its backup had not claimed",
    GuestWentOn = "a guest that stood for a switchover went on, because the backup was lost",
    HandedBack = "a side that had taken over handed over",
    // Disks.
    DiskAskedAgain = "a shared disk was asked again by who went live",
    DiskLostPower = "a host lost its power, and with it what its disk had not flushed",
    DiskComparedInPart = "a newcomer's disk was compared in part",
    DiskChangedBehind = "a disk did at a common point what that of the live guest had done",
    DiskDiffered = "a replay's own disk read something else than the log says",
    // Clients and the network outside.
    SaidTwice = "an output of the dead primary was said again",
    SaidByBackup = "an output was first said by the backup that took over",
    FramesLost = "a network card was full",
    Retransmitted = "a client asked again",
    Overtaken = "an output of the old generation reached the switch after the new one's announcement, and was refused",
}

/// The marks and points a run, or many, have reached.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Marks {
    paths: u128,
    points: u128,
}

/// Every mark has its bit.
const _: () = assert!(Mark::ALL.len() <= u128::BITS as usize);

impl Marks {
    /// Reaches a mark.
    pub fn reach(&mut self, mark: Mark) {
        self.paths |= 1 << mark as u64;
    }

    /// A process was struck there.
    pub fn strike(&mut self, point: Point) {
        self.points |= 1 << point.number();
    }

    /// Whether it was reached.
    #[must_use]
    pub fn has(self, mark: Mark) -> bool {
        self.paths & 1 << mark as u64 != 0
    }

    /// Marks of both.
    pub fn add(&mut self, other: Self) {
        self.paths |= other.paths;
        self.points |= other.points;
    }

    /// What was not reached, in words.
    #[must_use]
    pub fn missing(self) -> Vec<String> {
        let paths = Mark::ALL.iter().filter(|mark| !self.has(**mark));
        let points = Point::all().filter(|point| self.points & 1 << point.number() == 0);
        paths
            .map(ToString::to_string)
            .chain(points.map(|point| point.to_string()))
            .collect()
    }

    /// How many there are to reach: marks, and points.
    #[must_use]
    pub fn count() -> (usize, usize) {
        (Mark::ALL.len(), Point::all().count())
    }
}

impl fmt::Display for Mark {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(self.text())
    }
}
