//! Sorts of rounds, and which comes when.

use super::kind::Kind;
use super::outcome::Outcome;
use super::plan::Title;
use super::{Evidence, chain, disks, diverging, plan, round, starts, steady, switchover};
use std::fmt;
use std::str::FromStr;

/// One round in so many is a chain.
const CHAIN_ONE_IN: u64 = 12;
/// Of so many rounds, one is of each sort that is struck by one thing after another: so all come in
/// turn, and the first few of a campaign are the same for every seed. None of them is a chain's.
const IN_TURN: u64 = 10;

/// The plan of a round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scenario {
    /// A pair that is struck once.
    Pair(plan::Plan),
    /// A machine that heals, and is struck again.
    Chain(chain::Plan),
    /// Starts of one machine.
    Starts(starts::Plan),
    /// A switchover that is struck.
    Switchover(switchover::Plan),
    /// A pair whose guest makes no exit, struck once.
    Steady(steady::Plan),
    /// A machine whose guest diverges, struck while it recovers.
    Diverging(diverging::Plan),
    /// A machine with a disk, struck once, and begun again from it.
    Disks(disks::Plan),
}

/// The choice that `--only` fixes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Only {
    /// Pairs, with this fault at this point.
    Pair(Kind),
    /// Chains, with something that comes in each link.
    Chain(Option<chain::plan::Only>),
    /// Starts.
    Starts,
    /// Switchovers, struck by this or by each in turn.
    Switchover(Option<switchover::Strike>),
    /// Guests without exits, struck by this or by each in turn.
    Steady(Option<steady::Strike>),
    /// Guests that diverge, struck by this or by each in turn.
    Diverging(Option<diverging::Strike>),
    /// Machines with disks, struck by this or by each in turn.
    Disks(Option<disks::Strike>),
    /// Pairs in checkpoint mode, each kind in turn.
    Checkpoint,
}

impl Scenario {
    /// The plan of `round` in the campaign `seed`.
    #[must_use]
    pub fn draw(seed: u64, round: u64, only: Option<Only>) -> Self {
        match only {
            Some(only) => Self::of(only, seed, round, round),
            None if round % CHAIN_ONE_IN == 7 => Self::of(Only::Chain(None), seed, round, round),
            None => {
                let (of_ten, turn) = (round % IN_TURN, round / IN_TURN);
                match of_ten {
                    0 => Self::of(Only::Diverging(None), seed, round, turn),
                    2 => Self::of(Only::Checkpoint, seed, round, turn),
                    4 => Self::of(Only::Starts, seed, round, turn),
                    5 => Self::of(Only::Disks(None), seed, round, turn),
                    6 => Self::of(Only::Steady(None), seed, round, turn),
                    8 => Self::of(Only::Switchover(None), seed, round, turn),
                    _ => Self::Pair(plan::Plan::draw(seed, round, None)),
                }
            }
        }
    }

    /// The plan of `round`. Kinds and strikes that `only` leaves open come in turn.
    fn of(only: Only, seed: u64, round: u64, turn: u64) -> Self {
        let in_checkpoint_mode = || in_turn(Kind::in_checkpoint_mode(), turn);
        match only {
            Only::Pair(kind) => Self::Pair(plan::Plan::draw(seed, round, Some(kind))),
            Only::Checkpoint => Self::Pair(plan::Plan::draw(seed, round, Some(in_checkpoint_mode()))),
            Only::Chain(only) => Self::Chain(chain::Plan::draw(seed, round, only)),
            Only::Starts => Self::Starts(starts::Plan::draw(seed, round)),
            Only::Switchover(strike) => {
                let strike = strike.unwrap_or_else(|| in_turn(switchover::Strike::all(), turn));
                Self::Switchover(switchover::Plan::draw(seed, round, strike))
            }
            Only::Steady(strike) => {
                let strike = strike.unwrap_or_else(|| in_turn(steady::Strike::all(), turn));
                Self::Steady(steady::Plan::draw(seed, round, strike))
            }
            Only::Diverging(strike) => {
                let strike = strike.unwrap_or_else(|| in_turn(diverging::Strike::all(), turn));
                Self::Diverging(diverging::Plan::draw(seed, round, strike))
            }
            Only::Disks(strike) => {
                let strike = strike.unwrap_or_else(|| in_turn(disks::Strike::all(), turn));
                Self::Disks(disks::Plan::draw(seed, round, strike))
            }
        }
    }

    /// Runs the round and judges it. `mutant`: a defect that all replicas are to have.
    #[must_use]
    pub fn run(&self, mutant: Option<&str>) -> (Outcome, Option<Evidence>) {
        match self {
            Self::Pair(plan) => round::run(plan, mutant),
            Self::Chain(plan) => chain::run(plan, mutant),
            Self::Starts(plan) => starts::run(plan, mutant),
            Self::Switchover(plan) => switchover::run(plan, mutant),
            Self::Steady(plan) => steady::run(plan, mutant),
            Self::Diverging(plan) => diverging::run(plan, mutant),
            Self::Disks(plan) => disks::run(plan, mutant),
        }
    }

