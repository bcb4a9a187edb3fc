//! The simulator over a bounded set of seeds, and over those that once found something.

use lockstep_tests::simulator::{Marks, simulate};

/// Seeds of one run of the tests. `make sim` runs as many as wanted.
const SEEDS: u64 = 20_000;

/// Names the first seed, for another set.
const FIRST_VARIABLE: &str = "LOCKSTEP_SIM_FIRST";

/// Seeds that failed once, with what they found.
const ONCE_FAILED: &[u64] = &[];

#[test]
fn every_promise_is_kept() {
    let first = std::env::var(FIRST_VARIABLE).map_or(0, |text| text.parse().unwrap());
    println!("seeds from {first} ({FIRST_VARIABLE} chooses others)");
    let mut marks = Marks::default();
    for seed in first..first + SEEDS {
        let outcome = simulate(seed, false);
        assert_eq!(outcome.failure, None, "seed {seed}");
        marks.add(outcome.marks);
    }
    assert_eq!(marks.missing(), []);
}

#[test]
fn what_was_once_broken_stays_mended() {
    for seed in ONCE_FAILED {
        assert_eq!(simulate(*seed, false).failure, None, "seed {seed}");
    }
}

#[test]
fn a_seed_says_the_same_each_time() {
    for seed in 0..20 {
        assert_eq!(
            simulate(seed, true).trace,
            simulate(seed, true).trace,
            "seed {seed}"
        );
    }
}
