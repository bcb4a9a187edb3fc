//! Shows that the simulator can fail: each deliberate defect is found within a bounded number of seeds.
#![cfg(feature = "mutants")]

use lockstep::replica::mutant::{Mutant, activate};
use lockstep_tests::simulator::simulate;

/// Seeds within which a defect must be found.
const SEEDS: u64 = 3_000;

/// The first seed in which `mutant` breaks a promise, and which.
fn found(mutant: Mutant) -> Option<(u64, String)> {
    activate(Some(mutant));
    let mut outcomes = (0..SEEDS).map(|seed| simulate(seed, false));
    let found = outcomes.find_map(|outcome| outcome.failure.map(|failure| (outcome.seed, failure)));
    activate(None);
    found
}

#[test]
fn every_mutant_is_found() {
    std::panic::set_hook(Box::new(|_| ()));
    let found: Vec<_> = Mutant::ALL
        .iter()
        .map(|mutant| (*mutant, found(*mutant)))
        .collect();
    let _ = std::panic::take_hook();
    for (mutant, found) in &found {
        match found {
            Some((seed, failure)) => println!("{mutant:?}: seed {seed}: {failure}"),
            None => println!("{mutant:?}: not found in {SEEDS} seeds"),
        }
    }
    let missed: Vec<_> = found
        .iter()
        .filter(|(_, found)| found.is_none())
        .map(|(mutant, _)| mutant)
        .collect();
    assert!(missed.is_empty(), "{missed:?}");
}
