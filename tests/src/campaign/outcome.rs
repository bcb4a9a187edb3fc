//! What a round came to, and whether every promise was kept.

use super::course::{Course, Standing};
use super::evidence::Evidence;
use super::kind::{Fault, Place, Side};
use super::plan::{Plan, Title, Trigger};
use super::promises::Broken;
use super::wire;
use serde_json::{Value, json};
use std::time::Duration;

/// How a side learnt that the other was gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Noticed {
    /// By a connection that ended.
    Closed,
    /// By silence.
    Silence,
}

/// Times of a failover, from the fault on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// How it was noticed.
    pub how: Noticed,
    /// The plan held up the side that went on, too.
    pub hindered: bool,
    /// Until it was noticed.
    pub noticed_ns: u64,
    /// Until one side acted alone.
    pub live_ns: u64,
    /// The longest that a client waited for an answer that came after the fault.
    pub gap_ns: u64,
}

/// Points of a plan: steps at which a process is to kill or stop itself, or a time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Points {
    /// All that the plan has.
    pub planned: usize,
    /// Those that were met. A step that its process does not pass is not.
    pub met: usize,
}

impl Points {
    /// True if each was met.
    #[must_use]
    pub fn are_met(self) -> bool {
        self.met >= self.planned
    }

    /// Number of those that were not.
    #[must_use]
    pub fn missed(self) -> usize {
        self.planned.saturating_sub(self.met)
    }
}

/// A round, judged.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// Its names.
    pub title: Title,
    /// What breaks a promise; empty where all were kept.
    pub failures: Vec<String>,
    /// Points of the plan.
    pub points: Points,
    /// How the pair stood at the end.
    pub standing: Option<Standing>,
    /// Operations that were acknowledged.
    pub acknowledged: u64,
    /// Acknowledged writes that were gone.
    pub lost: u64,
    /// Answers that no order explains, or that a session may not have.
    pub wrong: u64,
    /// Connections of clients that broke.
    pub broken: u64,
    /// Divergences that replicas reported and that the plan has not made.
    pub divergences: u64,
    /// Machines that were fenced.
    pub fenced: u64,
    /// Frames of the primary that were held against the log.
    pub frames: u64,
    /// Frames that an old machine said too late.
    pub late: u64,
    /// A side was given up before the fault came: the machine that runs the campaign was too busy.
    pub early: bool,
    /// Of a failover that the fault led to.
    pub times: Option<Times>,
    /// How long the round took.
    pub took: Duration,
}

impl Outcome {
    /// A round that cannot be run here.
    #[must_use]
    pub fn skipped(title: Title) -> Self {
        Self {
            failures: Vec::new(),
            ..Self::failed(title, "")
        }
    }

    /// A round that did not come to its fault.
    #[must_use]
    pub fn failed(title: Title, why: &str) -> Self {
        Self {
            title,
            failures: vec![why.to_owned()],
            points: Points { planned: 1, met: 0 },
            standing: None,
            acknowledged: 0,
            lost: 0,
            wrong: 0,
            broken: 0,
            divergences: 0,
            fenced: 0,
            frames: 0,
            late: 0,
            early: false,
            times: None,
            took: Duration::ZERO,
        }
    }

    /// Generations of a machine that heals.
    #[must_use]
    pub fn healed_generations(&self) -> u64 {
        match self.standing {
            Some(Standing::Healed(generation)) => generation.into(),
            _ => 0,
        }
    }

    /// As one line of a program's input.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let ms = |ns: u64| ns as f64 / 1e6;
        json!({
            "round": self.title.round,
            "kind": self.title.kind,
            "plan": self.title.plan,
            "met": self.points.are_met(),
            "points_planned": self.points.planned,
            "points_met": self.points.met,
            "standing": self.standing.map(|standing| format!("{standing:?}")),
            "failures": self.failures,
            "acknowledged": self.acknowledged,
            "lost": self.lost,
            "wrong": self.wrong,
            "broken": self.broken,
            "divergences": self.divergences,
            "fenced": self.fenced,
            "frames": self.frames,
            "late_frames": self.late,
            "early": self.early,
            "noticed_by": self.times.map(|times| if times.how == Noticed::Closed { "closed connection" } else { "silence" }),
            "hindered": self.times.map(|times| times.hindered),
            "noticed_ms": self.times.map(|times| ms(times.noticed_ns)),
            "live_ms": self.times.map(|times| ms(times.live_ns)),
            "client_gap_ms": self.times.map(|times| ms(times.gap_ns)),
            "took_ms": self.took.as_millis() as u64,
        })
    }
}

