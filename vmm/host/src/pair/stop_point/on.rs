//! With the feature `crash-points`.

use super::Step;
use crate::error::RunError;
use lockstep_process::clock::monotonic_ns;
use lockstep_process::writing::standard;
use nix::sys::signal::{Signal, raise};
use std::str::FromStr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Says where to stop, and how.
pub const VARIABLE: &str = "LOCKSTEP_STOP_POINT";

/// Names the defect with which this process runs, where the build has the feature `mutants`.
#[cfg(feature = "mutants")]
const MUTANT_VARIABLE: &str = "LOCKSTEP_MUTANT";

static ARMED: OnceLock<Armed> = OnceLock::new();

struct Armed {
    point: Point,
    passed: AtomicU64,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Point {
    step: Step,
    ordinal: u64,
    what: What,
}

/// Action at the point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum What {
    Raise(Signal),
    Hold(Duration),
}

impl FromStr for Point {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let strange = || format!("`{text}` is no STEP:N:WHAT");
        let mut parts = text.split(':');
        let (Some(step), Some(ordinal), Some(what), None) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(strange());
        };
        let known = Step::NAMES.iter().find(|(name, _)| *name == step);
        let (_, step) = known.ok_or_else(|| format!("there is no step `{step}`"))?;
        let what = match what {
            "KILL" => What::Raise(Signal::SIGKILL),
            "STOP" => What::Raise(Signal::SIGSTOP),
            _ => {
                let ms = what.strip_prefix("HOLD").and_then(|ms| ms.parse().ok());
                What::Hold(Duration::from_millis(ms.ok_or_else(strange)?))
            }
        };
        let ordinal = ordinal.parse().ok().filter(|ordinal| *ordinal > 0);
        Ok(Self {
            step: *step,
            ordinal: ordinal.ok_or_else(strange)?,
            what,
        })
    }
}

/// Arms the point that the environment names, and says so: who asked for one can tell that it will
/// be met. Called by the thread that will step the role machine, before anything else.
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

/// True if the point is at one of `steps`.
pub(super) fn is_armed_at(steps: &[Step]) -> bool {
    ARMED.get().is_some_and(|armed| steps.contains(&armed.point.step))
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
        match armed.point.what {
            // To this thread, which does not return from it: nothing follows the step.
            What::Raise(signal) => drop(raise(signal)),
            What::Hold(rest) => hold(rest),
        }
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "this build is for the campaign, which asked for it"
)]
fn hold(rest: Duration) {
    std::thread::sleep(rest);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_a_step_an_ordinal_and_what_happens() {
        let expected = Point {
            step: Step::ClaimLinked,
            ordinal: 2,
            what: What::Raise(Signal::SIGSTOP),
        };
        assert_eq!("claim-linked:2:STOP".parse(), Ok(expected));
        let what = What::Hold(Duration::from_millis(70));
        assert_eq!("claim-linked:2:HOLD70".parse(), Ok(Point { what, ..expected }));
    }

    #[test]
    fn every_step_has_a_name_of_its_own() {
        let mut names: Vec<&str> = Step::NAMES.iter().map(|(name, _)| *name).collect();
        names.sort_unstable();
        names.dedup();
        assert_eq!(names.len(), Step::NAMES.len());
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
            "live:1:HOLD",
            "live:1:HOLDx",
            "dead:1:KILL",
            "live:1:KILL:",
        ] {
            assert!(text.parse::<Point>().is_err(), "{text}");
        }
    }
}
