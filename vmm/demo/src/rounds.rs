//! The course of a demonstration: rounds of a loss, and of a new backup that joins.

use std::path::PathBuf;
use std::time::Duration;

use nix::sys::signal::Signal;
use tokio::time::{Instant, sleep_until};

use super::command_lines::Sides;
use super::control::{Control, Phase};
use super::ending::not_fenced;
use super::joining::{Joining, Started};
use super::processes::Process;
use super::progress::{self, say};
use super::replica_report::ReplicaReport;
use super::scene::Scene;
use super::timeline::{Loss, Timeline, milliseconds};
use super::waits::Waits;
use super::{DemoArguments, DemoError, Kill, KillSignal};
use lockstep_process::clock::monotonic_ns;

/// A loss, and what followed.
pub(super) struct Round {
    /// Its ordinal, from 1.
    pub(super) number: u16,
    /// The loss.
    pub(super) loss: Loss,
    /// The process that was left.
    pub(super) survivor: u32,
    lost_report: PathBuf,
    survivor_report: PathBuf,
    /// The new backup with its report; none in the last round.
    joined: Option<(Started, PathBuf)>,
    /// Waits of the clients around the loss.
    pub(super) waits: Waits,
}

/// A round as it is told.
pub(super) struct Story {
    /// The round's ordinal, from 1.
    pub(super) number: u16,
    /// The loss.
    pub(super) loss: Loss,
    /// The process that was left.
    pub(super) survivor: u32,
    /// The events around the loss.
    pub(super) timeline: Timeline,
    /// The joining of the new backup; none in the last round.
    pub(super) joining: Option<Joining>,
    /// The longest wait of a client around the loss, in nanoseconds.
    pub(super) gap_ns: u64,
}

impl Round {
    /// Tells it from what the sides have reported.
    pub(super) fn story(&self) -> Story {
        let (lost, survivor) = (
            ReplicaReport::read(&self.lost_report),
            ReplicaReport::read(&self.survivor_report),
        );
        let mut timeline = Timeline::of(&self.loss, &lost, &survivor, &self.waits);
        let joining = self
            .joined
            .as_ref()
            .map(|(started, report)| Joining::of(*started, &ReplicaReport::read(report), &survivor));
        timeline.add(joining.iter().flat_map(Joining::moments).collect());
        Story {
            number: self.number,
            loss: self.loss,
            survivor: self.survivor,
            timeline,
            joining,
            gap_ns: self.waits.gap_ns(),
        }
    }
}

impl Story {
    /// For people. A round that is the only one needs no title, and its wait is in the verdict.
    pub(super) fn lines(&self, of: u16) -> Vec<String> {
        let mut lines = self.timeline.lines();
        if of > 1 {
            let (lost, left) = (self.loss.process, self.survivor);
            let (primary, backup) = match self.loss.replica {
                Kill::Backup => (left, lost),
                _ => (lost, left),
            };
            let title = format!(
                "round {} of {of}: process {primary} is the primary, process {backup} its backup",
                self.number
            );
            lines.insert(0, title);
            lines.push(format!(
                "{:>15}longest wait of a client: {:.1} ms",
                "",
                milliseconds(0, self.gap_ns)
            ));
        }
        lines
    }
}

/// The course of all rounds.
#[derive(Default)]
pub(super) struct Course {
    /// The rounds in which a replica was lost.
    pub(super) rounds: Vec<Round>,
    /// Everything that was not as it must be.
    pub(super) troubles: Vec<String>,
}

