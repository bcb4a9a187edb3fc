//! Plan of a round of one pair, drawn from a seed: a fault, the point at which it comes, and how
//! long it lasts.

use super::kind::{CLAIM_LINKED, COMMON_POINT, Fault, Kind, Mode, Place, Side};
use crate::simulator::rng::{Rng, mix};

/// The reason for which a side asks for the right to go on, where the fault comes while it does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trigger {
    /// The other side is killed.
    Kill,
    /// The other side is stopped, and goes on so long after the fault.
    Stop {
        /// In milliseconds.
        ms: u64,
    },
    /// Nothing passes between the two any more.
    Blackhole,
}

/// Names of a round, whatever its sort: in tables, in files, and for whoever repeats it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Title {
    /// Seed of the campaign.
    pub seed: u64,
    /// The round.
    pub round: u64,
    /// Name that `--only` takes.
    pub kind: String,
    /// The plan in one line.
    pub plan: String,
    /// The fault.
    pub fault: String,
    /// The point at which it comes.
    pub point: String,
    /// The step of the protocol at which it is done.
    pub step: &'static str,
}

/// The plan of a round.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Seed of the campaign.
    pub seed: u64,
    /// The round.
    pub round: u64,
    /// The fault and its point.
    pub kind: Kind,
    /// At a time: milliseconds since the clients began. At a step: its passing, counted from 1.
    pub ordinal: u64,
    /// Of a point in a failover: what leads to it. It comes [`Plan::trigger_at_ms`] after the
    /// clients began.
    pub trigger: Option<Trigger>,
    /// In milliseconds.
    pub trigger_at_ms: u64,
    /// Time for which a side or the storage is stopped or away, in milliseconds; of two that are
    /// stopped, the primary.
    pub lasts_ms: u64,
    /// Of two that are stopped: the backup.
    pub other_lasts_ms: u64,
    /// Time after which the channel gives what it swallowed, or never.
    pub mended_after_ms: Option<u64>,
    /// Clients.
    pub clients: usize,
}

/// Silence after which a side gives the other up, in the pairs of the campaign. Longer than the
/// default, so that a busy machine makes few failovers of its own.
pub const TIMEOUT_MS: u64 = 500;

/// Delay of a channel in a slow fault. Much less than the timeout, so that the
/// lease goes on, and much more than it takes to claim.
pub const SLOW_MS: u64 = 200;
/// Time for which a channel is slow, or a replay rests, before the rest of the fault comes.
pub const SLOW_BEFORE_MS: u64 = 300;
/// Delay of a channel at last in a far fault: longer than the timeout.
pub const FAR_MS: u64 = TIMEOUT_MS * 8 / 5;
/// Time for which that grows: a sign of life then comes three times as rarely, which is not a
/// silence.
pub const FAR_GROWS_MS: u64 = TIMEOUT_MS * 4 / 5;
/// Time from its beginning to the rest of a far fault. The backup claims a timeout later,
/// and what it has said before comes for [`FAR_MS`]: both before the primary has been without its
/// lease for twice the timeout, and goes on alone.
pub const FAR_BEFORE_MS: u64 = TIMEOUT_MS * 6 / 5;
/// Time for which the vCPU of a backup rests: until long after the primary was killed.
const HOLD_MS: u64 = 1_200;

impl Plan {
    /// The plan of `round` in the campaign `seed`; `only` fixes its kind.
    #[must_use]
    pub fn draw(seed: u64, round: u64, only: Option<Kind>) -> Self {
        let mut rng = Rng::new(mix(mix(seed) ^ round));
        let drawn = draw_kind(&mut rng);
        let kind = only.unwrap_or(drawn);
        let trigger = kind.place.is_in_failover().then(|| draw_trigger(&mut rng, kind));
        Self {
            seed,
            round,
            kind,
            ordinal: draw_ordinal(&mut rng, kind.place),
            trigger,
            trigger_at_ms: rng.within(50, 400),
            lasts_ms: draw_length(&mut rng),
            other_lasts_ms: draw_length(&mut rng),
            mended_after_ms: (!rng.once_in(3)).then(|| rng.within(20, 2 * TIMEOUT_MS)),
            clients: rng.within(3, 6) as usize,
        }
    }

