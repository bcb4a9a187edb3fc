//! Qualification at every start: what the start depends on is measured on this host, once a boot,
//! and the position strategies follow.
//!
//! ```text
//!   settings (or, on a replay, the log) -> Request -> depends_on -> cache, else probes -> findings -> Strategy, or status 4
//! ```
//!
//! The cache saves time and decides nothing: where it cannot be believed or written, the host is
//! measured.

pub mod cache;
mod error;
pub mod host;
pub mod probing;

use crate::finding::judgement_of;
use crate::{Effort, Finding, Judgement, Property, Reach, Request, Strategy};
use cache::Cache;
pub use error::QualifyError;
use lockstep_kvm::{ClockKind, Host};
use lockstep_logging_channel::{Environment, EnvironmentField};
use std::time::{Duration, Instant};

/// Names of the compared fields of an environment that say which strategies were chosen.
pub const CLOCK_FIELD: &str = "instruction clock";
/// See [`CLOCK_FIELD`].
pub const WINDOW_FIELD: &str = "IRQ-window exits";

/// The strategies of a machine, and what they rest on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Qualification {
    /// The choice.
    pub strategy: Strategy,
    /// The reason.
    pub reason: String,
    /// The findings that the choice depends on.
    pub findings: Vec<Finding>,
}

impl Qualification {
    /// Time that the first write to a page takes where the host logs it, as far as it was measured.
    #[must_use]
    pub fn first_write(&self) -> Option<Duration> {
        match judgement_of(&self.findings, Property::FirstWriteCost) {
            Judgement::Measured(cost) => Some(Duration::from_nanos(cost.median_ns)),
            _ => None,
        }
    }

    /// The findings, for the environment of this program when it begins itself again: it is not to
    /// measure its host while a machine waits for it.
    #[must_use]
    pub fn to_carry(&self) -> Option<(&'static str, String)> {
        cache::to_carry(&self.findings)
    }

    /// Fields for the reader of a log: why these strategies, and what was found.
    #[must_use]
    pub fn informative(&self) -> Vec<EnvironmentField> {
        let reason = EnvironmentField {
            name: "position strategy".to_owned(),
            value: self.reason.clone(),
        };
        let found = self.findings.iter().map(|finding| EnvironmentField {
            name: format!("found: {}", finding.property),
            value: format!("{}: {}", finding.judgement.word(), finding.seen),
        });
        std::iter::once(reason).chain(found).collect()
    }
}

impl Request {
    /// Request of a machine for which this much was said.
    #[must_use]
    pub fn said(clock: Option<ClockKind>, window_exits: Option<bool>) -> Self {
        Self {
            clock,
            reach: None,
            window_exits: window_exits.unwrap_or(false),
            kernel: false,
            live: true,
        }
    }

    /// Request of a replay of a log with this environment: what was not said is as it was recorded.
    #[must_use]
    pub fn of_replay(clock: Option<ClockKind>, window_exits: Option<bool>, recorded: &Environment) -> Self {
        let field = |name| recorded.compared.iter().find(|field| field.name == name);
        let (recorded_clock, reach) = field(CLOCK_FIELD)
            .and_then(|field| Strategy::clock_named(&field.value))
            // A clock that this version does not know is found to differ when the environments are
            // compared.
            .unwrap_or((ClockKind::None, Reach::Ring0));
        let windows = field(WINDOW_FIELD).is_some_and(|field| field.value == true.to_string());
        Self {
            clock: Some(clock.unwrap_or(recorded_clock)),
            reach: clock.is_none_or(|said| said == recorded_clock).then_some(reach),
            window_exits: window_exits.unwrap_or(windows),
            kernel: false,
            live: false,
        }
    }
}

