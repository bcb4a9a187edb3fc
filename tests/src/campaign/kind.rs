//! Kinds of rounds: which fault, at which point. Written `FAULT@POINT`, in checkpoint mode
//! `checkpoint:FAULT@POINT`.

pub use crate::simulator::Side;
use std::fmt;
use std::str::FromStr;

/// What is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// SIGKILL.
    Kill(Side),
    /// SIGKILL to both.
    KillBoth,
    /// SIGSTOP, and SIGCONT later.
    Stop(Side),
    /// The same to both, for different times.
    StopBoth,
    /// This side is killed while the other is stopped.
    KillWhileOtherStopped(Side),
    /// Both connections of the channel are closed.
    Close,
    /// What goes to this side is swallowed; with `None`, everything.
    Blackhole(Option<Side>),
    /// A byte of what goes to this side is changed.
    Damage(Side),
    /// The shared storage is away for a while.
    StorageAway,
    /// The same, and this side is killed meanwhile.
    StorageAwayKill(Side),
    /// The same, and the channel swallows everything.
    StorageAwayBlackhole,
    /// The host of this side loses the channel and the clients at once; with `None`, both hosts do,
    /// and the clients are given back later.
    Isolate(Option<Side>),
    /// The way to the primary becomes long, and then the primary is killed: outputs that the
    /// backup has wait for acknowledgements that are under way.
    SlowKillPrimary,
    /// The same, and then a byte of what goes to the backup is changed.
    SlowDamageToBackup,
    /// The same, and then what goes to the backup is swallowed.
    SlowBlackholeToBackup,
    /// The way to the primary becomes longer and longer, until every answer is older than the
    /// timeout: it has no lease any more. Then what goes to the backup is swallowed.
    FarBlackholeToBackup,
    /// The backup's vCPU rests at the point, for longer than anything else takes, and then the
    /// primary is killed: the backup has acknowledged what it has not replayed.
    HoldReplayKillPrimary,
}

impl Fault {
    /// Every one that comes at any point.
    pub const ALL: [Self; 21] = [
        Self::Kill(Side::Primary),
        Self::Kill(Side::Backup),
        Self::KillBoth,
        Self::Stop(Side::Primary),
        Self::Stop(Side::Backup),
        Self::StopBoth,
        Self::KillWhileOtherStopped(Side::Primary),
        Self::KillWhileOtherStopped(Side::Backup),
        Self::Close,
        Self::Blackhole(None),
        Self::Blackhole(Some(Side::Primary)),
        Self::Blackhole(Some(Side::Backup)),
        Self::Damage(Side::Primary),
        Self::Damage(Side::Backup),
        Self::StorageAway,
        Self::StorageAwayKill(Side::Primary),
        Self::StorageAwayKill(Side::Backup),
        Self::StorageAwayBlackhole,
        Self::Isolate(Some(Side::Primary)),
        Self::Isolate(Some(Side::Backup)),
        Self::Isolate(None),
    ];

    /// Those that come at a time only, because they begin a while before.
    pub const SLOW: [Self; 4] = [
        Self::SlowKillPrimary,
        Self::SlowDamageToBackup,
        Self::SlowBlackholeToBackup,
        Self::FarBlackholeToBackup,
    ];