    /// The side whose process stops or dies by itself at the point, and with which signal.
    #[must_use]
    pub fn stop_point(&self) -> Option<(Side, String)> {
        let (side, step) = self.kind.place.step()?;
        let what = match self.kind.fault {
            Fault::HoldReplayKillPrimary => format!("HOLD{HOLD_MS}"),
            fault => fault.own_signal(side).to_owned(),
        };
        // The primary of a pair has claimed once when it begins.
        let before = u64::from((side, step) == (Side::Primary, CLAIM_LINKED));
        Some((side, format!("{step}:{}:{what}", before + self.ordinal)))
    }

    /// True if only one thread of the side rests at its point.
    #[must_use]
    pub fn holds(&self) -> bool {
        self.kind.fault == Fault::HoldReplayKillPrimary
    }

    /// True if the side that has stopped itself at the point stays so for as long as the fault
    /// lasts.
    #[must_use]
    pub fn keeps_stopped(&self, side: Side) -> bool {
        match self.kind.fault {
            Fault::Stop(stopped) => stopped == side,
            Fault::StopBoth => true,
            Fault::KillWhileOtherStopped(killed) => killed != side,
            _ => false,
        }
    }

    /// True if the plan itself held up the side that went on: then the time it took says more of
    /// the plan than of the pair.
    #[must_use]
    pub fn hinders(&self, winner: Side) -> bool {
        let by_fault = match self.kind.fault {
            Fault::Stop(side) => side == winner,
            Fault::StopBoth
            | Fault::StorageAway
            | Fault::StorageAwayKill(_)
            | Fault::StorageAwayBlackhole
            | Fault::SlowKillPrimary
            | Fault::SlowDamageToBackup
            | Fault::SlowBlackholeToBackup
            | Fault::FarBlackholeToBackup
            | Fault::HoldReplayKillPrimary
            | Fault::Isolate(None) => true,
            Fault::KillWhileOtherStopped(side) => side != winner,
            _ => false,
        };
        let goes_through = self.kind.place.step().map(|(side, _)| side);
        let by_trigger = matches!(self.trigger, Some(Trigger::Stop { .. })) && goes_through != Some(winner);
        by_fault || by_trigger
    }

    /// The names of the round.
    #[must_use]
    pub fn title(&self) -> Title {
        Title {
            seed: self.seed,
            round: self.round,
            kind: self.kind.to_string(),
            plan: self.describe(),
            fault: match self.kind.mode {
                Mode::Replay => self.kind.fault.to_string(),
                Mode::Checkpoint => format!("checkpoint:{}", self.kind.fault),
            },
            point: self.kind.place.to_string(),
            step: self.kind.place.step().map_or("time", |(_, step)| step),
        }
    }

    /// In one line, for people.
    #[must_use]
    pub fn describe(&self) -> String {
        let mut text = self.kind.to_string();
        match self.kind.place {
            Place::Time => text.push_str(&format!(" after {} ms", self.ordinal)),
            Place::Step(..) => text.push_str(&format!(" number {}", self.ordinal)),
        }
        match self.trigger {
            Some(Trigger::Kill) => text.push_str(", the other killed"),
            Some(Trigger::Stop { ms }) => {
                text.push_str(&format!(", the other stopped and going on {ms} ms later"))
            }
            Some(Trigger::Blackhole) => text.push_str(", the channel swallowing all"),
            None => {}
        }
        if self.kind.fault.lasts() {
            text.push_str(&format!(", for {} ms", self.lasts_ms));
        }
        if self.kind.fault == Fault::StopBoth {
            text.push_str(&format!(" and {} ms", self.other_lasts_ms));
        }
        if self.kind.fault.swallows() {
            match self.mended_after_ms {
                Some(ms) => text.push_str(&format!(", mended after {ms} ms")),
                None => text.push_str(", for ever"),
            }
        }
        text
    }
}

/// A quarter of the rounds at a time, half at a step of the protected pair, a quarter in a
/// failover.
fn draw_kind(rng: &mut Rng) -> Kind {
    let all = Kind::replaying();
    let class = rng.below(4);
    let is_in_class = |kind: &&Kind| match kind.place {
        Place::Time => class == 0,
        place if place.is_in_failover() => class == 1,
        Place::Step(..) => class > 1,
    };
    let among: Vec<&Kind> = all.iter().filter(is_in_class).collect();
    *among[rng.below(among.len() as u64) as usize]
}

