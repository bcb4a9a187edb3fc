//! The events around the loss of a replica, and the time that each part took. Pure.

use super::arguments::{Kill, KillSignal, Mode};
use super::replica_report::{ReplicaEvent, ReplicaReport};
use super::waits::Waits;

/// The loss of a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Loss {
    /// The replica that is lost.
    pub(super) replica: Kill,
    /// The signal that it is sent.
    pub(super) signal: KillSignal,
    /// Its process.
    pub(super) process: u32,
    /// Time, in nanoseconds.
    pub(super) at_ns: u64,
    /// Time at which it was woken, if it was stopped.
    pub(super) woken_at_ns: Option<u64>,
    /// Method by which the backup followed.
    pub(super) mode: Mode,
}

impl Loss {
    /// The role of the side that goes on.
    pub(super) fn survivor(&self) -> &'static str {
        if self.replica == Kill::Primary {
            "backup"
        } else {
            "primary"
        }
    }

    /// The role of the side that is lost.
    pub(super) fn lost(&self) -> &'static str {
        if self.replica == Kill::Primary {
            "primary"
        } else {
            "backup"
        }
    }
}

/// One thing that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Moment {
    /// Time, in nanoseconds.
    pub(super) at_ns: u64,
    /// Text for people.
    pub(super) what: String,
}

/// The events around a loss, in order.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Timeline {
    /// Time at which the replica was lost, in nanoseconds.
    pub(super) lost_at_ns: u64,
    /// The moments.
    pub(super) moments: Vec<Moment>,
    /// From the loss to the survivor's noticing, in milliseconds.
    pub(super) detect_ms: Option<f64>,
    /// From noticing to having won the test-and-set.
    pub(super) arbitrate_ms: Option<f64>,
    /// From noticing to acting alone: live, or, for a primary, solo.
    pub(super) live_ms: Option<f64>,
    /// The generation that was won.
    pub(super) generation: Option<u64>,
}

impl Timeline {
    /// The timeline of `loss` from what the replicas reported and the clients saw.
    pub(super) fn of(loss: &Loss, lost: &ReplicaReport, survivor: &ReplicaReport, waits: &Waits) -> Self {
        let since = |event| survivor.first_since(event, loss.at_ns);
        let (noticed, won) = (since("noticed"), since("won"));
        let alone = since("live").or_else(|| since("solo"));
        let mut moments = vec![loss_moment(loss)];
        let survivors = [noticed, won, since("replayed"), alone].into_iter().flatten();
        moments.extend(survivors.map(|event| survivor_moment(loss, event)));
        let first_reply = alone.and_then(|alone| waits.first_reply_since(alone.at_ns));
        moments.extend(first_reply.map(|at_ns| moment(at_ns, "first reply to a client".to_owned())));
        moments.extend(woken_moments(loss, lost));
        moments.sort_by_key(|moment| moment.at_ns);
        let between = |from: Option<u64>, to: Option<&ReplicaEvent>| Some(milliseconds(from?, to?.at_ns));
        let noticed_ns = noticed.map(|noticed| noticed.at_ns);
        Self {
            lost_at_ns: loss.at_ns,
            moments,
            detect_ms: between(Some(loss.at_ns), noticed),
            arbitrate_ms: between(noticed_ns, won),
            live_ms: between(noticed_ns, alone),
            generation: won.and_then(|won| won.number("generation")),
        }
    }

    /// Adds what followed.
    pub(super) fn add(&mut self, moments: Vec<Moment>) {
        self.moments.extend(moments);
        self.moments.sort_by_key(|moment| moment.at_ns);
    }

    /// A line for each moment, in milliseconds since the loss.
    pub(super) fn lines(&self) -> Vec<String> {
        let start_ns = self.moments.first().map_or(0, |first| first.at_ns);
        let line = |moment: &Moment| {
            format!(
                "{:>10.3} ms  {}",
                milliseconds(start_ns, moment.at_ns),
                moment.what
            )
        };
        self.moments.iter().map(line).collect()
    }
}

/// Milliseconds from one time in nanoseconds to another, to the microsecond.
pub(super) fn milliseconds(from_ns: u64, to_ns: u64) -> f64 {
    (to_ns.saturating_sub(from_ns) / 1_000) as f64 / 1_000.0
}

/// A moment.
pub(super) fn moment(at_ns: u64, what: String) -> Moment {
    Moment { at_ns, what }
}

fn loss_moment(loss: &Loss) -> Moment {
    let how = match loss.signal {
        KillSignal::Kill => "killed (SIGKILL",
        KillSignal::Stop => "stopped (SIGSTOP",
    };
    moment(
        loss.at_ns,
        format!("{} {how}, process {})", loss.lost(), loss.process),
    )
}

