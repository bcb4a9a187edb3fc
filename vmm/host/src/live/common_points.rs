//! Decision to make a common point: something waits to enter, and the guest has made no exit for
//! long (docs/determinism.md, Common points).

use lockstep_core::machine::door::Kicked;
use lockstep_logging_channel::ExecutionPoint;
use lockstep_process::once_a_minute::Seldom;
use std::time::{Duration, Instant};

/// Time from a kick that found no execution point, or one at which the guest cannot be interrupted,
/// to the next: long enough for a clock to see what it needs, and for some hundred steps.
pub const RETRY_AFTER: Duration = Duration::from_millis(1);

/// A guest that cannot be interrupted is waited for so many times as long as one that can, before
/// what waits enters all the same: it may look for it without an interrupt.
const CLOSED_TIMES: u32 = 10;

/// The part of the event latency for which a guest must have made no exit. What arrives then has
/// waited for at most one more part when the next kick comes; and a timer whose period is the
/// latency finds a guest that last made an exit when it served it.
const QUIET_PART: u32 = 2;

/// Time that the first write to a page takes after a common point, where the host logs it and was
/// not found to take another: measured on software-assisted KVM inside a virtual machine, where it
/// is dearest.
const FIRST_WRITE: Duration = Duration::from_micros(30);
/// Bounds of what is measured: a fault takes no less, and a host that was busy when it was measured
/// does not keep events from a guest for long.
const FIRST_WRITE_MIN: Duration = Duration::from_micros(1);
const FIRST_WRITE_MAX: Duration = Duration::from_micros(200);

/// The run of the guest since its last execution point.
#[derive(Clone, Copy, Debug)]
struct Stretch {
    /// Exits and instructions there.
    position: (u64, u64),
    since: Instant,
    /// A common point is being made, or waits for the guest to open interrupts: looked at soon.
    soon: bool,
    /// Time at which a kick first found that something waits.
    waits_since: Option<Instant>,
    /// Time at which it was found that one is needed.
    needed: Option<Instant>,
}

/// The decision, kick by kick.
#[derive(Debug)]
pub struct CommonPoints {
    /// None: what waits for an execution point waits however long.
    event_latency: Option<Duration>,
    /// An instruction clock looks for a point between two exits, and has all of that time for it.
    has_clock: bool,
    stretch: Option<Stretch>,
    /// Pages that the guest had written for the one that was just made.
    pages: u64,
    /// Time that the first write to a page takes.
    first_write: Duration,
    /// Time that the guest has before the next: half of what passes until then is its own.
    rest: Duration,
    told: Seldom,
}

impl CommonPoints {
    /// For events that may wait for `event_latency`.
    #[must_use]
    pub fn after(event_latency: Option<Duration>) -> Self {
        Self {
            event_latency,
            has_clock: false,
            stretch: None,
            pages: 0,
            first_write: FIRST_WRITE,
            rest: Duration::ZERO,
            told: Seldom::default(),
        }
    }

    /// The same on a host where a first write was measured to take so long.
    #[must_use]
    pub fn with_first_write(self, measured: Option<Duration>) -> Self {
        let measured = measured.map(|measured| measured.clamp(FIRST_WRITE_MIN, FIRST_WRITE_MAX));
        Self {
            first_write: measured.unwrap_or(FIRST_WRITE),
            ..self
        }
    }

    /// The same beside an instruction clock, if there is one.
    #[must_use]
    pub fn beside_clock(self, has_clock: bool) -> Self {
        Self { has_clock, ..self }
    }

    /// One was made, for which the guest had written `pages`.
    pub fn made(&mut self, pages: u64) {
        self.pages = pages;
    }

    /// The guest runs on from `point`: an execution point, or the last one where a kick has found
    /// it.
    pub fn runs_from(&mut self, point: ExecutionPoint, now: Instant) {
        if self
            .stretch
            .is_some_and(|stretch| stretch.position == point.position())
        {
            return;
        }
        let before = self.stretch.replace(Stretch {
            position: point.position(),
            since: now,
            soon: false,
            waits_since: None,
            needed: None,
        });
        if let Some(needed) = before.and_then(|stretch| stretch.needed) {
            let took = now.saturating_duration_since(needed);
            // It writes as many pages again, and has as long for itself as that and this take.
            let writes = self
                .first_write
                .saturating_mul(u32::try_from(self.pages).unwrap_or(u32::MAX));
            self.rest = took + 2 * writes;
            self.pages = 0;
            self.warn(took, now);
        }
    }

