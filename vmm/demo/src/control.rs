//! What the clients and the director of the demonstration share.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Orders to the clients, and their progress. Written by one side, looked at by the other: nothing else hangs on
/// the order in which the values become visible.
#[derive(Debug, Default)]
pub(super) struct Control {
    stop: AtomicBool,
    lost_at_ns: AtomicU64,
    acknowledged: AtomicU64,
}

impl Control {
    /// No request is to be made any more.
    pub(super) fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
    }

    /// Whether to stop.
    pub(super) fn is_stopped(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// A replica was lost at this time.
    pub(super) fn lost(&self, at_ns: u64) {
        self.lost_at_ns.store(at_ns, Ordering::Relaxed);
    }

    /// When a replica was lost, if one was.
    pub(super) fn lost_at_ns(&self) -> Option<u64> {
        Some(self.lost_at_ns.load(Ordering::Relaxed)).filter(|at_ns| *at_ns > 0)
    }

    /// A write was acknowledged.
    pub(super) fn acknowledge(&self) {
        self.acknowledged.fetch_add(1, Ordering::Relaxed);
    }

    /// Writes acknowledged so far.
    pub(super) fn acknowledged(&self) -> u64 {
        self.acknowledged.load(Ordering::Relaxed)
    }
}
