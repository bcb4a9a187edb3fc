//! Sorts of rounds, and which comes when.

use super::kind::Kind;
use super::outcome::Outcome;
use super::plan::Title;
use super::{Evidence, chain, plan, round, starts, switchover};
use std::fmt;
use std::str::FromStr;

/// One round in so many is a chain.
const CHAIN_ONE_IN: u64 = 12;
/// One round in so many is of starts.
const STARTS_ONE_IN: u64 = 10;
/// One round in so many is a switchover.
const SWITCHOVERS_ONE_IN: u64 = 10;
/// One round in so many is of a pair in checkpoint mode.
const CHECKPOINTS_ONE_IN: u64 = 10;

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
}

impl Scenario {
    /// The plan of `round` in the campaign `seed`.
    #[must_use]
    pub fn draw(seed: u64, round: u64, only: Option<Only>) -> Self {
        match only {
            Some(Only::Pair(kind)) => Self::Pair(plan::Plan::draw(seed, round, Some(kind))),
            Some(Only::Chain(only)) => Self::Chain(chain::Plan::draw(seed, round, only)),
            Some(Only::Starts) => Self::Starts(starts::Plan::draw(seed, round)),
            Some(Only::Switchover(strike)) => Self::Switchover(switched_over(seed, round, round, strike)),
            None if round % CHAIN_ONE_IN == 7 => Self::Chain(chain::Plan::draw(seed, round, None)),
            None if round % STARTS_ONE_IN == 4 => Self::Starts(starts::Plan::draw(seed, round)),
            None if round % SWITCHOVERS_ONE_IN == 8 => {
                Self::Switchover(switched_over(seed, round, round / SWITCHOVERS_ONE_IN, None))
            }
            None if round % CHECKPOINTS_ONE_IN == 2 => {
                let kind = in_turn(Kind::in_checkpoint_mode(), round / CHECKPOINTS_ONE_IN);
                Self::Pair(plan::Plan::draw(seed, round, Some(kind)))
            }
            None => Self::Pair(plan::Plan::draw(seed, round, None)),
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
        }
    }
}

/// The switchover of `round`, struck by `strike`, or by the `turn`-th: so that all come in turn, and
/// the first few of a campaign are always the same.
fn switched_over(seed: u64, round: u64, turn: u64, strike: Option<switchover::Strike>) -> switchover::Plan {
    let strike = strike.unwrap_or_else(|| in_turn(switchover::Strike::all(), turn));
    switchover::Plan::draw(seed, round, strike)
}

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
        let strikes = switchover::Strike::all().into_iter().map(Some);
        let switchovers = std::iter::once(None).chain(strikes).map(Self::Switchover);
        pairs
            .chain(chains)
            .chain([Self::Starts])
            .chain(switchovers)
            .collect()
    }
}

impl fmt::Display for Only {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pair(kind) => write!(formatter, "{kind}"),
            Self::Chain(None) => formatter.write_str("chain"),
            Self::Chain(Some(only)) => write!(formatter, "chain:{only}"),
            Self::Starts => formatter.write_str("starts"),
            Self::Switchover(None) => formatter.write_str("switchover"),
            Self::Switchover(Some(strike)) => write!(formatter, "switchover:{strike}"),
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
            ("switchover", what) => Ok(Self::Switchover(what.map(str::parse).transpose()?)),
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
            let is_in_turn = only == Only::Switchover(None);
            let expected = if is_in_turn { "switchover" } else { &kind };
            assert!(kind.starts_with(expected), "{kind}");
            assert_eq!(kind == only.to_string(), !is_in_turn, "{kind}");
        }
        assert!("chain:nothing-of-that".parse::<Only>().is_err());
    }

    #[test]
    fn fifty_rounds_have_all_sorts_in_their_share() {
        let rounds = (0..50).map(|round| Scenario::draw(9, round, None));
        let (mut chains, mut starts, mut switchovers) = (0, 0, BTreeSet::new());
        for scenario in rounds {
            match scenario {
                Scenario::Pair(_) => {}
                Scenario::Chain(_) => chains += 1,
                Scenario::Starts(_) => starts += 1,
                Scenario::Switchover(plan) => drop(switchovers.insert(plan.strike)),
            }
        }
        assert_eq!((chains, starts, switchovers.len()), (4, 5, 5));
    }
}
