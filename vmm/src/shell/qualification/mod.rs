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
pub mod host;
pub mod probing;

use super::configuration::Configuration;
use super::error::RunError;
use crate::kvm::{ClockKind, Host};
use cache::Cache;
use lockstep_logging_channel::{Environment, EnvironmentField};
use lockstep_qualify::{Effort, Finding, Request, Strategy};
use std::time::Instant;

/// Names of the compared fields of an environment that say which strategies were chosen.
pub const CLOCK_FIELD: &str = "instruction clock";
/// See [`CLOCK_FIELD`].
pub const WINDOW_FIELD: &str = "IRQ-window exits";

/// The strategies of a machine, and what they rest on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Qualification {
    /// What was chosen.
    pub strategy: Strategy,
    /// Why.
    pub reason: String,
    /// The findings that the choice depends on.
    pub findings: Vec<Finding>,
}

impl Qualification {
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

/// What `configuration` asks for.
#[must_use]
pub fn request(configuration: &Configuration) -> Request {
    Request {
        clock: configuration.clock,
        reach: None,
        window_exits: configuration.window_exits.unwrap_or(false),
    }
}

/// Request of a replay of a log with this environment: what `configuration` leaves open is as it
/// was recorded.
#[must_use]
pub fn request_of_replay(configuration: &Configuration, recorded: &Environment) -> Request {
    let field = |name| recorded.compared.iter().find(|field| field.name == name);
    let (clock, reach) = field(CLOCK_FIELD)
        .and_then(|field| Strategy::clock_named(&field.value))
        // A clock that this version does not know is found to differ when the environments are
        // compared.
        .unwrap_or((ClockKind::None, lockstep_qualify::Reach::Ring0));
    let said = configuration.clock;
    let windows = field(WINDOW_FIELD).is_some_and(|field| field.value == true.to_string());
    Request {
        clock: Some(said.unwrap_or(clock)),
        reach: said.is_none_or(|said| said == clock).then_some(reach),
        window_exits: configuration.window_exits.unwrap_or(windows),
    }
}

/// Finds out what `request` depends on, and chooses.
///
/// # Errors
/// [`RunError::Host`] naming the property that the host lacks.
pub fn qualify(request: &Request, anew: bool) -> Result<Qualification, RunError> {
    let begun = Instant::now();
    let cache = Cache::of_this_host();
    let known = if anew { Vec::new() } else { cache.read() };
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

/// What was measured, and what was known of other properties.
fn merged(measured: Vec<Finding>, known: Vec<Finding>) -> Vec<Finding> {
    let mut all = measured;
    for finding in known {
        if !all.iter().any(|newer| newer.property == finding.property) {
            all.push(finding);
        }
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shell::settings::{ClockChoice, Settings};
    use lockstep_qualify::{Property, Reach};

    fn configuration(clock: Option<ClockChoice>, window_exits: Option<bool>) -> Configuration {
        let settings = Settings {
            clock,
            window_exits,
            ..Settings::default()
        };
        settings.resolve().unwrap()
    }

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
        let request = request_of_replay(&configuration(None, None), &log);
        assert_eq!(request.clock, Some(ClockKind::Step));
        assert_eq!(request.reach, Some(Reach::Ring0));
        assert!(!request.window_exits);
        let windows = recorded(&[(CLOCK_FIELD, "none"), (WINDOW_FIELD, "true")]);
        assert!(request_of_replay(&configuration(None, None), &windows).window_exits);
    }

    #[test]
    fn what_is_said_wins_over_the_log() {
        let log = recorded(&[(CLOCK_FIELD, "statistic"), (WINDOW_FIELD, "false")]);
        let said = configuration(Some(ClockChoice::Step), None);
        let request = request_of_replay(&said, &log);
        assert_eq!((request.clock, request.reach), (Some(ClockKind::Step), None));
        let none = request_of_replay(&configuration(Some(ClockChoice::None), None), &log);
        assert_eq!(none.clock, Some(ClockKind::None));
    }

    #[test]
    fn a_log_from_before_strategies_were_named_enters_at_exits() {
        let request = request_of_replay(&configuration(None, None), &recorded(&[]));
        assert_eq!(request.clock, Some(ClockKind::None));
        assert!(!request.window_exits);
    }

    #[test]
    fn a_live_machine_asks_for_what_is_configured() {
        assert_eq!(request(&configuration(None, None)), Request::default());
        let step = request(&configuration(Some(ClockChoice::Step), None));
        assert_eq!(step.clock, Some(ClockKind::Step));
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
