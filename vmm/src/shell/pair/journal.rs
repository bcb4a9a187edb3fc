//! The recorder's journal on a replica: encodes entries, and hands them in batches to the replica loop.
//!
//! A batch leaves when an output waits for it, before the guest idles, when it is large, or when it is old; [`Batcher`] cuts it by
//! bytes within an execution point. The guest waits here when the role machine says so: a full window slows the primary, and never loses.

use super::{Carried, FROM_CPU_WAITING_MAX, FromCpu, Payload, output};
use crate::machine::door::DoorError;
use crate::replica::role::{Batch, Input};
use crate::replica::{Batcher, Journal};
use crate::shell::live::control::Ordered;
use lockstep_logging_channel::{Entry, OutputTarget};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::mpsc;

/// A batch that is older leaves, whether an output waits for it or not.
const BATCH_AGE_MAX: Duration = Duration::from_millis(5);
/// Looked at orders at least this often while the guest has to wait.
const THROTTLED_LOOK: Duration = Duration::from_millis(10);

/// What the replica loop and the journal both see.
#[derive(Debug, Default)]
pub struct Shared {
    throttled: Mutex<bool>,
    changed: Condvar,
    /// Exits that the live vCPU has passed, with every entry up to them in the loop's channel.
    passed_exits: AtomicU64,
    /// There is no peer any more: entries need no encoding.
    alone: AtomicBool,
}

impl Shared {
    /// Makes the vCPU wait, or lets it run.
    pub fn throttle(&self, on: bool) {
        if let Ok(mut throttled) = self.throttled.lock() {
            *throttled = on;
        }
        self.changed.notify_all();
    }

    /// Entries go nowhere from now on.
    pub fn go_alone(&self) {
        self.alone.store(true, Ordering::Relaxed);
    }

    /// Exits that the vCPU has passed. Read before its channel is drained.
    #[must_use]
    pub fn passed_exits(&self) -> u64 {
        self.passed_exits.load(Ordering::Acquire)
    }

    fn wait_while_throttled(&self, ordered: &Ordered) -> Result<(), DoorError> {
        let defect = |_| DoorError::Host {
            what: "throttle",
            why: "its lock is poisoned".to_owned(),
        };
        let mut throttled = self.throttled.lock().map_err(defect)?;
        while *throttled {
            ordered.obey()?;
            let waited = self.changed.wait_timeout(throttled, THROTTLED_LOOK);
            (throttled, _) = waited.map_err(|_| DoorError::Host {
                what: "throttle",
                why: "its lock is poisoned".to_owned(),
            })?;
        }
        Ok(())
    }
}

/// The vCPU thread's end of the replica loop.
pub struct ChannelJournal {
    to_loop: mpsc::Sender<FromCpu>,
    shared: Arc<Shared>,
    ordered: Ordered,
    batcher: Batcher<Payload>,
    since: Instant,
}

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

impl ChannelJournal {
    /// A journal into `to_loop`.
    #[must_use]
    pub fn new(to_loop: mpsc::Sender<FromCpu>, shared: Arc<Shared>, ordered: Ordered) -> Self {
        Self {
            to_loop,
            shared,
            ordered,
            batcher: Batcher::default(),
            since: Instant::now(),
        }
    }

    fn flush(&mut self) -> Result<(), DoorError> {
        let batch = self.batcher.take();
        self.hand_over(batch)
    }

    fn hand_over(&self, appended: Option<Input<Vec<u8>, Payload>>) -> Result<(), DoorError> {
        let Some(Input::Appended { batch, outputs }) = appended else {
            return Ok(());
        };
        let Batch {
            first,
            last,
            exits,
            ends,
            bytes,
            entries,
        } = batch;
        let batch = Batch {
            first,
            last,
            exits,
            ends,
            bytes,
            entries: Carried::Encoded(entries),
        };
        tell(&self.to_loop, &self.ordered, Input::Appended { batch, outputs })
    }
}

impl Journal for ChannelJournal {
    fn append(&mut self, entry: &Entry) -> Result<(), DoorError> {
        if self.batcher.is_empty() {
            self.since = Instant::now();
        }
        let encodes = !self.shared.alone.load(Ordering::Relaxed);
        let full = self.batcher.append(entry, encodes)?;
        self.hand_over(full)
    }

    fn output(&mut self, entry: &Entry, target: OutputTarget, bytes: Vec<u8>) -> Result<(), DoorError> {
        self.append(entry)?;
        self.batcher.output(output(entry.sequence, target, bytes));
        Ok(())
    }

    fn passed(&mut self, exits: u64, idle: bool) -> Result<(), DoorError> {
        let is_old = || !self.batcher.is_empty() && self.since.elapsed() >= BATCH_AGE_MAX;
        if idle || self.batcher.is_due() || is_old() {
            self.flush()?;
        }
        if self.batcher.is_empty() {
            self.shared.passed_exits.store(exits, Ordering::Release);
        }
        self.shared.wait_while_throttled(&self.ordered)
    }

    fn finish(&mut self) -> Result<(), DoorError> {
        self.flush()
    }
}
