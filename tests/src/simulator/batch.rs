//! Many seeds at once: as many threads as there are processors, each with a world of its own.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};
use std::thread;

use super::marks::{Mark, Marks};
use super::{Outcome, simulate};

/// Seeds that a thread takes at a time.
const SEEDS_A_PIECE: u64 = 64;

/// So many seeds reach every rare path, wherever they begin; of fewer it is not expected.
pub const SEEDS_FOR_ALL_MARKS: u64 = 100_000;

/// Failing seeds after which a run gives up.
const FAILURES_MAX: usize = 5;

/// Lines of its trace that are shown of a failing seed: its end, where the promise was broken.
const TRACE_LINES_SHOWN: usize = 60;

/// What many seeds came to.
#[derive(Clone, Debug, Default)]
pub struct Summary {
    /// Seeds that were run.
    pub seeds: u64,
    /// What was reached in them together.
    pub marks: Marks,
    /// Runs in which a backup went live.
    pub failovers: u64,
    /// Virtual time, in nanoseconds.
    pub virtual_ns: u128,
    /// Things that happened.
    pub happenings: u64,
    /// The failing ones, with their traces, in the order of their seeds.
    pub failures: Vec<Outcome>,
}

impl Summary {
    fn take(&mut self, outcome: Outcome) {
        self.seeds += 1;
        self.marks.add(outcome.marks);
        self.failovers += u64::from(outcome.marks.has(Mark::BackupLive));
        self.virtual_ns += u128::from(outcome.virtual_ns);
        self.happenings += outcome.happenings;
        if outcome.failure.is_some() {
            // Once more, to see it in words.
            self.failures.push(simulate(outcome.seed, true));
            self.failures.sort_by_key(|failure| failure.seed);
        }
    }

    fn add(&mut self, other: Self) {
        self.seeds += other.seeds;
        self.marks.add(other.marks);
        self.failovers += other.failovers;
        self.virtual_ns += other.virtual_ns;
        self.happenings += other.happenings;
        self.failures.extend(other.failures);
        self.failures.sort_by_key(|failure| failure.seed);
    }
}

/// Runs `seeds` seeds from `first` on, on `threads` threads. `look` is shown what there is so far, from time to time.
pub fn simulate_many(first: u64, seeds: u64, threads: usize, look: impl Fn(&Summary) + Sync) -> Summary {
    let end = first.saturating_add(seeds);
    let next = AtomicU64::new(first);
    let enough = AtomicBool::new(false);
    let all = Mutex::new(Summary::default());
    let work = || {
        loop {
            let from = next.fetch_add(SEEDS_A_PIECE, Ordering::Relaxed);
            if from >= end || enough.load(Ordering::Relaxed) {
                return;
            }
            let mut piece = Summary::default();
            let piece_end = from.saturating_add(SEEDS_A_PIECE).min(end);
            (from..piece_end).for_each(|seed| piece.take(simulate(seed, false)));
            let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
            all.add(piece);
            enough.store(all.failures.len() >= FAILURES_MAX, Ordering::Relaxed);
            look(&all);
        }
    };
    thread::scope(|scope| {
        for _ in 0..threads.max(1) {
            scope.spawn(work);
        }
    });
    all.into_inner().unwrap_or_else(PoisonError::into_inner)
}

/// A failing seed for people: what is wrong, the end of its trace, and the command that repeats it.
#[must_use]
pub fn report_of(outcome: &Outcome) -> String {
    let Outcome { seed, failure, .. } = outcome;
    let lines: Vec<_> = outcome.trace.lines().collect();
    let shown = lines.len().saturating_sub(TRACE_LINES_SHOWN);
    let tail = lines.get(shown..).unwrap_or_default().join("\n");
    let failure = failure.as_deref().unwrap_or("every promise was kept");
    format!(
        "{tail}\nseed {seed}: {failure}\n  the whole of it: cargo run --release -p lockstep-tests --bin simulate -- --trace {seed}"
    )
}