    /// The names of the round.
    #[must_use]
    pub fn title(&self) -> Title {
        match self {
            Self::Pair(plan) => plan.title(),
            Self::Chain(plan) => plan.title(),
            Self::Starts(plan) => plan.title(),
            Self::Switchover(plan) => plan.title(),
            Self::Steady(plan) => plan.title(),
            Self::Diverging(plan) => plan.title(),
            Self::Disks(plan) => plan.title(),
        }
    }
}

/// The one of `all` whose turn it is.
fn in_turn<T>(mut all: Vec<T>, turn: u64) -> T {
    let index = turn as usize % all.len();
    all.swap_remove(index)
}

impl Only {
    /// Every one.
    #[must_use]
    pub fn all() -> Vec<Self> {
        let pairs = Kind::all().into_iter().map(Self::Pair);
        let chains = chain::plan::Only::all().into_iter().map(Some);
        let chains = std::iter::once(None).chain(chains).map(Self::Chain);
        let mut all: Vec<Self> = pairs.chain(chains).collect();
        all.extend([Self::Starts, Self::Checkpoint]);
        all.extend(open_and_each(switchover::Strike::all()).map(Self::Switchover));
        all.extend(open_and_each(steady::Strike::all()).map(Self::Steady));
        all.extend(open_and_each(diverging::Strike::all()).map(Self::Diverging));
        all.extend(open_and_each(disks::Strike::all()).map(Self::Disks));
        all
    }

    /// True if what is left open comes in turn.
    #[must_use]
    pub fn is_in_turn(self) -> bool {
        matches!(
            self,
            Self::Checkpoint
                | Self::Switchover(None)
                | Self::Steady(None)
                | Self::Diverging(None)
                | Self::Disks(None)
        )
    }
}

fn open_and_each<T>(each: Vec<T>) -> impl Iterator<Item = Option<T>> {
    std::iter::once(None).chain(each.into_iter().map(Some))
}

impl fmt::Display for Only {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pair(kind) => write!(formatter, "{kind}"),
            Self::Chain(None) => formatter.write_str("chain"),
            Self::Chain(Some(only)) => write!(formatter, "chain:{only}"),
            Self::Starts => formatter.write_str("starts"),
            Self::Checkpoint => formatter.write_str("checkpoint"),
            Self::Switchover(None) => formatter.write_str("switchover"),
            Self::Switchover(Some(strike)) => write!(formatter, "switchover:{strike}"),
            Self::Steady(None) => formatter.write_str("steady"),
            Self::Steady(Some(strike)) => write!(formatter, "steady:{strike}"),
            Self::Diverging(None) => formatter.write_str("diverging"),
            Self::Diverging(Some(strike)) => write!(formatter, "diverging:{strike}"),
            Self::Disks(None) => formatter.write_str("disks"),
            Self::Disks(Some(strike)) => write!(formatter, "disks:{strike}"),
        }
    }
}

impl FromStr for Only {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (sort, what) = text
            .split_once(':')
            .map_or((text, None), |(sort, what)| (sort, Some(what)));
        match (sort, what) {
            ("chain", what) => Ok(Self::Chain(what.map(str::parse).transpose()?)),
            ("starts", None) => Ok(Self::Starts),
            ("checkpoint", None) => Ok(Self::Checkpoint),
            ("switchover", what) => Ok(Self::Switchover(what.map(str::parse).transpose()?)),
            ("steady", what) => Ok(Self::Steady(what.map(str::parse).transpose()?)),
            ("diverging", what) => Ok(Self::Diverging(what.map(str::parse).transpose()?)),
            ("disks", what) => Ok(Self::Disks(what.map(str::parse).transpose()?)),
            _ => Ok(Self::Pair(text.parse()?)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_sort_of_round_is_named_and_found_by_its_name() {
        for only in Only::all() {
            assert_eq!(only.to_string().parse(), Ok(only));
            let kind = Scenario::draw(1, 1, Some(only)).title().kind;
            assert!(kind.starts_with(&only.to_string()), "{kind}");
            assert_eq!(kind == only.to_string(), !only.is_in_turn(), "{kind}");
        }
        assert!("chain:nothing-of-that".parse::<Only>().is_err());
    }

    #[test]
    fn fifty_rounds_have_all_sorts_in_their_share() {
        let titles = (0..50).map(|round| Scenario::draw(9, round, None).title());
        let kinds: Vec<String> = titles.map(|title| title.kind).collect();
        let of = |sort: &str| {
            let kinds = kinds.iter().filter(|kind| kind.starts_with(sort));
            (kinds.clone().count(), kinds.collect::<BTreeSet<_>>().len())
        };
        assert_eq!((of("chain").0, of("starts").0), (4, 5));
        for sort in ["switchover:", "checkpoint:", "steady:", "diverging:", "disks:"] {
            assert_eq!(of(sort), (5, 5), "{sort}");
        }
    }
}
