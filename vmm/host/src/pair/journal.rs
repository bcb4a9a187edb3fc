//! The live vCPU thread's way to the replica loop: what a journal needs of this host.

use super::{FROM_CPU_WAITING_MAX, FromCpu};
use crate::disk::Disks;
use crate::live::control::Ordered;
use lockstep_core::machine::door::DoorError;
use lockstep_core::replica::cpu::{BatchingJournal, JournalHost};
use lockstep_core::replica::role::Input;
use lockstep_logging_channel::{DeviceId, Sequence};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// Looked at orders at least this often while the guest has to wait.
const THROTTLED_LOOK: Duration = Duration::from_millis(10);

/// State that the replica loop and the journal share.
#[derive(Debug, Default)]
pub struct Shared {
    throttled: Mutex<bool>,
    changed: Condvar,
    changed_stand: Condvar,
    /// The vCPU, at its next pause or at one already, stands.
    stands: Mutex<bool>,
    /// Exits that the live vCPU has passed, with every entry up to them in the loop's channel.
    passed_exits: AtomicU64,
    /// There is no peer: entries need no encoding.
    alone: AtomicBool,
}

impl Shared {
    /// Makes the vCPU wait, or lets it run.
    pub fn throttle(&self, on: bool) {
        // A flag cannot be left half changed.
        *self.throttled.lock().unwrap_or_else(PoisonError::into_inner) = on;
        self.changed.notify_all();
    }

    /// Makes the vCPU stand once it is at a pause, or go on.
    pub fn stand(&self, on: bool) {
        *self.stands.lock().unwrap_or_else(PoisonError::into_inner) = on;
        self.changed_stand.notify_all();
    }

    /// True where the vCPU is to stand.
    pub fn stands(&self) -> bool {
        *self.stands.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Stands, on the vCPU thread, until it may go on or is given an order.
    pub fn stand_still(&self, ordered: &Ordered) {
        let mut stands = self.stands.lock().unwrap_or_else(PoisonError::into_inner);
        while *stands && ordered.obey().is_ok() {
            stands = self
                .changed_stand
                .wait_timeout(stands, THROTTLED_LOOK)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// Entries go nowhere from now on, until a machine is captured for a newcomer.
    pub fn go_alone(&self) {
        self.alone.store(true, Ordering::Relaxed);
    }

    /// Exits that the vCPU has passed. Read before its channel is drained.
    #[must_use]
    pub fn passed_exits(&self) -> u64 {
        self.passed_exits.load(Ordering::Acquire)
    }
}

/// The vCPU thread's end of the replica loop.
pub struct LoopEnd {
    to_loop: mpsc::Sender<FromCpu>,
    shared: Arc<Shared>,
    ordered: Ordered,
    disks: Disks,
    started: Instant,
}

/// A journal into the replica loop.
pub type ChannelJournal = BatchingJournal<LoopEnd>;

/// The channel a journal and a feed talk into.
#[must_use]
pub fn to_loop() -> (mpsc::Sender<FromCpu>, mpsc::Receiver<FromCpu>) {
    mpsc::channel(FROM_CPU_WAITING_MAX)
}

/// Says `what` to the replica loop; waits where the loop is behind.
///
/// # Errors
/// The order that was given, where the loop has ended.
pub fn tell(to_loop: &mpsc::Sender<FromCpu>, ordered: &Ordered, what: FromCpu) -> Result<(), DoorError> {
    to_loop
        .blocking_send(what)
        .map_err(|_| ordered.obey().err().unwrap_or(DoorError::Stopped))
}

impl LoopEnd {
    /// A journal into `to_loop`, of a machine with `disks`.
    #[must_use]
    pub fn journal(
        to_loop: mpsc::Sender<FromCpu>,
        shared: Arc<Shared>,
        ordered: Ordered,
        disks: Disks,
    ) -> ChannelJournal {
        BatchingJournal::new(Self {
            to_loop,
            shared,
            ordered,
            disks,
            started: Instant::now(),
        })
    }
}

impl JournalHost for LoopEnd {
    fn now_ns(&mut self) -> u64 {
        self.started.elapsed().as_nanos() as u64
    }

    fn acts_alone(&self) -> bool {
        self.shared.alone.load(Ordering::Relaxed)
    }

    fn tell(&mut self, what: FromCpu) -> Result<(), DoorError> {
        // Before the next entry: this thread appends it.
        if matches!(what, Input::SavedAt { .. }) {
            self.shared.alone.store(false, Ordering::Relaxed);
        }
        tell(&self.to_loop, &self.ordered, what)
    }

    fn passed(&mut self, exits: u64) {
        self.shared.passed_exits.store(exits, Ordering::Release);
    }

    fn completed(&mut self, device: DeviceId, number: u64, sequence: Sequence) {
        self.disks.logged(device, number, sequence);
    }

    fn is_throttled(&mut self) -> Result<bool, DoorError> {
        Ok(*self
            .shared
            .throttled
            .lock()
            .unwrap_or_else(PoisonError::into_inner))
    }

    fn wait(&mut self) -> Result<(), DoorError> {
        self.ordered.obey()?;
        let throttled = self
            .shared
            .throttled
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        // Changed or not, the caller looks again.
        let _ = self
            .shared
            .changed
            .wait_timeout_while(throttled, THROTTLED_LOOK, |throttled| *throttled);
        Ok(())
    }
}
