//! What things cost on this host, at this moment: figures, with no right or wrong.

use super::{Effort, dirty};
use crate::bench::{Bench, ProbeError, Reached, Ring, Setup, TO_EXIT, astray, describe, run_to_exit, start};
use crate::finding::{Cost, Finding, Judgement, Property};
use crate::programs;
use crate::stage::QUIET_VECTOR;
use lockstep_core::machine::cpu::{Entry, Exit};
use std::time::{Duration, Instant};

/// Between the start of a guest and the kick that is timed.
const BEFORE_KICK: Duration = Duration::from_micros(200);
/// Single steps are dear: one in so many samples.
const SAMPLES_PER_STEP: u32 = 4;

/// Times of one thing, in nanoseconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Times {
    sorted_ns: Vec<u64>,
}

impl Times {
    /// From samples in any order.
    #[must_use]
    pub fn new(mut samples_ns: Vec<u64>) -> Self {
        samples_ns.sort_unstable();
        Self {
            sorted_ns: samples_ns,
        }
    }

    /// The smallest time that `percent` of all are not above, in nanoseconds.
    #[must_use]
    pub fn percentile_ns(&self, percent: usize) -> Option<u64> {
        let last = self.sorted_ns.len().checked_sub(1)?;
        self.sorted_ns.get(last * percent.min(100) / 100).copied()
    }
}

/// Exits of a guest in `ring` that does nothing else.
///
/// # Errors
/// [`ProbeError`].
pub fn observe_exits(bench: &dyn Bench, ring: Ring, effort: &Effort) -> Result<Times, ProbeError> {
    let mut subject = bench.subject(&Setup::new(programs::exits(), ring))?;
    times(effort.samples, || expect_start(&run_to_exit(subject.as_mut())?))
}

/// The same with an interrupt given and taken each time.
///
/// # Errors
/// [`ProbeError`].
pub fn observe_interrupts(bench: &dyn Bench, ring: Ring, effort: &Effort) -> Result<Times, ProbeError> {
    let mut subject = bench.subject(&Setup::new(programs::exits(), ring).interrupts_enabled())?;
    expect_start(&run_to_exit(subject.as_mut())?)?;
    let entry = Entry {
        interrupt: Some(QUIET_VECTOR),
        ..TO_EXIT
    };
    times(effort.samples, || {
        subject.interruptible()?;
        expect_start(&subject.run(entry)?)
    })
}

/// Single steps in `ring`; what came instead, where it does not step.
///
/// # Errors
/// [`ProbeError`].
pub fn observe_steps(
    bench: &dyn Bench,
    ring: Ring,
    effort: &Effort,
) -> Result<Result<Times, String>, ProbeError> {
    let samples = effort.samples / SAMPLES_PER_STEP;
    let mut subject = bench.subject(&Setup::new(programs::count(), ring))?;
    start(subject.as_mut(), |registers| registers.rcx = u64::from(samples))?;
    let mut instead = None;
    let times = times(samples, || match (&instead, subject.step()?) {
        (None, Reached::Exit(exit)) => {
            instead = Some(describe(&exit));
            Ok(())
        }
        _ => Ok(()),
    })?;
    Ok(instead.map_or(Ok(times), Err))
}

/// From a kick on its way to the vCPU's being back, out of ring 3.
///
/// # Errors
/// [`ProbeError`].
pub fn observe_kicks(bench: &dyn Bench, effort: &Effort) -> Result<Times, ProbeError> {
    let mut subject = bench.subject(&Setup::new(programs::spin(), Ring::Three))?;
    start(subject.as_mut(), |_| ())?;
    let mut samples_ns = Vec::new();
    for _ in 0..effort.samples / SAMPLES_PER_STEP {
        let begun = Instant::now();
        subject.kick_after(BEFORE_KICK)?;
        match subject.run(TO_EXIT)? {
            Exit::Kicked => samples_ns.push(begun.elapsed().saturating_sub(BEFORE_KICK).as_nanos() as u64),
            other => return Err(astray("a kick", &other)),
        }
    }
    Ok(Times::new(samples_ns))
}

/// The first write to a page in ring 3 since the dirty log was taken: the time by which a pass over
/// some pages takes longer than the pass behind it, for each page.
///
/// # Errors
/// [`ProbeError`].
pub fn observe_first_writes(bench: &dyn Bench, effort: &Effort) -> Result<Times, ProbeError> {
    let mut subject = dirty::logged(bench, Ring::Three)?;
    // Not written before, a page may not be there.
    dirty::touch(subject.as_mut())?;
    let mut samples_ns = Vec::new();
    for _ in 0..effort.rounds {
        subject.dirty_pages()?;
        let mut timed = || {
            let begun = Instant::now();
            dirty::touch(subject.as_mut())?;
            Ok::<_, ProbeError>(begun.elapsed())
        };
        let (first, again) = (timed()?, timed()?);
        samples_ns.push(first.saturating_sub(again).as_nanos() as u64 / dirty::PAGES);
    }
    Ok(Times::new(samples_ns))
}

/// What is timed must be what was meant.
fn expect_start(exit: &Exit) -> Result<(), ProbeError> {
    match exit {
        Exit::PortWrite {
            port: programs::START,
            ..
        } => Ok(()),
        other => Err(astray("an exit by OUT", other)),
    }
}

fn times(samples: u32, mut what: impl FnMut() -> Result<(), ProbeError>) -> Result<Times, ProbeError> {
    let mut samples_ns = Vec::new();
    for _ in 0..samples {
        let begun = Instant::now();
        what()?;
        samples_ns.push(begun.elapsed().as_nanos() as u64);
    }
    Ok(Times::new(samples_ns))
}

/// A cost, said.
#[must_use]
pub fn judge(property: Property, tried: &str, times: &Times) -> Finding {
    let microseconds = |ns| ns as f64 / 1e3;
    let (judgement, seen) = match (times.percentile_ns(50), times.percentile_ns(99)) {
        (Some(median_ns), Some(p99_ns)) => (
            Judgement::Measured(Cost { median_ns, p99_ns }),
            format!(
                "median {:.1} µs, 99th percentile {:.1} µs",
                microseconds(median_ns),
                microseconds(p99_ns)
            ),
        ),
        _ => (Judgement::Untried, "no sample".to_owned()),
    };
    Finding {
        property,
        judgement,
        tried: format!("{tried}, {} times", times.sorted_ns.len()),
        seen,
        follows: "a figure of this host and hour".to_owned(),
    }
}
