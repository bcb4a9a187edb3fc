//! Dirty logging: every page that is written is to be reported, once, and again when it is written
//! again.

use crate::bench::{Bench, ProbeError, Ring, Setup, Subject, astray, run_to_exit};
use crate::finding::{Finding, Judgement, Property};
use crate::{programs, stage};
use lockstep_core::machine::cpu::Exit;
use lockstep_core::machine::memory::PAGE_BYTES;
use std::collections::BTreeSet;

/// Every other page is written.
const STRIDE_BYTES: u64 = 2 * PAGE_BYTES;
/// Pages that are written.
pub(super) const PAGES: u64 = 24;

/// What was seen in one ring.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Run {
    /// Where.
    pub ring: Ring,
    /// Written pages of the first pass that were not reported.
    pub missed: u64,
    /// Pages between them that were reported and not written.
    pub invented: u64,
    /// The same of a second pass over the same pages.
    pub missed_again: u64,
    /// Pages reported after a while without writing.
    pub stale: u64,
}

/// Both rings.
///
/// # Errors
/// [`ProbeError`].
pub fn observe(bench: &dyn Bench) -> Result<Vec<Run>, ProbeError> {
    Ring::BOTH.into_iter().map(|ring| one(bench, ring)).collect()
}

fn one(bench: &dyn Bench, ring: Ring) -> Result<Run, ProbeError> {
    let mut subject = logged(bench, ring)?;
    subject.dirty_pages()?;
    let written: BTreeSet<u64> = (0..PAGES)
        .map(|page| (stage::DATA + page * STRIDE_BYTES) / PAGE_BYTES)
        .collect();
    let first = pass(subject.as_mut())?;
    let stale = subject.dirty_pages()?.len() as u64;
    let second = pass(subject.as_mut())?;
    let range = |pages: &BTreeSet<u64>| {
        pages
            .iter()
            .filter(|page| **page >= stage::DATA / PAGE_BYTES)
            .count() as u64
    };
    let missed = |seen: &BTreeSet<u64>| written.difference(seen).count() as u64;
    let invented = (range(&first) + missed(&first)).saturating_sub(PAGES);
    Ok(Run {
        ring,
        missed: missed(&first),
        invented,
        missed_again: missed(&second),
        stale,
    })
}

/// A guest in `ring` that writes pages, whose writes are logged.
///
/// # Errors
/// [`ProbeError`].
pub(super) fn logged(bench: &dyn Bench, ring: Ring) -> Result<Box<dyn Subject>, ProbeError> {
    bench.subject(&Setup {
        dirty_log: true,
        ..Setup::new(programs::touch(), ring)
    })
}

fn pass(subject: &mut dyn Subject) -> Result<BTreeSet<u64>, ProbeError> {
    touch(subject)?;
    Ok(subject.dirty_pages()?)
}

/// Has it write its pages once.
///
/// # Errors
/// [`ProbeError`].
pub(super) fn touch(subject: &mut dyn Subject) -> Result<(), ProbeError> {
    subject.restart()?;
    let mut registers = subject.registers()?;
    (registers.rcx, registers.r8, registers.r9) = (PAGES, stage::DATA, STRIDE_BYTES);
    subject.set_registers(&registers)?;
    match run_to_exit(subject)? {
        Exit::PortWrite {
            port: programs::END, ..
        } => Ok(()),
        other => Err(astray("END", &other)),
    }
}

/// What the runs come to.
#[must_use]
pub fn judge(runs: &[Run]) -> Finding {
    let exact = !runs.is_empty()
        && runs
            .iter()
            .all(|run| [run.missed, run.invented, run.missed_again, run.stale] == [0; 4]);
    let wrong = runs.iter().map(|run| {
        let Run { ring, missed, invented, missed_again, stale } = run;
        format!("{ring}: {missed} missed, {invented} invented, {missed_again} missed when written again, {stale} stale")
    });
    Finding {
        property: Property::DirtyLog,
        judgement: if exact { Judgement::Yes } else { Judgement::Wrong },
        tried: format!("{PAGES} pages written twice, from each ring"),
        seen: if exact {
            "exactly those, each time".to_owned()
        } else {
            wrong.collect::<Vec<_>>().join("; ")
        },
        follows: match exact {
            true => "state can be transferred by the pages that changed".to_owned(),
            false => "state can only be transferred whole".to_owned(),
        },
    }
}
