//! A fault of a pair whose guest makes no exit, drawn from a seed.

use crate::campaign::kind::{COMMON_POINT, Fault, Place, Side, in_turn, named};
use crate::campaign::plan::{Title, draw_stop};
use crate::simulator::rng::{Rng, mix};
use std::fmt;
use std::str::FromStr;

/// Steps of a pair that the guest's common points pass, too.
const SENDING: [(Side, &str); 4] = [
    (Side::Primary, "before-send"),
    (Side::Primary, "after-acknowledge"),
    (Side::Backup, "before-acknowledge"),
    (Side::Backup, "log-entry"),
];

/// Faults of the channel, at a time.
const OF_THE_CHANNEL: [Fault; 3] = [Fault::Close, Fault::Blackhole(None), Fault::Damage(Side::Backup)];

/// A fault and its point.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Strike {
    /// The fault.
    pub fault: Fault,
    /// Its point.
    pub place: Place,
}

impl Strike {
    /// Every one. The first five have each step of a common point.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let at_steps = in_turn(&COMMON_POINT).into_iter().chain(in_turn(&SENDING));
        let at_a_time = OF_THE_CHANNEL.into_iter().chain([Fault::StopBoth]);
        at_steps
            .chain(at_a_time.map(|fault| (fault, Place::Time)))
            .map(|(fault, place)| Self { fault, place })
            .collect()
    }
}

impl fmt::Display for Strike {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}@{}", self.fault, self.place)
    }
}

impl FromStr for Strike {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        named(Self::all(), text)
            .ok_or_else(|| format!("no guest without exits is struck by `{text}`; --list names them"))
    }
}

/// The plan of a round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Seed of the campaign.
    pub seed: u64,
    /// The round.
    pub round: u64,
    /// The fault.
    pub strike: Strike,
    /// At a time: milliseconds since the guest has begun to compute. At a step: its passing, from
    /// 1.
    pub ordinal: u64,
    /// Time for which a side that stops stays so; of two, the primary.
    pub lasts_ms: u64,
    /// Of two that stop: the backup.
    pub other_lasts_ms: u64,
    /// Interrupts that the guest counts.
    pub interrupts: u64,
    /// Pages that it writes to all the time.
    pub pages: u64,
}

impl Plan {
    /// The fault of `round` in the campaign `seed`.
    #[must_use]
    pub fn draw(seed: u64, round: u64, strike: Strike) -> Self {
        let mut rng = Rng::new(mix(mix(seed ^ 0x57ea) ^ round));
        Self {
            seed,
            round,
            strike,
            // A second of the guest has a hundred common points, of which each is a few entries.
            ordinal: match strike.place {
                Place::Time => rng.within(50, 800),
                Place::Step(..) => rng.within(2, 80),
            },
            lasts_ms: draw_stop(&mut rng),
            other_lasts_ms: draw_stop(&mut rng),
            interrupts: rng.within(150, 250),
            pages: rng.within(1, 40),
        }
    }

    /// The side that stops or dies by itself at its step, and the point that it is given.
    #[must_use]
    pub fn point(&self) -> Option<(Side, String)> {
        let (side, step) = self.strike.place.step()?;
        let what = self.strike.fault.own_signal(side);
        Some((side, format!("{step}:{}:{what}", self.ordinal)))
    }

    /// Options of the guest.
    #[must_use]
    pub fn options(&self) -> String {
        let (interrupts, pages) = (self.interrupts, self.pages);
        // Until its interrupts have come, however slow the host is.
        format!("interrupts={interrupts} pages={pages} passes=1000000000")
    }

    /// The names of the round.
    #[must_use]
    pub fn title(&self) -> Title {
        let Self { strike, ordinal, .. } = self;
        let mut plan = format!("steady:{strike}");
        match strike.place {
            Place::Time => plan.push_str(&format!(" after {ordinal} ms")),
            Place::Step(..) => plan.push_str(&format!(" number {ordinal}")),
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
            kind: format!("steady:{strike}"),
            plan: format!("{plan}, {} interrupts over {} pages", self.interrupts, self.pages),
            fault: format!("steady:{}", strike.fault),
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
    fn the_first_five_have_each_step_of_a_common_point() {
        let first = Strike::all().into_iter().take(5);
        let steps: BTreeSet<_> = first.filter_map(|strike| strike.place.step()).collect();
        assert_eq!(steps, BTreeSet::from(COMMON_POINT));
    }

    #[test]
    fn only_a_side_that_is_killed_at_its_own_step_kills_itself() {
        let point = |text: &str| Plan::draw(1, 1, text.parse().unwrap()).point().unwrap();
        let (side, own) = point("kill-backup@backup:common-point-met");
        assert!(side == Side::Backup && own.ends_with(":KILL"), "{own}");
        let (side, other) = point("kill-backup@primary:common-point-sent");
        assert!(side == Side::Primary && other.ends_with(":STOP"), "{other}");
    }
}