    /// Signal with which `side` meets its own stop point: it dies there if it is the one that is to
    /// be killed.
    #[must_use]
    pub fn own_signal(self, side: Side) -> &'static str {
        if self == Self::Kill(side) { "KILL" } else { "STOP" }
    }

    /// True if its length is drawn.
    #[must_use]
    pub fn lasts(self) -> bool {
        matches!(
            self,
            Self::Stop(_)
                | Self::StopBoth
                | Self::KillWhileOtherStopped(_)
                | Self::StorageAway
                | Self::StorageAwayKill(_)
                | Self::StorageAwayBlackhole
                | Self::Isolate(None)
        )
    }

    /// True if the sides need a host each.
    #[must_use]
    pub fn needs_hosts(self) -> bool {
        matches!(self, Self::Isolate(_))
    }

    /// True if the channel swallows something.
    #[must_use]
    pub fn swallows(self) -> bool {
        matches!(self, Self::Blackhole(_) | Self::StorageAwayBlackhole)
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Kill(side) => write!(formatter, "kill-{}", side.name()),
            Self::KillBoth => formatter.write_str("kill-both"),
            Self::Stop(side) => write!(formatter, "stop-{}", side.name()),
            Self::StopBoth => formatter.write_str("stop-both"),
            Self::KillWhileOtherStopped(side) => {
                write!(formatter, "kill-{}-stop-{}", side.name(), side.other().name())
            }
            Self::Close => formatter.write_str("close"),
            Self::Blackhole(None) => formatter.write_str("blackhole"),
            Self::Blackhole(Some(side)) => write!(formatter, "blackhole-to-{}", side.name()),
            Self::Damage(side) => write!(formatter, "damage-to-{}", side.name()),
            Self::StorageAway => formatter.write_str("storage-away"),
            Self::StorageAwayKill(side) => write!(formatter, "storage-away-kill-{}", side.name()),
            Self::StorageAwayBlackhole => formatter.write_str("storage-away-blackhole"),
            Self::Isolate(Some(side)) => write!(formatter, "isolate-{}", side.name()),
            Self::Isolate(None) => formatter.write_str("isolate-both"),
            Self::SlowKillPrimary => formatter.write_str("slow-kill-primary"),
            Self::SlowDamageToBackup => formatter.write_str("slow-damage-to-backup"),
            Self::SlowBlackholeToBackup => formatter.write_str("slow-blackhole-to-backup"),
            Self::FarBlackholeToBackup => formatter.write_str("far-blackhole-to-backup"),
            Self::HoldReplayKillPrimary => formatter.write_str("hold-replay-kill-primary"),
        }
    }
}

/// When it is done.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Place {
    /// At a time.
    Time,
    /// When this side passes this step of the protocol. The steps are those of the product's stop
    /// points.
    Step(Side, &'static str),
}

/// Steps of a pair that protects.
const PROTECTED: [(Side, &str); 10] = [
    (Side::Primary, "log-entry"),
    (Side::Primary, "before-send"),
    (Side::Primary, "after-send"),
    (Side::Primary, "before-acknowledge"),
    (Side::Primary, "after-acknowledge"),
    (Side::Primary, "before-release"),
    (Side::Primary, "after-release"),
    (Side::Backup, "log-entry"),
    (Side::Backup, "before-acknowledge"),
    (Side::Backup, "after-send"),
];

/// Steps of a common point, of the side that passes each.
pub const COMMON_POINT: [(Side, &str); 5] = [
    (Side::Primary, "part-sent"),
    (Side::Primary, "common-point-sent"),
    (Side::Primary, "common-point-acknowledged"),
    (Side::Backup, "common-point-received"),
    (Side::Backup, "common-point-met"),
];

/// Losses of a side, for a while or for ever, one of each first.
pub const LOSSES: [Fault; 4] = [
    Fault::Kill(Side::Primary),
    Fault::Stop(Side::Primary),
    Fault::Kill(Side::Backup),
    Fault::Stop(Side::Backup),
];

/// Every loss at each of `steps`, so that the first few have each step, and each loss, once.
pub fn in_turn(steps: &[(Side, &'static str)]) -> Vec<(Fault, Place)> {
    let turned = (0..LOSSES.len()).flat_map(|turn| {
        let losses = LOSSES.into_iter().cycle().skip(turn);
        steps
            .iter()
            .zip(losses)
            .map(|((side, step), fault)| (fault, Place::Step(*side, step)))
    });
    turned.collect()
}

/// The step at which a claim is made.
pub const CLAIM_LINKED: &str = "claim-linked";

/// Steps of either side's way to acting alone.
const BEFORE_THE_VERDICT: [&str; 2] = ["before-claim", "after-claim"];
const AFTER_WINNING: [&str; 4] = [CLAIM_LINKED, "before-announce", "after-announce", "output-alone"];
/// Steps that only a backup has.
const GOING_LIVE: [&str; 2] = ["going-live", "live"];

impl Place {
    /// The side and its step.
    #[must_use]
    pub fn step(self) -> Option<(Side, &'static str)> {
        match self {
            Self::Time => None,
            Self::Step(side, step) => Some((side, step)),
        }
    }

    /// True if it comes only in a failover.
    #[must_use]
    pub fn is_in_failover(self) -> bool {
        let is_in = |step: &str| {
            BEFORE_THE_VERDICT.contains(&step) || AFTER_WINNING.contains(&step) || GOING_LIVE.contains(&step)
        };
        self.step().is_some_and(|(_, step)| is_in(step))
    }

    /// True if a side passes it that will lose, too.
    #[must_use]
    pub fn is_before_the_verdict(self) -> bool {
        self.step()
            .is_some_and(|(_, step)| BEFORE_THE_VERDICT.contains(&step))
    }
}

impl fmt::Display for Place {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Time => formatter.write_str("time"),
            Self::Step(side, step) => write!(formatter, "{}:{step}", side.name()),
        }
    }
}