fn survivor_moment(loss: &Loss, event: &ReplicaEvent) -> Moment {
    let detail = |name| event.field(name).unwrap_or_default();
    let what = match (event.event.as_str(), loss.mode) {
        ("noticed", _) => format!("noticed: {}", detail("cause")),
        ("won", _) => format!("won the test-and-set for generation {}", detail("generation")),
        ("replayed", Mode::Checkpoint) => {
            format!("is at the last whole checkpoint, entry {}", detail("sequence"))
        }
        ("replayed", Mode::Replay) => {
            format!("replayed everything received, to entry {}", detail("sequence"))
        }
        ("live", _) => "live".to_owned(),
        _ => "goes on without a backup".to_owned(),
    };
    moment(
        event.at_ns,
        format!("{} {what}", loss.survivor()).replacen("backup live", "backup is live", 1),
    )
}

fn woken_moments(loss: &Loss, lost: &ReplicaReport) -> Vec<Moment> {
    let Some(woken_at_ns) = loss.woken_at_ns else {
        return Vec::new();
    };
    let woken = moment(woken_at_ns, format!("{} woken (SIGCONT)", loss.lost()));
    let fenced = lost.first_since("fenced", woken_at_ns);
    let fenced = fenced.map(|event| {
        moment(
            event.at_ns,
            format!("{} lost the test-and-set: fenced", loss.lost()),
        )
    });
    [Some(woken), fenced].into_iter().flatten().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: u64 = 1_000_000;
    const BACKUP: &str = r#"{"at_ns":1000000,"event":"protected"}
{"at_ns":12000000,"event":"noticed","cause":"it closed the connection"}
{"at_ns":14500000,"event":"won","generation":1}
{"at_ns":15000000,"event":"replayed","sequence":77}
{"at_ns":16000000,"event":"live","generation":1}"#;

    fn loss(replica: Kill, signal: KillSignal, woken_at_ns: Option<u64>) -> Loss {
        Loss {
            replica,
            signal,
            process: 7,
            at_ns: 10 * MS,
            woken_at_ns,
            mode: Mode::Replay,
        }
    }

    #[test]
    fn a_killed_primary_gives_the_whole_story() {
        let loss = loss(Kill::Primary, KillSignal::Kill, None);
        let timeline = Timeline::of(&loss, &"".into(), &BACKUP.into(), &Waits::default());
        let parts = (timeline.detect_ms, timeline.arbitrate_ms, timeline.live_ms);
        assert_eq!(parts, (Some(2.0), Some(2.5), Some(4.0)));
        assert_eq!(timeline.generation, Some(1));
        assert_eq!(
            timeline.lines(),
            [
                "     0.000 ms  primary killed (SIGKILL, process 7)",
                "     2.000 ms  backup noticed: it closed the connection",
                "     4.500 ms  backup won the test-and-set for generation 1",
                "     5.000 ms  backup replayed everything received, to entry 77",
                "     6.000 ms  backup is live",
            ]
        );
    }

    #[test]
    fn a_killed_backup_leaves_a_primary_alone() {
        let primary = r#"{"at_ns":11000000,"event":"noticed","cause":"gone"}
{"at_ns":11500000,"event":"won","generation":1}
{"at_ns":11600000,"event":"solo","generation":1}"#;
        let loss = loss(Kill::Backup, KillSignal::Kill, None);
        let timeline = Timeline::of(&loss, &"".into(), &primary.into(), &Waits::default());
        assert_eq!(timeline.live_ms, Some(0.6));
        assert_eq!(
            timeline.lines().last().unwrap(),
            "     1.600 ms  primary goes on without a backup"
        );
    }

    #[test]
    fn a_stopped_primary_is_woken_and_fenced() {
        let primary = r#"{"at_ns":60000000,"event":"fenced","generation":1}"#;
        let loss = loss(Kill::Primary, KillSignal::Stop, Some(50 * MS));
        let timeline = Timeline::of(&loss, &primary.into(), &BACKUP.into(), &Waits::default());
        let lines = timeline.lines();
        assert_eq!(lines[0], "     0.000 ms  primary stopped (SIGSTOP, process 7)");
        assert_eq!(lines[5], "    40.000 ms  primary woken (SIGCONT)");
        assert_eq!(lines[6], "    50.000 ms  primary lost the test-and-set: fenced");
    }

    #[test]
    fn what_did_not_happen_has_no_time() {
        let loss = loss(Kill::Primary, KillSignal::Kill, None);
        let early = r#"{"at_ns":9000000,"event":"noticed","cause":"before the loss"}"#;
        let timeline = Timeline::of(&loss, &"".into(), &early.into(), &Waits::default());
        assert_eq!(
            (timeline.detect_ms, timeline.live_ms, timeline.moments.len()),
            (None, None, 1)
        );
    }
}
