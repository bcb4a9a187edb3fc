//! State that the clients and the director of the demonstration share.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::waits::Waits;

/// The present phase, for the line of progress.
#[derive(Clone, Debug)]
pub(super) enum Phase {
    /// Load, for a time.
    Load {
        /// Text before the times.
        what: String,
        /// Since when.
        since: Instant,
        /// For how long.
        of: Duration,
    },
    /// Something that takes as long as it takes.
    Step(String),
}

/// Orders to the clients, and their progress. Written by one side, looked at by the other: nothing
/// else hangs on the order in which the values become visible.
#[derive(Debug, Default)]
pub(super) struct Control {
    stop: AtomicBool,
    acknowledged: AtomicU64,
    waits: Mutex<Waits>,
    phase: Mutex<Option<Phase>>,
}

impl Control {
    /// No request is to be made any more.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// True if clients are to stop.
    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// A replica was lost at this time.
    pub(super) fn lost(&self, at_ns: u64) {
        locked(&self.waits).lost(at_ns);
    }

    /// A request was sent and answered at these times.
    pub(super) fn waited(&self, sent_ns: u64, replied_ns: u64) {
        locked(&self.waits).note(sent_ns, replied_ns);
    }

    /// Waits of the clients since this was taken last.
    pub(super) fn take_waits(&self) -> Waits {
        std::mem::take(&mut locked(&self.waits))
    }

    /// A write was acknowledged.
    pub(super) fn acknowledge(&self) {
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
    }

    /// Writes acknowledged so far.
    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }

    /// Something else goes on from here.
    pub(super) fn enter(&self, phase: Phase) {
        *locked(&self.phase) = Some(phase);
    }

    /// The present phase.
    pub(super) fn phase(&self) -> Option<Phase> {
        locked(&self.phase).clone()
    }
}

fn locked<T>(value: &Mutex<T>) -> MutexGuard<'_, T> {
    value.lock().unwrap_or_else(PoisonError::into_inner)
}
