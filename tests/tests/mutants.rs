//! Shows that the simulator can fail: each deliberate defect is found within a bounded number of
//! seeds.
#![cfg(feature = "mutants")]

use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, available_parallelism};

use lockstep_core::replica::mutant::{Mutant, activate};
use lockstep_tests::simulator::simulate;

/// Seeds in which nothing is found without a defect.
const SEEDS: u64 = 3_000;

/// Seeds within which a defect must be found. Most are in the first hundred; one whose harm the
/// guest mends by itself, unless it goes on otherwise, shows in one of some thousands.
const SEARCHED_SEEDS: u64 = 30_000;

/// Fewer would not be a list.
const MUTANTS_MIN: usize = 12;

/// Names the one that is looked for alone.
const ONLY_VARIABLE: &str = "LOCKSTEP_MUTANT";

/// Those that are looked for.
fn wanted() -> Vec<Mutant> {
    let only = std::env::var(ONLY_VARIABLE).ok();
    let is_wanted = |mutant: &&Mutant| only.as_ref().is_none_or(|only| *only == format!("{mutant:?}"));
    Mutant::ALL.iter().filter(is_wanted).copied().collect()
}

/// The first seed in which `mutant` breaks a promise, and which. Mutants are of the thread that
/// activates them.
fn found(mutant: Mutant) -> Option<(u64, String)> {
    activate(Some(mutant));
    let mut outcomes = (0..SEARCHED_SEEDS).map(|seed| simulate(seed, false));
    let found = outcomes.find_map(|outcome| outcome.failure.map(|failure| (outcome.seed, failure)));
    activate(None);
    found
}

/// What was found of each, in their order, on every processor.
fn all_found() -> Vec<(Mutant, Option<(u64, String)>)> {
    let wanted = wanted();
    let next = AtomicUsize::new(0);
    let all = Mutex::new(Vec::new());
    let work = || {
        while let Some(mutant) = wanted.get(next.fetch_add(1, Ordering::Relaxed)) {
            let found = found(*mutant);
            all.lock().unwrap().push((*mutant, found));
        }
    };
    thread::scope(|scope| {
        for _ in 0..available_parallelism().map_or(1, usize::from) {
            scope.spawn(work);
        }
    });
    let mut all = all.into_inner().unwrap();
    all.sort_by_key(|(mutant, _)| *mutant as usize);
    all
}

#[test]
fn without_a_mutant_nothing_is_found() {
    activate(None);
    let outcomes = (0..SEEDS).map(|seed| simulate(seed, false));
    let failures: Vec<_> = outcomes
        .filter_map(|outcome| Some((outcome.seed, outcome.failure?)))
        .collect();
    assert!(failures.is_empty(), "{failures:?}");
}

#[test]
fn every_mutant_is_found() {
    std::panic::set_hook(Box::new(|_| ()));
    let found = all_found();
    let _ = std::panic::take_hook();
    for (mutant, found) in &found {
        match found {
            Some((seed, failure)) => println!("{mutant:?}: seed {seed}: {failure}"),
            None => println!("{mutant:?}: not found in {SEARCHED_SEEDS} seeds"),
        }
    }
    let missed: Vec<_> = found
        .iter()
        .filter(|(_, found)| found.is_none())
        .map(|(mutant, _)| mutant)
        .collect();
    assert!(missed.is_empty(), "{missed:?}");
    assert!(found.len() >= MUTANTS_MIN || std::env::var_os(ONLY_VARIABLE).is_some());
}
