//! A machine with a disk, and a fault while it is protected, drawn from a seed.

use super::images::Held;
use crate::campaign::kind::{Fault, Place, Side, named};
use crate::campaign::plan::{Title, draw_stop};
use crate::simulator::rng::{Rng, mix};
use std::fmt;
use std::str::FromStr;

/// Faults at a time. Each comes with a mirrored and with a shared disk.
const AT_A_TIME: [Fault; 11] = [
    Fault::KillBoth,
    Fault::Kill(Side::Primary),
    Fault::Stop(Side::Primary),
    Fault::Close,
    Fault::Kill(Side::Backup),
    Fault::Blackhole(None),
    Fault::KillWhileOtherStopped(Side::Primary),
    Fault::StopBoth,
    Fault::KillWhileOtherStopped(Side::Backup),
    Fault::Stop(Side::Backup),
    Fault::Damage(Side::Backup),
];

/// Steps of a backup that takes over, its primary having been killed.
const TAKING_OVER: [&str; 6] = [
    "before-claim",
    "claim-linked",
    "after-announce",
    "going-live",
    "live",
    "output-alone",
];

/// One machine in so many has its file made durable once a second only.
const EVERY_SECOND_ONE_IN: u64 = 4;

/// One machine in so many is in checkpoint mode.
const CHECKPOINTS_ONE_IN: u64 = 4;

/// Word for a guest whose file is flushed before each answer.
pub const ALWAYS: &str = "--command-line=appendonly=always";
/// Word for a guest that flushes its file once a second.
const EVERY_SECOND: &str = "--command-line=appendonly=everysec";

/// A disk, a fault, and its point. A step is one of the backup's way to acting alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Strike {
    /// Holding of the disk.
    pub held: Held,
    /// The fault.
    pub fault: Fault,
    /// Its point.
    pub place: Place,
}

impl Strike {
    /// Every one. The first five have both sorts of disks, and the loss of either side and of both.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let at_a_time = AT_A_TIME.map(|fault| (fault, Place::Time));
        let at_steps = TAKING_OVER.iter().flat_map(|step| {
            [Fault::Kill(Side::Backup), Fault::Stop(Side::Backup)]
                .map(|fault| (fault, Place::Step(Side::Backup, step)))
        });
        let all: Vec<(Fault, Place)> = at_a_time.into_iter().chain(at_steps).collect();
        let turned = [[Held::Mirrored, Held::Shared], [Held::Shared, Held::Mirrored]];
        let turned = turned.into_iter().flat_map(|turn| {
            let held = turn.into_iter().cycle();
            all.iter().zip(held).map(|((fault, place), held)| Self {
                held,
                fault: *fault,
                place: *place,
            })
        });
        turned.collect()
    }

    /// True if the two sides are lost to each other, so that one goes on in the next generation, or
    /// nobody does.
    #[must_use]
    pub fn parts(self) -> bool {
        let may_stay = matches!(self.fault, Fault::Stop(_) | Fault::StopBoth);
        self.place != Place::Time || !may_stay
    }
}

impl fmt::Display for Strike {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}:{}@{}", self.held, self.fault, self.place)
    }
}

impl FromStr for Strike {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        named(Self::all(), text)
            .ok_or_else(|| format!("no machine with a disk is struck by `{text}`; --list names them"))
    }
}

/// The plan of a round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Seed of the campaign.
    pub seed: u64,
    /// The round.
    pub round: u64,
    /// The disk and the fault.
    pub strike: Strike,
    /// The file is made durable once a second, and not before each answer.
    pub every_second: bool,
    /// Time from being protected to the fault.
    pub protected_ms: u64,
    /// Time for which a side that stops stays so; of two, the primary.
    pub lasts_ms: u64,
    /// Of two that stop: the backup.
    pub other_lasts_ms: u64,
    /// Clients.
    pub clients: usize,
    /// The backup follows by checkpoints.
    pub in_checkpoint_mode: bool,
}

impl Plan {
    /// The plan of `round` in the campaign `seed`.
    #[must_use]
    pub fn draw(seed: u64, round: u64, strike: Strike) -> Self {
        let mut rng = Rng::new(mix(mix(seed ^ 0xd15c) ^ round));
        Self {
            seed,
            round,
            strike,
            every_second: rng.once_in(EVERY_SECOND_ONE_IN),
            protected_ms: rng.within(0, 300),
            lasts_ms: draw_stop(&mut rng),
            other_lasts_ms: draw_stop(&mut rng),
            clients: rng.within(3, 5) as usize,
            in_checkpoint_mode: rng.once_in(CHECKPOINTS_ONE_IN),
        }
    }

    /// The point of the backup.
    #[must_use]
    pub fn point(&self) -> Option<String> {
        let (side, step) = self.strike.place.step()?;
        Some(format!("{step}:1:{}", self.strike.fault.own_signal(side)))
    }

    /// Words for the guest and its mode.
    #[must_use]
    pub fn guest_settings(&self) -> Vec<&'static str> {
        let mut settings = vec![if self.every_second { EVERY_SECOND } else { ALWAYS }];
        settings.extend(self.in_checkpoint_mode.then_some("--mode=checkpoint"));
        settings
    }

    /// The names of the round.
    #[must_use]
    pub fn title(&self) -> Title {
        let Self { strike, .. } = self;
        let file = if self.every_second {
            "once a second"
        } else {
            "before each answer"
        };
        let mut plan = format!("disks:{strike}, flushed {file}");
        if self.in_checkpoint_mode {
            plan.push_str(", in checkpoint mode");
        }
        if strike.fault.lasts() {
            plan.push_str(&format!(", for {} ms", self.lasts_ms));
        }
        if strike.fault == Fault::StopBoth {
            plan.push_str(&format!(" and {} ms", self.other_lasts_ms));
        }
        Title {
            seed: self.seed,
            round: self.round,
            kind: format!("disks:{strike}"),
            plan,
            fault: format!("disks:{}:{}", strike.held, strike.fault),
            point: strike.place.to_string(),
            step: strike.place.step().map_or("time", |(_, step)| step),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaign::fixtures::expect_names;
    use std::collections::BTreeSet;

    #[test]
    fn every_strike_has_a_name_of_its_own() {
        expect_names(Strike::all());
    }

    #[test]
    fn the_first_five_have_both_sorts_of_disks_and_each_loss() {
        let first: Vec<Strike> = Strike::all().into_iter().take(5).collect();
        let held: BTreeSet<Held> = first.iter().map(|strike| strike.held).collect();
        assert_eq!(held.len(), 2);
        let lost = [
            Fault::KillBoth,
            Fault::Kill(Side::Primary),
            Fault::Kill(Side::Backup),
        ];
        for fault in lost {
            assert!(first.iter().any(|strike| strike.fault == fault), "{fault}");
        }
    }

    #[test]
    fn a_backup_is_killed_at_its_step_by_itself() {
        let plan = |text: &str| Plan::draw(1, 1, text.parse().unwrap());
        let killed = plan("mirrored:kill-backup@backup:live");
        assert_eq!(killed.point(), Some("live:1:KILL".to_owned()));
        assert_eq!(plan("shared:kill-both@time").point(), None);
    }
}
