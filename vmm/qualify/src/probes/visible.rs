//! A guest's view of its host: the CPUID table, instructions that are hidden, the time-stamp
//! counter.

use super::instructions::{Try, all_as_expected, attempts, listed};
use crate::bench::{Bench, ProbeError, Ring, Setup, astray, run_to_exit};
use crate::finding::{Finding, Judgement, Property};
use crate::programs::{self, instructions};
use lockstep_core::machine::cpu::{Exit, cpuid};

/// A row of the CPUID table as the guest saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// EAX on entry.
    pub function: u32,
    /// EAX, EBX, ECX, EDX that it was to see.
    pub given: [u32; 4],
    /// What it saw.
    pub seen: [u32; 4],
}

/// The table as it is seen in one ring.
///
/// # Errors
/// [`ProbeError`].
pub fn observe_table(bench: &dyn Bench, ring: Ring) -> Result<Vec<Row>, ProbeError> {
    let mut subject = bench.subject(&Setup::new(&programs::once(&instructions::CPUID), ring))?;
    let mut rows = Vec::new();
    for leaf in cpuid::TABLE {
        subject.restart()?;
        let mut registers = subject.registers()?;
        (registers.rax, registers.rcx) = (u64::from(leaf.function), u64::from(leaf.index));
        subject.set_registers(&registers)?;
        match run_to_exit(subject.as_mut())? {
            Exit::PortWrite {
                port: programs::END, ..
            } => {}
            other => return Err(astray("CPUID", &other)),
        }
        let after = subject.registers()?;
        let seen = [after.rax, after.rbx, after.rcx, after.rdx].map(|register| register as u32);
        rows.push(Row {
            function: leaf.function,
            given: leaf.registers,
            seen,
        });
    }
    Ok(rows)
}

/// What the table comes to.
#[must_use]
pub fn judge_table(ring: Ring, rows: &[Row]) -> Finding {
    let different: Vec<_> = rows.iter().filter(|row| row.given != row.seen).collect();
    let exact = different.is_empty() && !rows.is_empty();
    Finding {
        property: Property::CpuidTable(ring),
        judgement: if exact { Judgement::Yes } else { Judgement::No },
        tried: format!("CPUID of {} leaves", rows.len()),
        seen: match different.first() {
            None => "the table it was given".to_owned(),
            Some(row) => format!(
                "{} leaves of the host's, first {:#x}: {:x?} for {:x?}",
                different.len(),
                row.function,
                row.seen,
                row.given
            ),
        },
        follows: match exact {
            true => "CPUID answers the same on every host".to_owned(),
            false => "CPUID is rewritten when an image is loaded".to_owned(),
        },
    }
}

/// Instructions that no guest is to have, in one ring.
///
/// # Errors
/// [`ProbeError`].
pub fn observe_hidden(bench: &dyn Bench, ring: Ring) -> Result<Vec<Try>, ProbeError> {
    attempts(bench, &Setup::new(&[], ring), &instructions::HIDDEN)
}

/// What they come to.
#[must_use]
pub fn judge_hidden(ring: Ring, tries: &[Try]) -> Finding {
    let names: Vec<_> = tries.iter().map(|attempt| attempt.name).collect();
    let exact = all_as_expected(tries);
    Finding {
        property: Property::HiddenInstructions(ring),
        judgement: if exact { Judgement::Yes } else { Judgement::No },
        tried: format!("{}, which CPUID does not show", names.join(", ")),
        seen: match exact {
            true => "each faults".to_owned(),
            false => listed(tries),
        },
        follows: match exact {
            true => "a guest cannot use them".to_owned(),
            false => "RDRAND and RDSEED are rewritten when an image is loaded; guests leave the rest alone"
                .to_owned(),
        },
    }
}

/// RDTSC in ring 3 with CR4.TSD set.
///
/// # Errors
/// [`ProbeError`].
pub fn observe_tsc(bench: &dyn Bench) -> Result<Vec<Try>, ProbeError> {
    let setup = Setup {
        tsc_forbidden: true,
        ..Setup::new(&[], Ring::Three)
    };
    attempts(bench, &setup, &[instructions::FORBIDDEN_TSC])
}

/// What it comes to.
#[must_use]
pub fn judge_tsc(tries: &[Try]) -> Finding {
    let forbidden = all_as_expected(tries);
    Finding {
        property: Property::TscForbidden,
        judgement: if forbidden { Judgement::Yes } else { Judgement::No },
        tried: "RDTSC in ring 3 with CR4.TSD set; in ring 0 no KVM can refuse it".to_owned(),
        seen: if forbidden {
            "it faults".to_owned()
        } else {
            listed(tries)
        },
        follows: match forbidden {
            true => {
                "a guest kernel can take it from its programs; its own is rewritten when the image is loaded"
                    .to_owned()
            }
            false => "RDTSC is rewritten when an image is loaded; code made later must not use it".to_owned(),
        },
    }
}