/// Lets the load run, and a replica be lost in each round of it. All rounds but the last are told.
pub(super) async fn direct(
    arguments: &DemoArguments,
    sides: &Sides,
    scene: &mut Scene,
    control: &Control,
) -> Result<Course, DemoError> {
    let mut course = Course::default();
    let mut protected_since_ns = 0;
    for number in 1..=arguments.rounds {
        let start = Instant::now();
        let end = start + arguments.duration;
        let title = title(arguments, number);
        enter(control, title.clone(), start, arguments.duration);
        if arguments.kill == Kill::None {
            sleep_until(end).await;
            still_a_pair(arguments, scene, protected_since_ns)?;
            break;
        }
        sleep_until(start + arguments.after).await;
        still_a_pair(arguments, scene, protected_since_ns)?;
        let Some(mut round) = lose(arguments, scene, number) else {
            break;
        };
        control.lost(round.loss.at_ns);
        let title = format!("{title}, the {} is lost", round.loss.lost());
        enter(control, title, start, arguments.duration);
        if arguments.signal == KillSignal::Stop {
            sleep_until(start + (arguments.after + arguments.duration) / 2).await;
            round.loss.woken_at_ns = Some(monotonic_ns());
            victim(arguments, scene)
                .into_iter()
                .for_each(|victim| victim.signal(Signal::SIGCONT));
        }
        sleep_until(end).await;
        let goes_on = round.story().timeline.live_ms.is_some();
        course.rounds.push(round);
        if number == arguments.rounds || !goes_on {
            break;
        }
        if arguments.signal == KillSignal::Stop
            && let Some(victim) = victim(arguments, scene)
        {
            course.troubles.extend(not_fenced(victim).await);
        }
        scene.settle(arguments.kill).await;
        let joined = scene.join(sides, control).await?;
        protected_since_ns = monotonic_ns();
        let report = scene.pair().map(|(_, backup)| backup.report.path().to_owned());
        if let (Some(round), Some(report)) = (course.rounds.last_mut(), report) {
            round.joined = Some((joined, report));
            round.waits = control.take_waits();
            tell(&round.story(), arguments.rounds);
        }
    }
    Ok(course)
}

fn title(arguments: &DemoArguments, number: u16) -> String {
    match (arguments.kill, arguments.rounds) {
        (Kill::None, _) | (_, 1) => "load".to_owned(),
        (_, rounds) => format!("round {number} of {rounds}"),
    }
}

fn enter(control: &Control, what: String, since: Instant, of: Duration) {
    control.enter(Phase::Load {
        what,
        since: since.into_std(),
        of,
    });
}

/// Says what happened in a round.
pub(super) fn tell(story: &Story, of: u16) {
    progress::clear();
    story.lines(of).iter().for_each(|line| say(line));
}

/// The side that is lost in each round.
fn victim<'a>(arguments: &DemoArguments, scene: &'a mut Scene) -> Option<&'a mut Process> {
    let (primary, backup) = scene.pair()?;
    match arguments.kill {
        Kill::Primary => Some(&mut primary.process),
        Kill::Backup => Some(&mut backup.process),
        Kill::None => None,
    }
}

/// Neither replica has given up the other since then.
fn still_a_pair(arguments: &DemoArguments, scene: &mut Scene, since_ns: u64) -> Result<(), DemoError> {
    let Some((primary, backup)) = scene.pair() else {
        return Ok(());
    };
    let parted = [
        ("primary", primary.report.look()),
        ("backup", backup.report.look()),
    ]
    .into_iter()
    .find_map(|(replica, report)| {
        let noticed = report.first_since("noticed", since_ns)?;
        Some((replica, noticed.field("cause").unwrap_or_default()))
    });
    match parted {
        None => Ok(()),
        Some((replica, cause)) => Err(DemoError::Parted {
            replica,
            cause,
            timeout_ms: arguments.timeout_ms,
        }),
    }
}

fn lose(arguments: &DemoArguments, scene: &mut Scene, number: u16) -> Option<Round> {
    let (primary, backup) = scene.pair()?;
    let (victim, survivor) = match arguments.kill {
        Kill::Primary => (primary, backup),
        Kill::Backup => (backup, primary),
        Kill::None => return None,
    };
    let (process, at_ns) = (victim.process.id(), monotonic_ns());
    victim.process.signal(match arguments.signal {
        KillSignal::Kill => Signal::SIGKILL,
        KillSignal::Stop => Signal::SIGSTOP,
    });
    Some(Round {
        number,
        loss: Loss {
            replica: arguments.kill,
            signal: arguments.signal,
            process,
            at_ns,
            woken_at_ns: None,
            mode: arguments.mode,
        },
        survivor: survivor.process.id(),
        lost_report: victim.report.path().to_owned(),
        survivor_report: survivor.report.path().to_owned(),
        joined: None,
        waits: Waits::default(),
    })
}
