//! Disks whose host fails: what is reported of them, and when a side gives way.

use crate::disk::OnError;
use crate::disk::executor::{DiskState, Fault};
use lockstep_process::once_a_minute::Seldom;
use serde_json::{Value, json};
use std::collections::BTreeSet;
use std::time::{Duration, Instant, UNIX_EPOCH};

/// A side that has taken the machine over does not hand it over for a disk's error before this time
/// has passed. Where both sides fail (shared storage that neither reaches), the machine so moves 6
/// times an hour at most, and each move is a pause of some milliseconds.
const GIVE_WAY_PAUSE: Duration = Duration::from_mins(10);

/// Disks whose host fails.
#[derive(Debug, Default)]
pub struct Failing {
    /// Names of those that were reported and do not work again.
    reported: BTreeSet<String>,
    /// Time at which this side has taken the machine over.
    taken_over: Option<Instant>,
    /// Handing over was said then.
    pub told: Seldom,
    /// The disk for which this side leaves.
    pub leaves_for: Option<(String, Fault)>,
}

impl Failing {
    /// This side has taken the machine over.
    pub fn took_over(&mut self) {
        self.taken_over = Some(Instant::now());
    }

    /// True where the machine may be handed over for a disk's error at this time.
    #[must_use]
    pub fn may_hand_over(&self, now: Instant) -> bool {
        let held = self.taken_over.map(|at| now.saturating_duration_since(at));
        held.is_none_or(|held| held >= GIVE_WAY_PAUSE)
    }

    /// Reports of disks that have failed since the last time, or work again.
    pub fn reports(&mut self, states: &[(String, DiskState)]) -> Vec<(&'static str, Value)> {
        let mut reports = Vec::new();
        for (name, state) in states {
            match &state.error {
                Some(fault) if self.reported.insert(name.clone()) => {
                    reports.push(("disk_failed", fields(name, state, fault)));
                }
                None if self.reported.remove(name) => {
                    let fields = json!({ "disk": name, "failures": state.failures });
                    reports.push(("disk_works", fields));
                }
                _ => {}
            }
        }
        reports
    }
}

/// The disk for which this side is to give way.
#[must_use]
pub fn gives_way(states: Vec<(String, DiskState)>) -> Option<(String, Fault)> {
    let mut lasting = states.into_iter().filter_map(|(name, state)| {
        let fault = state.error.filter(Fault::lasts)?;
        (state.on_error == OnError::GiveWay).then_some((name, fault))
    });
    lasting.next()
}

fn fields(name: &str, state: &DiskState, fault: &Fault) -> Value {
    let since = fault.since.duration_since(UNIX_EPOCH).unwrap_or_default();
    json!({
        "disk": name,
        "request": fault.request,
        "error": fault.why,
        "since_unix_s": since.as_secs(),
        "failures": state.failures,
        "waiting": state.waiting,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::SystemTime;

    fn state(failures: u64, fails: bool) -> DiskState {
        let fault = Fault {
            request: "write 512 bytes at 0".to_owned(),
            why: "No space left on device (os error 28)".to_owned(),
            since: SystemTime::UNIX_EPOCH + Duration::from_secs(5),
            begun: Instant::now(),
            failures,
        };
        DiskState {
            waiting: 1,
            error: fails.then_some(fault),
            failures,
            on_error: OnError::GiveWay,
        }
    }

    #[test]
    fn a_failure_is_reported_once_with_its_error_and_so_is_its_end() {
        let mut failing = Failing::default();
        let mut reports = |state: DiskState| failing.reports(&[("disk 0 (a.img)".to_owned(), state)]);
        assert!(reports(state(0, false)).is_empty());
        let failed = json!({
            "disk": "disk 0 (a.img)",
            "request": "write 512 bytes at 0",
            "error": "No space left on device (os error 28)",
            "since_unix_s": 5,
            "failures": 1,
            "waiting": 1,
        });
        assert_eq!(reports(state(1, true)), [("disk_failed", failed)]);
        assert!(reports(state(2, true)).is_empty());
        let works = json!({ "disk": "disk 0 (a.img)", "failures": 2 });
        assert_eq!(reports(state(2, false)), [("disk_works", works)]);
        assert!(reports(state(2, false)).is_empty());
    }

    #[test]
    fn a_machine_that_was_taken_over_is_not_handed_back_at_once() {
        let mut failing = Failing::default();
        let now = Instant::now();
        assert!(failing.may_hand_over(now), "it began here");
        failing.took_over();
        assert!(!failing.may_hand_over(now + GIVE_WAY_PAUSE / 2));
        assert!(failing.may_hand_over(Instant::now() + GIVE_WAY_PAUSE));
    }

    #[test]
    fn only_an_error_that_lasts_is_given_way_to_and_only_where_that_is_set() {
        let states = |state: DiskState| vec![("disk 0".to_owned(), state)];
        let lasting = |on_error| {
            let mut state = state(2, true);
            state.on_error = on_error;
            let fault = state.error.as_mut().unwrap();
            fault.begun = fault.begun.checked_sub(Duration::from_secs(2)).unwrap();
            state
        };
        assert!(gives_way(states(state(1, true))).is_none());
        assert!(gives_way(states(lasting(OnError::Wait))).is_none());
        assert!(gives_way(states(lasting(OnError::GiveWay))).is_some());
    }
}