/// Judges a round.
#[must_use]
pub fn judge(plan: &Plan, course: Course, evidence: &Evidence, serves: bool, took: Duration) -> Outcome {
    let mut outcome = Outcome {
        points: Points {
            planned: 1,
            met: usize::from(course.met),
        },
        standing: course.standing,
        failures: course.failures,
        took,
        ..Outcome::failed(plan.title(), "")
    };
    judge_clients(evidence, serves, &mut outcome);
    judge_wire(plan, evidence, &mut outcome);
    judge_processes(evidence, 0, &mut outcome);
    // Where nobody was lost, the claim that is found was made when the round ended its pair.
    if let (Some(fault_ns), Some(Standing::Alone(winner))) = (course.fault_ns, course.standing) {
        take_times(plan, fault_ns, winner, evidence, &mut outcome);
    }
    judge_reach(plan, &mut outcome);
    outcome
}

pub(super) fn judge_clients(evidence: &Evidence, serves: bool, outcome: &mut Outcome) {
    outcome.acknowledged = evidence
        .history()
        .filter(|record| record.answer.is_some())
        .count() as u64;
    // Where nobody goes on, the round itself closes the connections that wait.
    let closed = !serves && outcome.standing.is_some();
    let broken = Broken::promises(evidence, closed);
    outcome.broken = broken.connections.len() as u64;
    outcome.wrong = broken.answers.len() as u64;
    outcome.lost = broken.writes.len() as u64;
    let all = [broken.connections, broken.answers, broken.writes];
    outcome.failures.extend(all.into_iter().flatten());
}

/// True if every output of the log is to be seen: the primary was killed, with nothing else the
/// matter, so that the backup has read all that was passed on to it. (A primary that is stopped or
/// cut off drops what is too late, which TCP sends again.)
fn says_all(plan: &Plan, evidence: &Evidence) -> bool {
    let killed = matches!(
        plan.kind.fault,
        Fault::Kill(Side::Primary) | Fault::SlowKillPrimary | Fault::HoldReplayKillPrimary
    );
    killed && plan.trigger.is_none() && evidence.winner == Some(Side::Backup)
}

/// Number of frames that the old machine may still say: docs/failover.md, "What is left". One that
/// was stopped between its look at the clock and the system call says that one frame. A closing
/// that neither side made forges the proof of silence, which a channel is assumed not to do: what
/// was acknowledged may leave until the old machine reads of it. Every such frame is held against
/// the log all the same.
fn late_frames_allowed(plan: &Plan) -> u64 {
    let goes_through = plan.kind.place.step().map(|(side, _)| side);
    match plan.kind.fault {
        Fault::Close => u64::MAX,
        // It stands where it has not looked at the clock yet.
        Fault::Stop(Side::Primary) if plan.kind.place == Place::Step(Side::Primary, "before-acknowledge") => {
            0
        }
        Fault::Stop(Side::Primary) | Fault::StopBoth | Fault::KillWhileOtherStopped(Side::Backup) => 1,
        _ => u64::from(
            goes_through == Some(Side::Primary) || matches!(plan.trigger, Some(Trigger::Stop { .. })),
        ),
    }
}

/// Where clients reach one side only, that one goes on.
fn judge_reach(plan: &Plan, outcome: &mut Outcome) {
    if let (Fault::Isolate(Some(side)), Some(standing)) = (plan.kind.fault, outcome.standing)
        && outcome.points.are_met()
        && !outcome.early
        && standing != Standing::Alone(side.other())
    {
        outcome.failures.push(format!(
            "clients reach only the {}, and it has come to {standing:?}",
            side.other().name()
        ));
    }
}

fn judge_wire(plan: &Plan, evidence: &Evidence, outcome: &mut Outcome) {
    // On hosts of their own the sides have no switch that captures and no proxy in the channel.
    let Some(traffic) = &evidence.traffic else { return };
    let findings = wire::check(&evidence.frames, traffic);
    outcome.frames = findings.frames;
    outcome.late = findings.late;
    outcome.failures.extend(findings.complaints);
    if says_all(plan, evidence) {
        outcome.failures.extend(wire::unsaid(&evidence.frames, traffic));
    }
    if findings.late > late_frames_allowed(plan) {
        outcome.failures.push(format!(
            "{} frames of the old machine after the new one had begun",
            findings.late
        ));
    }
}