/// Finds out what `request` depends on, and chooses.
///
/// # Errors
/// [`QualifyError::Host`] naming the property that the host lacks.
pub fn qualify(request: &Request, anew: bool) -> Result<Qualification, QualifyError> {
    let begun = Instant::now();
    let cache = Cache::of_this_host();
    let known = if anew {
        Vec::new()
    } else {
        merged(cache::carried(), cache.read())
    };
    let needed = request.depends_on();
    let missing: Vec<_> = needed
        .iter()
        .copied()
        .filter(|property| !known.iter().any(|finding| finding.property == *property))
        .collect();
    let measured = if missing.is_empty() {
        Vec::new()
    } else {
        probing::probe(
            "qualification",
            Host::open()?,
            missing.clone(),
            Effort::START,
            |_, _| (),
        )?
    };
    let all = merged(measured, known);
    if !missing.is_empty() {
        cache.write(&all);
    }
    let findings: Vec<_> = all
        .into_iter()
        .filter(|finding| needed.contains(&finding.property))
        .collect();
    for finding in &findings {
        let Finding {
            property,
            judgement,
            seen,
            ..
        } = finding;
        let cached = !missing.contains(property);
        tracing::debug!(cached, "{property}: {}: {seen}", judgement.word());
    }
    let strategy = request.choose(&findings)?;
    let reason = request.reason(&strategy);
    let took_ms = begun.elapsed().as_millis() as u64;
    tracing::debug!(
        measured = missing.len(),
        took_ms,
        "events enter {strategy}; {reason}"
    );
    Ok(Qualification {
        strategy,
        reason,
        findings,
    })
}

/// The newer findings, and the older ones of other properties.
fn merged(newer: Vec<Finding>, older: Vec<Finding>) -> Vec<Finding> {
    let mut all = newer;
    for finding in older {
        if !all.iter().any(|newer| newer.property == finding.property) {
            all.push(finding);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Cost;

    fn recorded(fields: &[(&str, &str)]) -> Environment {
        let field = |(name, value): &(&str, &str)| EnvironmentField {
            name: (*name).to_owned(),
            value: (*value).to_owned(),
        };
        Environment {
            compared: fields.iter().map(field).collect(),
            ..Environment::default()
        }
    }

    #[test]
    fn a_replay_asks_for_what_was_recorded() {
        let log = recorded(&[(CLOCK_FIELD, "step in ring 0"), (WINDOW_FIELD, "false")]);
        let request = Request::of_replay(None, None, &log);
        assert_eq!(request.clock, Some(ClockKind::Step));
        assert_eq!(request.reach, Some(Reach::Ring0));
        assert!(!request.window_exits && !request.live);
        let windows = recorded(&[(CLOCK_FIELD, "none"), (WINDOW_FIELD, "true")]);
        assert!(Request::of_replay(None, None, &windows).window_exits);
    }

    #[test]
    fn what_is_said_wins_over_the_log() {
        let log = recorded(&[(CLOCK_FIELD, "statistic"), (WINDOW_FIELD, "false")]);
        let request = Request::of_replay(Some(ClockKind::Step), None, &log);
        assert_eq!((request.clock, request.reach), (Some(ClockKind::Step), None));
        let none = Request::of_replay(Some(ClockKind::None), None, &log);
        assert_eq!(none.clock, Some(ClockKind::None));
    }

    #[test]
    fn a_log_from_before_strategies_were_named_enters_at_exits() {
        let request = Request::of_replay(None, None, &recorded(&[]));
        assert_eq!(request.clock, Some(ClockKind::None));
        assert!(!request.window_exits);
    }

    #[test]
    fn a_live_machine_asks_for_what_was_said() {
        let live = Request {
            live: true,
            ..Request::default()
        };
        assert_eq!(Request::said(None, None), live);
        let step = Request::said(Some(ClockKind::Step), Some(true));
        assert_eq!((step.clock, step.window_exits), (Some(ClockKind::Step), true));
    }

    #[test]
    fn the_cost_of_a_first_write_is_what_was_measured() {
        let of = |judgement| {
            let finding = Finding {
                judgement,
                ..cache::tests::finding(Property::FirstWriteCost, "measured")
            };
            let qualification = Qualification {
                strategy: Strategy::EXITS,
                reason: String::new(),
                findings: vec![finding],
            };
            qualification.first_write()
        };
        let cost = Cost {
            median_ns: 7_000,
            p99_ns: 9_000,
        };
        assert_eq!(of(Judgement::Measured(cost)), Some(Duration::from_micros(7)));
        assert_eq!(of(Judgement::Untried), None);
    }

    #[test]
    fn the_log_is_told_what_was_found() {
        let qualification = Qualification {
            strategy: Strategy::EXITS,
            reason: "because".to_owned(),
            findings: vec![cache::tests::finding(Property::Determinism, "all the same")],
        };
        let fields = qualification.informative();
        let text: Vec<_> = fields
            .iter()
            .map(|field| format!("{} = {}", field.name, field.value))
            .collect();
        assert_eq!(
            text,
            [
                "position strategy = because",
                "found: determinism = yes: all the same"
            ]
        );
    }
}