fn draw_trigger(rng: &mut Rng, kind: Kind) -> Trigger {
    // Both sides ask where the channel swallows all: only the first steps are certain to be met.
    let choices = if kind.place.is_before_the_verdict() { 3 } else { 2 };
    match rng.below(choices) {
        0 => Trigger::Kill,
        1 => Trigger::Stop {
            ms: rng.within(1, TIMEOUT_MS),
        },
        _ => Trigger::Blackhole,
    }
}

/// Low ordinals as often as high ones: the beginning of a log is where the clients' connections are
/// made.
fn draw_ordinal(rng: &mut Rng, place: Place) -> u64 {
    let bits = |rng: &mut Rng, low: u64, high: u64| {
        let scale = rng.within(low, high);
        rng.within(1 << scale, 2 << scale)
    };
    match place {
        Place::Time => rng.within(30, 600),
        Place::Step(..) if place.is_in_failover() => match place.step() {
            Some((_, "output-alone")) if rng.once_in(2) => rng.within(1, 30),
            _ => 1,
        },
        Place::Step(_, "log-entry") => bits(rng, 5, 11),
        // There are fifty common points a second.
        Place::Step(side, step) if COMMON_POINT.contains(&(side, step)) => bits(rng, 0, 5),
        Place::Step(..) => bits(rng, 1, 8),
    }
}

/// Time for which a side stops: shorter than the timeout, or longer.
pub fn draw_stop(rng: &mut Rng) -> u64 {
    match rng.below(2) {
        0 => rng.within(5, TIMEOUT_MS / 2),
        _ => rng.within(TIMEOUT_MS * 5 / 4, TIMEOUT_MS * 2),
    }
}

/// Shorter than the timeout, about as long, or longer.
fn draw_length(rng: &mut Rng) -> u64 {
    match rng.below(3) {
        0 => rng.within(5, TIMEOUT_MS / 2),
        1 => rng.within(TIMEOUT_MS * 3 / 4, TIMEOUT_MS * 5 / 4),
        _ => rng.within(TIMEOUT_MS * 5 / 4, TIMEOUT_MS * 3),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn a_round_has_one_plan() {
        for round in 0..100 {
            assert_eq!(Plan::draw(7, round, None), Plan::draw(7, round, None));
        }
    }

    #[test]
    fn seeds_and_rounds_differ() {
        let plans = |seed| -> BTreeSet<String> {
            (0..50)
                .map(|round| Plan::draw(seed, round, None).describe())
                .collect()
        };
        assert!(plans(1).len() > 40);
        assert_ne!(plans(1), plans(2));
    }

    #[test]
    fn every_kind_is_drawn_in_a_thousand_rounds_and_a_few() {
        let drawn: BTreeSet<String> = (0..5_000)
            .map(|round| Plan::draw(1, round, None).kind.to_string())
            .collect();
        let all: BTreeSet<String> = Kind::replaying().iter().map(Kind::to_string).collect();
        assert_eq!(drawn, all);
    }

    #[test]
    fn only_a_side_that_is_killed_at_its_own_step_kills_itself() {
        let plan = |text: &str| Plan::draw(1, 1, Some(text.parse().unwrap()));
        let (side, point) = plan("kill-primary@primary:before-send").stop_point().unwrap();
        assert!(side == Side::Primary && point.ends_with(":KILL"), "{point}");
        let (side, point) = plan("kill-primary@backup:after-send").stop_point().unwrap();
        assert!(side == Side::Backup && point.ends_with(":STOP"), "{point}");
        assert_eq!(plan("kill-primary@time").stop_point(), None);
        let ordinal = plan("kill-primary@primary:claim-linked").ordinal;
        let (_, point) = plan("kill-primary@primary:claim-linked").stop_point().unwrap();
        assert_eq!(
            point,
            format!("claim-linked:{}:KILL", ordinal + 1),
            "not its first claim"
        );
    }

    #[test]
    fn a_survivor_that_the_plan_stopped_or_starved_is_hindered() {
        let hinders = |text: &str, winner| Plan::draw(1, 1, Some(text.parse().unwrap())).hinders(winner);
        assert!(!hinders("kill-primary@time", Side::Backup) && !hinders("stop-primary@time", Side::Backup));
        assert!(
            hinders("stop-backup@time", Side::Backup)
                && hinders("storage-away-kill-primary@time", Side::Backup)
        );
        assert!(hinders("kill-primary-stop-backup@time", Side::Backup));
    }
}