/// Divergences of a side at which it joins again.
const DIVERGENCES_MAX: u64 = 4;

/// Judges what processes say of themselves, where the plan has made so many divergences.
pub(super) fn judge_processes(evidence: &Evidence, divergences: u64, outcome: &mut Outcome) {
    for (name, said) in &evidence.said {
        outcome.fenced += u64::from(said.code == Some(41));
        // A side that has diverged begins its program again, and goes on with the same report.
        let diverged = said
            .events
            .iter()
            .filter(|line| line["event"] == "diverged")
            .count() as u64;
        outcome.divergences += diverged;
        // The guest may differ still when its backup has joined again. At the fifth time that gives
        // up.
        let allowed = if divergences > 0 { DIVERGENCES_MAX } else { 0 };
        if diverged > allowed || said.code == Some(40) {
            outcome.failures.push(format!("the {name} reports a divergence"));
        }
        if said.stderr.contains("panicked at") {
            outcome.failures.push(format!("the {name} panicked"));
        }
        if said.code == Some(41) && evidence.winner.is_some_and(|winner| winner.name() == name) {
            outcome
                .failures
                .push(format!("the {name} has won, and was fenced"));
        }
    }
    if outcome.divergences < divergences {
        outcome.failures.push(format!(
            "{} divergences were reported, and {divergences} were made",
            outcome.divergences
        ));
    }
    if divergences > 0 {
        outcome.divergences = 0;
    }
}

fn take_times(plan: &Plan, fault_ns: u64, winner: Side, evidence: &Evidence, outcome: &mut Outcome) {
    let said = &evidence.said[winner.name()];
    let goes_on = if winner == Side::Primary { "solo" } else { "live" };
    let (Some(noticed), Some(live_ns)) = (said.event("noticed"), said.at_ns(goes_on)) else {
        return;
    };
    let noticed_ns = noticed["at_ns"].as_u64().unwrap_or(0);
    if noticed_ns < fault_ns {
        outcome.early = true;
        return;
    }
    let silent = noticed["cause"]
        .as_str()
        .is_some_and(|cause| cause.starts_with("silent"));
    let waits = evidence.history().filter_map(|record| {
        let answer = record.answer.filter(|answer| answer.at_ns > fault_ns)?;
        Some(answer.at_ns - record.invoked_ns)
    });
    outcome.times = Some(Times {
        hindered: plan.hinders(winner),
        how: if silent { Noticed::Silence } else { Noticed::Closed },
        noticed_ns: noticed_ns - fault_ns,
        live_ns: live_ns.saturating_sub(fault_ns),
        gap_ns: waits.max().unwrap_or(0),
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(kind: &str) -> u64 {
        late_frames_allowed(&Plan::draw(1, 1, Some(kind.parse().unwrap())))
    }

    #[test]
    fn a_side_that_clients_do_not_reach_must_not_be_the_one_that_goes_on() {
        let failures = |kind: &str, standing, early| {
            let plan = Plan::draw(1, 1, Some(kind.parse().unwrap()));
            let mut outcome = Outcome {
                points: Points { planned: 1, met: 1 },
                standing: Some(standing),
                early,
                ..Outcome::skipped(plan.title())
            };
            judge_reach(&plan, &mut outcome);
            outcome.failures.len()
        };
        let (primary, backup) = (Standing::Alone(Side::Primary), Standing::Alone(Side::Backup));
        assert_eq!(failures("isolate-primary@time", primary, false), 1);
        assert_eq!(failures("isolate-primary@time", backup, false), 0);
        assert_eq!(failures("isolate-backup@time", backup, false), 1);
        assert_eq!(failures("isolate-backup@time", Standing::Down, false), 1);
        assert_eq!(
            failures("isolate-primary@time", primary, true),
            0,
            "given up before"
        );
        assert_eq!(failures("isolate-both@time", primary, false), 0);
        assert_eq!(failures("blackhole@time", primary, false), 0);
    }

    #[test]
    fn an_old_machine_may_be_late_only_where_it_was_stopped_or_deceived() {
        assert_eq!(allowed("kill-primary@time"), 0);
        assert_eq!(allowed("blackhole@time"), 0);
        assert_eq!(allowed("stop-primary@time"), 1);
        assert_eq!(allowed("stop-primary@primary:before-release"), 1);
        assert_eq!(allowed("stop-primary@primary:before-acknowledge"), 0);
        assert_eq!(allowed("close@time"), u64::MAX);
    }
}