    /// Says that events wait longer than they are to.
    fn warn(&mut self, took: Duration, now: Instant) {
        if let Some(latency) = self.event_latency.filter(|latency| self.rest > *latency)
            && self.told.may(now)
        {
            tracing::warn!(
                event_latency_ms = latency.as_millis(),
                took_ms = took.as_millis(),
                next_after_ms = self.rest.as_millis(),
                "what arrives waits for a guest that makes no exit: it writes too much memory for common \
                 points as often as events are to enter"
            );
        }
    }

    /// Time to look at the guest, if it makes no exit before; `due`: the expiry of its timer.
    #[must_use]
    pub fn look_at(&self, due: Option<Instant>, now: Instant) -> Option<Instant> {
        let stretch = self.stretch?;
        let quiet = self.event_latency? / QUIET_PART;
        if stretch.soon {
            return Some(now + RETRY_AFTER);
        }
        let earliest = stretch.since + quiet.max(self.rest);
        let regular = if earliest > now { earliest } else { now + quiet };
        Some(match due {
            Some(due) => regular.min(due.max(earliest).max(now + RETRY_AFTER)),
            None => regular,
        })
    }

    /// Consequence of a kick that has let nothing in: `waits`: something could enter there;
    /// `interruptible`: and the guest could be interrupted.
    pub fn judge(&mut self, waits: bool, interruptible: bool, now: Instant) -> Kicked {
        let rest = self.rest;
        let (Some(latency), Some(stretch)) = (self.event_latency, &mut self.stretch) else {
            return Kicked::RunsOn;
        };
        let ran = now.saturating_duration_since(stretch.since);
        stretch.soon = waits && ran >= (latency / QUIET_PART).max(rest);
        if waits && self.has_clock {
            let waits_since = *stretch.waits_since.get_or_insert(now);
            stretch.soon = true;
            if now.saturating_duration_since(waits_since) < latency {
                return Kicked::RunsOn;
            }
        }
        if !stretch.soon || !(interruptible || ran >= CLOSED_TIMES * latency) {
            return Kicked::RunsOn;
        }
        stretch.needed.get_or_insert(now);
        Kicked::CommonPoint
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LATENCY: Duration = Duration::from_millis(10);
    const MILLISECOND: Duration = Duration::from_millis(1);

    fn point(exits: u64) -> ExecutionPoint {
        ExecutionPoint {
            exits,
            ..ExecutionPoint::default()
        }
    }

    fn begun(latency: Option<Duration>) -> (CommonPoints, Instant) {
        let now = Instant::now();
        let mut points = CommonPoints::after(latency);
        points.runs_from(point(1), now);
        (points, now)
    }

    #[test]
    fn a_guest_that_made_an_exit_lately_is_left_alone() {
        let (mut points, begun) = begun(Some(LATENCY));
        assert_eq!(points.judge(true, true, begun + 4 * MILLISECOND), Kicked::RunsOn);
        points.runs_from(point(2), begun + 4 * MILLISECOND);
        assert_eq!(points.judge(true, true, begun + 8 * MILLISECOND), Kicked::RunsOn);
        assert_eq!(
            points.judge(false, true, begun + 20 * MILLISECOND),
            Kicked::RunsOn
        );
        assert_eq!(
            points.judge(true, true, begun + 20 * MILLISECOND),
            Kicked::CommonPoint
        );
    }

    #[test]
    fn a_clock_has_all_of_the_latency_to_find_a_point() {
        let (points, begun) = begun(Some(LATENCY));
        let mut points = points.beside_clock(true);
        let first = begun + 5 * LATENCY;
        assert_eq!(points.judge(true, true, first), Kicked::RunsOn);
        assert_eq!(points.look_at(None, first), Some(first + RETRY_AFTER));
        let nearly = first + LATENCY - MILLISECOND;
        assert_eq!(points.judge(true, true, nearly), Kicked::RunsOn);
        assert_eq!(points.judge(true, true, first + LATENCY), Kicked::CommonPoint);
        // It begins anew behind every execution point.
        points.runs_from(point(2), first + LATENCY);
        assert_eq!(points.judge(true, true, first + 3 * LATENCY), Kicked::RunsOn);
    }

    #[test]
    fn without_a_bound_there_is_none() {
        let (mut points, begun) = begun(None);
        assert_eq!(points.judge(true, true, begun + 3_600 * LATENCY), Kicked::RunsOn);
        assert_eq!(points.look_at(None, begun), None);
    }

    #[test]
    fn a_guest_with_interrupts_shut_is_waited_for_and_looked_at_soon() {
        let (mut points, begun) = begun(Some(LATENCY));
        let later = begun + 9 * LATENCY;
        assert_eq!(points.judge(true, false, later), Kicked::RunsOn);
        assert_eq!(points.look_at(None, later), Some(later + RETRY_AFTER));
        assert_eq!(
            points.judge(true, false, begun + 10 * LATENCY),
            Kicked::CommonPoint
        );
    }

    #[test]
    fn one_is_not_made_sooner_after_the_last_than_that_one_took() {
        let (mut points, begun) = begun(Some(LATENCY));
        let first = begun + LATENCY;
        assert_eq!(points.judge(true, true, first), Kicked::CommonPoint);
        let done = first + 3 * LATENCY;
        points.runs_from(point(2), done);
        assert_eq!(points.judge(true, true, done + 2 * LATENCY), Kicked::RunsOn);
        assert_eq!(points.judge(true, true, done + 3 * LATENCY), Kicked::CommonPoint);
    }

    #[test]
    fn a_guest_that_writes_much_has_time_for_its_writes_and_as_much_for_itself() {
        let (mut points, begun) = begun(Some(LATENCY));
        let first = begun + LATENCY;
        assert_eq!(points.judge(true, true, first), Kicked::CommonPoint);
        points.made(1_000);
        let done = first + LATENCY;
        points.runs_from(point(2), done);
        let rest = LATENCY + 2 * 1_000 * FIRST_WRITE;
        assert_eq!(
            points.judge(true, true, done + rest - MILLISECOND),
            Kicked::RunsOn
        );
        assert_eq!(points.judge(true, true, done + rest), Kicked::CommonPoint);
        points.runs_from(point(3), done + rest);
        assert_eq!(
            points.judge(true, true, done + rest + LATENCY),
            Kicked::CommonPoint,
            "it wrote nothing"
        );
    }

    #[test]
    fn writes_count_as_long_as_they_were_measured_to_take_within_bounds() {
        for (measured, counted) in [
            (None, FIRST_WRITE),
            (Some(Duration::from_micros(5)), Duration::from_micros(5)),
            (Some(Duration::ZERO), FIRST_WRITE_MIN),
            (Some(Duration::from_secs(1)), FIRST_WRITE_MAX),
        ] {
            let begun = Instant::now();
            let mut points = CommonPoints::after(Some(LATENCY)).with_first_write(measured);
            points.runs_from(point(1), begun);
            let made = begun + LATENCY;
            assert_eq!(points.judge(true, true, made), Kicked::CommonPoint);
            points.made(1_000);
            points.runs_from(point(2), made);
            let rest = (2 * 1_000 * counted).max(LATENCY / QUIET_PART);
            let just_before = made + rest - Duration::from_micros(1);
            assert_eq!(points.judge(true, true, just_before), Kicked::RunsOn);
            assert_eq!(points.judge(true, true, made + rest), Kicked::CommonPoint);
        }
    }

    #[test]
    fn it_is_looked_at_when_its_timer_is_due_or_regularly() {
        let (points, begun) = begun(Some(LATENCY));
        let after = |milliseconds: u32| Some(begun + milliseconds * MILLISECOND);
        assert_eq!(points.look_at(None, begun), after(5));
        assert_eq!(
            points.look_at(after(7), begun),
            after(5),
            "something else may wait by then"
        );
        assert_eq!(points.look_at(after(7), begun + 5 * MILLISECOND), after(7));
        assert_eq!(
            points.look_at(after(2), begun),
            after(5),
            "it may make an exit before"
        );
    }
}
