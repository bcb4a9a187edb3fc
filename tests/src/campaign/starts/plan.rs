//! Starts of one machine, drawn from a seed.

use crate::campaign::plan::{TIMEOUT_MS, Title};
use crate::campaign::web::Starting;
use crate::simulator::rng::{Rng, mix};

/// Lives of each hand, of which the last is not ended by the plan.
const LIVES: usize = 3;

/// Steps at which a side is killed or stopped. The product's stop points have these names.
pub const STEPS: [&str; 42] = [
    "before-folder",
    "after-folder",
    "looked",
    "before-beginning",
    "claim-linked",
    "after-beginning",
    "before-seen",
    "after-seen",
    "before-announce",
    "after-announce",
    "before-record",
    "after-record",
    "before-forget",
    "after-forget",
    "before-ended",
    "after-ended",
    "before-again",
    "welcomed",
    "before-piece",
    "round",
    "before-capture",
    "saved",
    "captured",
    "saved-at",
    "all-sent",
    "before-joined",
    "after-joined",
    "before-arming",
    "after-arming",
    "found",
    "after-piece",
    "all-received",
    "stands",
    "before-loaded",
    "after-loaded",
    "before-armed",
    "after-armed",
    "before-claim",
    "after-claim",
    "going-live",
    "live",
    "output-alone",
];

/// One process.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Life {
    /// Command by which it is started.
    pub starting: Starting,
    /// Time from the end of the life before it, or from the beginning.
    pub after_ms: u64,
    /// Longest time that it lives, where its stop point does not end it.
    pub lasts_ms: Option<u64>,
    /// Time for which it stands where it stops.
    pub stopped_ms: u64,
    /// It is asked to stop when its time is over, and not killed.
    pub asked: bool,
}

/// The plan of a round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Seed of the campaign.
    pub seed: u64,
    /// The round.
    pub round: u64,
    /// Switches.
    pub switches: usize,
    /// Hands that start the machine, each with one life after the other.
    pub hands: Vec<Vec<Life>>,
}

impl Plan {
    /// The starts of `round` in the campaign `seed`.
    #[must_use]
    pub fn draw(seed: u64, round: u64) -> Self {
        let mut rng = Rng::new(mix(mix(seed ^ 0x57a7) ^ round));
        let switches = rng.within(1, 2) as usize;
        let hands = rng.within(2, 3) as usize;
        let hands = (0..hands)
            .map(|hand| {
                let switch = hand % switches;
                (0..LIVES)
                    .map(|life| draw_life(&mut rng, switch, life + 1 == LIVES))
                    .collect()
            })
            .collect();
        Self {
            seed,
            round,
            switches,
            hands,
        }
    }

    /// Number of points: lives in which a side is to kill or stop itself.
    #[must_use]
    pub fn points(&self) -> usize {
        let lives = self.hands.iter().flatten();
        lives.filter(|life| life.starting.point.is_some()).count()
    }

    /// The names of the round.
    #[must_use]
    pub fn title(&self) -> Title {
        let hands: Vec<String> = self
            .hands
            .iter()
            .map(|lives| lives.iter().map(Life::describe).collect::<Vec<_>>().join(", "))
            .collect();
        Title {
            seed: self.seed,
            round: self.round,
            kind: "starts".to_owned(),
            plan: format!("starts on {} switches: {}", self.switches, hands.join("; ")),
            fault: "starts".to_owned(),
            point: "starts".to_owned(),
            step: "starts",
        }
    }
}

impl Life {
    fn describe(&self) -> String {
        let point = self.starting.point.as_deref().unwrap_or("none");
        format!("{}@{point}", self.starting.role)
    }
}

fn draw_life(rng: &mut Rng, switch: usize, last: bool) -> Life {
    let step = STEPS[rng.below(STEPS.len() as u64) as usize];
    let ordinal = if rng.once_in(3) { rng.within(2, 4) } else { 1 };
    let what = if rng.once_in(3) { "STOP" } else { "KILL" };
    let role = match rng.below(8) {
        0 => "primary",
        1 => "backup",
        _ => "replica",
    };
    Life {
        starting: Starting {
            role: if last { "replica" } else { role },
            switch,
            point: (!last).then(|| format!("{step}:{ordinal}:{what}")),
        },
        after_ms: match rng.below(3) {
            0 => 0,
            1 => rng.within(0, 50),
            _ => rng.within(50, 600),
        },
        lasts_ms: (!last).then(|| rng.within(200, 2_500)),
        stopped_ms: rng.within(10, TIMEOUT_MS * 2),
        asked: rng.once_in(4),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_step_is_met_by_some_plan_and_the_last_life_by_none() {
        let plans = (0..100).map(|round| Plan::draw(5, round));
        let mut steps = BTreeSet::new();
        for plan in plans {
            assert_eq!(plan.points(), plan.hands.len() * (LIVES - 1));
            for lives in plan.hands {
                assert_eq!(
                    lives.last().unwrap().starting,
                    Starting {
                        switch: lives[0].starting.switch,
                        ..Starting::replica(None)
                    }
                );
                let points = lives.into_iter().filter_map(|life| life.starting.point);
                steps.extend(points.map(|point| point.split(':').next().unwrap().to_owned()));
            }
        }
        assert_eq!(steps.len(), STEPS.len());
    }
}
