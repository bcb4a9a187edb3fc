//! A divergence, and a fault while the pair recovers from it, drawn from a seed.

use crate::campaign::chain::plan::{HOLDING, JOINING};
use crate::campaign::kind::{Fault, LOSSES, named};
use crate::campaign::plan::{Title, draw_stop};
use crate::simulator::rng::{Rng, mix};
use std::fmt;
use std::str::FromStr;

/// The step at which a side that has diverged begins its program again.
const AGAIN: &str = "before-again";

/// Steps of a holder that it passes as often as it likes: the newcomer's first joining and its
/// second are not told apart by them.
const REPEATED: [&str; 4] = ["before-seen", "after-seen", "before-piece", "round"];

/// Parts of the state that the guest can make differ while it serves. Memory is compared at the
/// end.
const PARTS: [&str; 13] = [
    "registers",
    "console",
    "timer",
    "frame",
    "vector",
    "question",
    "x87",
    "msr",
    "pic",
    "serial",
    "clock",
    "network",
    "execution",
];

/// A fault while the side that has diverged joins again, or once it is armed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Strike {
    /// It is killed at this step, and another side is started.
    KillNewcomer(&'static str),
    /// It stops at this step for a while.
    StopNewcomer(&'static str),
    /// The holder stops at this step for a while.
    StopHolder(&'static str),
    /// Once it is armed, the holder, called primary, or it is lost.
    Armed(Fault),
}

impl Strike {
    /// Every one. The first five have each sort.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let joining = std::iter::once(AGAIN).chain(JOINING);
        let kills = joining.clone().rev().map(Self::KillNewcomer);
        let stops = joining.map(Self::StopNewcomer);
        let holding = HOLDING.into_iter().filter(|step| !REPEATED.contains(step));
        let mut sorts: [Vec<Self>; 4] = [
            LOSSES.map(Self::Armed).into(),
            kills.collect(),
            holding.rev().map(Self::StopHolder).collect(),
            stops.collect(),
        ];
        let mut all = Vec::new();
        while sorts.iter().any(|sort| !sort.is_empty()) {
            for sort in sorts.iter_mut().filter(|sort| !sort.is_empty()) {
                all.push(sort.remove(0));
            }
        }
        all
    }

    /// The point of the side that diverges: it stops there, is let go when it joins for the first
    /// time, and is struck when it does so again.
    #[must_use]
    pub fn newcomer_point(self) -> Option<String> {
        match self {
            Self::KillNewcomer(step) | Self::StopNewcomer(step) => Some(format!("{step}:1:STOP")),
            Self::StopHolder(_) | Self::Armed(_) => None,
        }
    }

    /// The point of the holder: it has passed each step once when it is joined again.
    #[must_use]
    pub fn holder_point(self) -> Option<String> {
        match self {
            Self::StopHolder(step) => Some(format!("{step}:2:STOP")),
            _ => None,
        }
    }
}

impl fmt::Display for Strike {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KillNewcomer(step) => write!(formatter, "kill-newcomer@{step}"),
            Self::StopNewcomer(step) => write!(formatter, "stop-newcomer@{step}"),
            Self::StopHolder(step) => write!(formatter, "stop-holder@{step}"),
            Self::Armed(fault) => write!(formatter, "{fault}@armed"),
        }
    }
}

impl FromStr for Strike {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        named(Self::all(), text)
            .ok_or_else(|| format!("no pair that diverges is struck by `{text}`; --list names them"))
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
    /// The part of the state that differs.
    pub part: &'static str,
    /// Time for which a side that stops stays so.
    pub lasts_ms: u64,
    /// Time from being protected to the divergence.
    pub protected_ms: u64,
    /// Clients.
    pub clients: usize,
}

impl Plan {
    /// The divergence of `round` in the campaign `seed`.
    #[must_use]
    pub fn draw(seed: u64, round: u64, strike: Strike) -> Self {
        let mut rng = Rng::new(mix(mix(seed ^ 0xd1fe) ^ round));
        Self {
            seed,
            round,
            strike,
            part: PARTS[rng.below(PARTS.len() as u64) as usize],
            lasts_ms: draw_stop(&mut rng),
            protected_ms: rng.within(0, 200),
            clients: rng.within(3, 5) as usize,
        }
    }

    /// The names of the round.
    #[must_use]
    pub fn title(&self) -> Title {
        let stops = match self.strike {
            Strike::StopNewcomer(_) | Strike::StopHolder(_) => true,
            Strike::Armed(fault) => fault.lasts(),
            Strike::KillNewcomer(_) => false,
        };
        let lasts = if stops {
            format!(" for {} ms", self.lasts_ms)
        } else {
            String::new()
        };
        Title {
            seed: self.seed,
            round: self.round,
            kind: format!("diverging:{}", self.strike),
            plan: format!("the replay of {} differs, then {}{lasts}", self.part, self.strike),
            fault: "diverging".to_owned(),
            point: "diverging".to_owned(),
            step: "diverging",
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
    fn the_first_five_have_each_sort() {
        let first = Strike::all().into_iter().take(5);
        let sorts: BTreeSet<_> = first
            .map(|strike| std::mem::discriminant(&strike))
            .map(|sort| format!("{sort:?}"))
            .collect();
        assert_eq!(sorts.len(), 4);
    }

    #[test]
    fn every_part_differs_in_a_hundred_rounds() {
        let strike = Strike::all()[0];
        let parts: BTreeSet<_> = (0..100).map(|round| Plan::draw(1, round, strike).part).collect();
        assert_eq!(parts.len(), PARTS.len());
    }

    #[test]
    fn a_side_has_a_point_where_it_is_the_one_that_stops() {
        let strike: Strike = "kill-newcomer@before-again".parse().unwrap();
        let point = Some("before-again:1:STOP".to_owned());
        assert_eq!((strike.newcomer_point(), strike.holder_point()), (point, None));
        let strike: Strike = "stop-holder@saved".parse().unwrap();
        let point = Some("saved:2:STOP".to_owned());
        assert_eq!((strike.newcomer_point(), strike.holder_point()), (None, point));
    }
}
