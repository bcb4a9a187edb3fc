//! A switchover that is struck, drawn from a seed.

use crate::campaign::kind::{Fault, Place, Side, in_turn, named};
use crate::campaign::plan::{Title, draw_stop};
use crate::simulator::rng::{Rng, mix};
use std::fmt;
use std::str::FromStr;

/// Steps of a switchover, of the side that passes each. The product's stop points have these names.
const HANDING_OVER: [(Side, &str); 5] = [
    (Side::Primary, "before-stand"),
    (Side::Primary, "guest-stands"),
    (Side::Primary, "before-handover"),
    (Side::Primary, "after-handover"),
    (Side::Backup, "handover-read"),
];

/// Steps behind the handover, at which the side that passes them is lost or stops.
const GOING_ON: [(Side, &str); 9] = [
    (Side::Backup, "before-claim"),
    (Side::Backup, "claim-linked"),
    (Side::Backup, "after-claim"),
    (Side::Backup, "before-announce"),
    (Side::Backup, "after-announce"),
    (Side::Backup, "going-live"),
    (Side::Backup, "live"),
    (Side::Primary, "before-claim"),
    (Side::Primary, "before-again"),
];

/// A fault at a step of a switchover, or none. The side that is the primary before the switchover
/// is called so.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Strike(pub Option<(Fault, Side, &'static str)>);

impl Strike {
    /// Every one. The first five have each step of a switchover, and each fault, once at least.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let turned = in_turn(&HANDING_OVER).into_iter();
        let turned =
            turned.filter_map(|(fault, place)| place.step().map(|at| Self(Some((fault, at.0, at.1)))));
        let own = GOING_ON.into_iter().flat_map(|(side, step)| {
            [Fault::Kill(side), Fault::Stop(side)].map(|fault| Self(Some((fault, side, step))))
        });
        turned.chain(own).chain([Self(None)]).collect()
    }

    /// The fault.
    #[must_use]
    pub fn fault(self) -> Option<Fault> {
        self.0.map(|(fault, ..)| fault)
    }

    /// The side that stops or dies by itself at its step, and the point that it is given.
    #[must_use]
    pub fn point(self) -> Option<(Side, String)> {
        let (fault, side, step) = self.0?;
        Some((side, format!("{step}:1:{}", fault.own_signal(side))))
    }
}

impl fmt::Display for Strike {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            None => formatter.write_str("nothing"),
            Some((fault, side, step)) => write!(formatter, "{fault}@{}", Place::Step(side, step)),
        }
    }
}

impl FromStr for Strike {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        named(Self::all(), text).ok_or_else(|| format!("no switchover has `{text}`; --list names them"))
    }
}

/// The plan of a round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Seed of the campaign.
    pub seed: u64,
    /// The round.
    pub round: u64,
    /// Fault of the first switchover. The second one is left alone.
    pub strike: Strike,
    /// The backup is brought from one common point to the next, and does not replay.
    pub in_checkpoint_mode: bool,
    /// Time for which a side that stops stays so.
    pub lasts_ms: u64,
    /// Time from being protected to the first switchover.
    pub protected_ms: u64,
    /// Clients.
    pub clients: usize,
}

impl Plan {
    /// The switchover of `round` in the campaign `seed`, with this strike.
    #[must_use]
    pub fn draw(seed: u64, round: u64, strike: Strike) -> Self {
        let mut rng = Rng::new(mix(mix(seed ^ 0x5317) ^ round));
        Self {
            seed,
            round,
            strike,
            in_checkpoint_mode: rng.once_in(4),
            lasts_ms: draw_stop(&mut rng),
            protected_ms: rng.within(0, 200),
            clients: rng.within(3, 5) as usize,
        }
    }

    /// The point of one side, if it has one.
    #[must_use]
    pub fn point_of(&self, side: Side) -> Option<String> {
        let (own, point) = self.strike.point()?;
        (own == side).then_some(point)
    }

    /// The names of the round.
    #[must_use]
    pub fn title(&self) -> Title {
        let lasts = match self.strike.fault() {
            Some(Fault::Stop(_)) => format!(", for {} ms", self.lasts_ms),
            _ => String::new(),
        };
        let mode = if self.in_checkpoint_mode {
            " in checkpoint mode"
        } else {
            ""
        };
        Title {
            seed: self.seed,
            round: self.round,
            kind: format!("switchover:{}", self.strike),
            plan: format!("switchover{mode} with {}{lasts}, and back", self.strike),
            fault: "switchover".to_owned(),
            point: "switchover".to_owned(),
            step: "switchover",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::campaign::fixtures::expect_names;
    use crate::campaign::kind::LOSSES;
    use std::collections::BTreeSet;

    #[test]
    fn every_strike_has_a_name_of_its_own() {
        expect_names(Strike::all());
    }

    #[test]
    fn the_first_five_have_each_step_and_each_fault() {
        let first: Vec<_> = Strike::all()
            .into_iter()
            .take(5)
            .filter_map(|one| one.0)
            .collect();
        let steps: BTreeSet<_> = first.iter().map(|(_, side, step)| (*side, *step)).collect();
        let faults: BTreeSet<_> = first.iter().map(|(fault, ..)| *fault).collect();
        assert_eq!((steps.len(), faults.len()), (HANDING_OVER.len(), LOSSES.len()));
    }

    #[test]
    fn either_side_is_killed_and_stopped_at_each_step_of_a_switchover() {
        let all: BTreeSet<_> = Strike::all().into_iter().filter_map(|one| one.0).collect();
        for (side, step) in HANDING_OVER {
            for fault in LOSSES {
                assert!(all.contains(&(fault, side, step)), "{fault}@{step}");
            }
        }
    }

    #[test]
    fn a_side_kills_itself_where_it_passes_the_step_and_stops_otherwise() {
        let point = |text: &str| text.parse::<Strike>().unwrap().point().unwrap();
        let own = point("kill-primary@primary:guest-stands");
        assert_eq!(own, (Side::Primary, "guest-stands:1:KILL".to_owned()));
        let other = point("kill-backup@primary:guest-stands");
        assert_eq!(other, (Side::Primary, "guest-stands:1:STOP".to_owned()));
    }
}
