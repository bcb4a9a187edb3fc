//! With the feature `crash-points`.

use super::Step;
use crate::error::RunError;
use lockstep_process::clock::monotonic_ns;
use lockstep_process::writing::standard;
use nix::sys::signal::{Signal, raise};
use std::str::FromStr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};

/// Says where to stop, and how.
pub const VARIABLE: &str = "LOCKSTEP_STOP_POINT";

/// Names the defect with which this process runs, where the build has the feature `mutants`.
#[cfg(feature = "mutants")]
const MUTANT_VARIABLE: &str = "LOCKSTEP_MUTANT";

const NAMES: [(&str, Step); 15] = [
    ("log-entry", Step::LogEntry),
    ("before-send", Step::BeforeSend),
    ("after-send", Step::AfterSend),
    ("before-acknowledge", Step::BeforeAcknowledge),
    ("after-acknowledge", Step::AfterAcknowledge),
    ("before-release", Step::BeforeRelease),
    ("after-release", Step::AfterRelease),
    ("before-claim", Step::BeforeClaim),
    ("claim-linked", Step::ClaimLinked),
    ("after-claim", Step::AfterClaim),
    ("before-announce", Step::BeforeAnnounce),
    ("after-announce", Step::AfterAnnounce),
    ("going-live", Step::GoingLive),
    ("live", Step::Live),
    ("output-alone", Step::OutputAlone),
];

static ARMED: OnceLock<Armed> = OnceLock::new();

struct Armed {
    point: Point,
    passed: AtomicU64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Point {
    step: Step,
    ordinal: u64,
    signal: Signal,
}

impl FromStr for Point {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let strange = || format!("`{text}` is no STEP:N:SIGNAL");
        let mut parts = text.split(':');
        let (Some(step), Some(ordinal), Some(signal), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(strange());
        };
        let known = NAMES.iter().find(|(name, _)| *name == step);
        let (_, step) = known.ok_or_else(|| format!("there is no step `{step}`"))?;
        let signal = match signal {
            "KILL" => Signal::SIGKILL,
            "STOP" => Signal::SIGSTOP,
            _ => return Err(strange()),
        };
        let ordinal = ordinal.parse().ok().filter(|ordinal| *ordinal > 0);
        Ok(Self {
            step: *step,
            ordinal: ordinal.ok_or_else(strange)?,
            signal,
        })
    }
}

/// Arms the point that the environment names, and says so: who asked for one can tell that it will
/// be met. Called by the thread that steps the role machine.
///
/// # Errors
/// [`RunError::Setting`]: there is no such point.
pub fn arm() -> Result<(), RunError> {
    #[cfg(feature = "mutants")]
    activate_mutant()?;
    let Ok(text) = std::env::var(VARIABLE) else {
        return Ok(());
    };
    let point = text
        .parse()
        .map_err(|why: String| RunError::setting(VARIABLE, why))?;
    tracing::warn!("stop point armed: {text}");
    let passed = AtomicU64::new(0);
    // A process has one replica.
    let _ = ARMED.set(Armed { point, passed });
    Ok(())
}

#[cfg(feature = "mutants")]
fn activate_mutant() -> Result<(), RunError> {
    use lockstep_core::replica::mutant::{Mutant, activate};
    let Ok(name) = std::env::var(MUTANT_VARIABLE) else {
        return Ok(());
    };
    let known = Mutant::ALL.iter().find(|mutant| format!("{mutant:?}") == name);
    let mutant = known.ok_or_else(|| RunError::setting(MUTANT_VARIABLE, format!("no defect `{name}`")))?;
    tracing::warn!("this replica does it wrong: {name}");
    activate(Some(*mutant));
    Ok(())
}

/// The replica passes `step`.
pub fn pass(step: Step) {
    pass_several(step, 1);
}

/// The replica passes `step` for so many entries at once.
pub fn pass_several(step: Step, times: u64) {
    let Some(armed) = ARMED.get().filter(|armed| armed.point.step == step) else {
        return;
    };
    let before = armed.passed.fetch_add(times, Ordering::Relaxed);
    let ordinal = armed.point.ordinal;
    if before < ordinal && before + times >= ordinal {
        // What was said and reported before is evidence.
        standard::messages().push(format!("stop point reached at_ns={}\n", monotonic_ns()).as_bytes());
        standard::flush();
        // To this thread, which does not return from it: nothing follows the step.
        let _ = raise(armed.point.signal);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_a_step_an_ordinal_and_a_signal() {
        let expected = Point {
            step: Step::ClaimLinked,
            ordinal: 2,
            signal: Signal::SIGSTOP,
        };
        assert_eq!("claim-linked:2:STOP".parse(), Ok(expected));
    }

    #[test]
    fn what_is_no_point_is_refused() {
        for text in [
            "",
            "live",
            "live:1",
            "live:0:KILL",
            "live:x:KILL",
            "live:1:TERM",
            "dead:1:KILL",
            "live:1:KILL:",
        ] {
            assert!(text.parse::<Point>().is_err(), "{text}");
        }
    }
}