/// Way in which a backup follows its primary.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Mode {
    /// It replays.
    Replay,
    /// It is brought from one common point to the next.
    Checkpoint,
}

/// What, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Kind {
    /// Way in which the backup follows.
    pub mode: Mode,
    /// What is done.
    pub fault: Fault,
    /// When.
    pub place: Place,
}

impl Kind {
    /// Every kind there is.
    #[must_use]
    pub fn all() -> Vec<Self> {
        [Self::replaying(), Self::in_checkpoint_mode()].concat()
    }

    /// Any fault at any point of a pair that protects, but for those that need hosts or begin a
    /// while before, which come at a time; in a failover, the loss of the side that goes through
    /// it, and of the storage before it is asked.
    #[must_use]
    pub fn replaying() -> Vec<Self> {
        let early = std::iter::once(Place::Time).chain(PROTECTED.map(|(side, step)| Place::Step(side, step)));
        let mut all: Vec<(Fault, Place)> = early
            .flat_map(|place| Fault::ALL.map(|fault| (fault, place)))
            .filter(|(fault, place)| *place == Place::Time || !fault.needs_hosts())
            .collect();
        all.extend(in_failover());
        for side in Side::BOTH {
            all.push((Fault::StorageAway, Place::Step(side, "before-claim")));
        }
        all.extend(Fault::SLOW.map(|fault| (fault, Place::Time)));
        all.push((Fault::HoldReplayKillPrimary, Place::Step(Side::Backup, "replay")));
        Self::of(Mode::Replay, all)
    }

    /// In checkpoint mode: the loss of either side at any step, those of a common point first; any
    /// fault at a time.
    #[must_use]
    pub fn in_checkpoint_mode() -> Vec<Self> {
        let mut all = in_turn(&COMMON_POINT);
        all.extend(in_turn(&PROTECTED));
        all.extend(in_failover());
        all.push((Fault::HoldReplayKillPrimary, Place::Step(Side::Backup, "replay")));
        let faults = Fault::ALL.into_iter().filter(|fault| !fault.needs_hosts());
        all.extend(faults.chain(Fault::SLOW).map(|fault| (fault, Place::Time)));
        Self::of(Mode::Checkpoint, all)
    }

    fn of(mode: Mode, all: Vec<(Fault, Place)>) -> Vec<Self> {
        let of = |(fault, place)| Self { mode, fault, place };
        all.into_iter().map(of).collect()
    }
}

/// The side that goes through a failover is lost at any step of it.
fn in_failover() -> Vec<(Fault, Place)> {
    let mut all = Vec::new();
    for side in Side::BOTH {
        let own: &[&str] = if side == Side::Backup { &GOING_LIVE } else { &[] };
        for step in BEFORE_THE_VERDICT.iter().chain(&AFTER_WINNING).chain(own) {
            let place = Place::Step(side, step);
            all.extend([Fault::Kill(side), Fault::Stop(side)].map(|fault| (fault, place)));
        }
    }
    all
}

impl fmt::Display for Kind {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mode = match self.mode {
            Mode::Replay => "",
            Mode::Checkpoint => "checkpoint:",
        };
        write!(formatter, "{mode}{}@{}", self.fault, self.place)
    }
}

/// The one of `all` that is displayed as `text`.
#[must_use]
pub fn named<T: fmt::Display>(all: Vec<T>, text: &str) -> Option<T> {
    all.into_iter().find(|one| one.to_string() == text)
}

impl FromStr for Kind {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        named(Self::all(), text).ok_or_else(|| format!("there is no kind `{text}`; --list names them"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaign::fixtures::expect_names;

    #[test]
    fn every_kind_has_a_name_of_its_own_by_which_it_is_found() {
        expect_names(Kind::all());
        assert!("kill-primary@never".parse::<Kind>().is_err());
    }
}
