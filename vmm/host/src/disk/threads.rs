//! The disks of a machine, as its host has them: started with the machine, finished behind it.

use super::carrying;
use super::changes::{KeptChanges, Reached};
use super::disks::Disks;
use super::executor::{Changed, DiskState, Executor};
use super::orders::{Command, Durability, Finished, Orders};
use super::setting::{Aio, OnError};
use super::shared::SharedImage;
use super::storage::Storage;
use super::target::Target;
use super::watch::{Watch, Watched};
use crate::error::RunError;
use crossbeam_channel::{Receiver, bounded, unbounded};
use lockstep_logging_channel::{DeviceId, Sequence};
use lockstep_process::signals;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};
use tokio::sync::Notify;

/// Time that the disks of a machine have to finish what they were asked, once it is over.
pub const FINISH_LIMIT: Duration = Duration::from_secs(5);

/// A disk that can be started.
#[derive(Clone)]
pub struct Drive {
    /// Its device.
    pub device: DeviceId,
    /// Its name in messages.
    pub name: String,
    /// Its bytes.
    pub storage: DriveStorage,
    /// Blocks that may differ from the other side's, where there is one with an image of its own.
    pub changes: Option<Arc<KeptChanges>>,
    /// What carries its requests out; none for io_uring where it can be used.
    pub aio: Option<Aio>,
    /// Setting for an error of the host that lasts.
    pub on_error: OnError,
}

/// Where the bytes of a disk are.
#[derive(Clone)]
pub enum DriveStorage {
    /// In an image of this side's own.
    Own(Arc<dyn Storage>),
    /// In one that both sides have.
    Shared(Arc<SharedImage>),
}

/// The threads of a machine's disks.
#[derive(Debug, Default)]
pub struct DiskThreads {
    threads: Vec<DiskThread>,
    disks: Disks,
    noticed: Arc<Notify>,
    /// They finish.
    is_over: Arc<AtomicBool>,
}

#[derive(Debug)]
struct DiskThread {
    place: u8,
    name: String,
    commands: Orders,
    state: Arc<Mutex<DiskState>>,
    changed: Changed,
    changes: Option<Arc<KeptChanges>>,
}

impl DiskThreads {
    /// Starts the threads of `drives`. `notify` is called behind each completion.
    ///
    /// # Errors
    /// The host starts none.
    pub fn start(
        drives: Vec<Drive>,
        notify: impl Fn() + Send + Clone + 'static,
    ) -> Result<(Self, Disks), RunError> {
        if !drives.is_empty() {
            signals::takes_longer(FINISH_LIMIT + FINISH_LIMIT / 10);
        }
        let mut threads = Self::default();
        let mut disks = Disks::default();
        for (place, drive) in drives.into_iter().enumerate() {
            let Drive {
                device,
                name,
                storage,
                changes,
                aio,
                on_error,
            } = drive;
            // What waits in it is bounded by the requests that the device has outstanding.
            let (report, done) = unbounded();
            let (storage, shared): (Arc<dyn Storage>, _) = match storage {
                DriveStorage::Own(storage) => (storage, None),
                DriveStorage::Shared(image) => (image.clone(), Some(image)),
            };
            let state = DiskState {
                on_error,
                ..DiskState::default()
            };
            let state = Arc::new(Mutex::new(state));
            let changed = Changed::default();
            let thread = format!("disk{place}");
            let target = Target {
                storage,
                changes: changes.clone(),
            };
            let carrier = carrying::start(&name, &thread, aio, &target)?;
            let (commands, taken) = Orders::new(carrier.bell());
            let executor = Executor {
                thread,
                name: name.clone(),
                is_shared: shared.is_some(),
                target,
                carrier,
                commands: taken,
                done: report,
                notify: Box::new(notify.clone()),
                state: state.clone(),
                noticed: threads.noticed.clone(),
                changed: changed.clone(),
            };
            executor
                .start()
                .map_err(RunError::other("cannot start the threads of a disk"))?;
            disks.add(device, commands.clone(), done, shared, changes.clone());
            threads.threads.push(DiskThread {
                place: place as u8,
                name,
                commands,
                state,
                changed,
                changes,
            });
        }
        threads.disks = disks.clone();
        Ok((threads, disks))
    }

    /// True where the machine has disks.
    #[must_use]
    pub fn has_any(&self) -> bool {
        !self.threads.is_empty()
    }

    /// State of each disk, with its name.
    #[must_use]
    pub fn states(&self) -> Vec<(String, DiskState)> {
        let state = |thread: &DiskThread| {
            let state = thread.state.lock().map(|state| state.clone());
            (thread.name.clone(), state.unwrap_or_default())
        };
        self.threads.iter().map(state).collect()
    }

    /// Waits until a disk has failed, or works again, since this was last asked. Cancel-safe.
    pub async fn noticed(&self) {
        self.noticed.notified().await;
    }

    /// Watches what is written from now on, while the disks are copied.
    #[must_use]
    pub fn watch(&self) -> Watch {
        let watched = self.threads.iter().map(|thread| {
            thread.changed.watch(true);
            Watched {
                place: thread.place,
                commands: thread.commands.clone(),
                changed: thread.changed.clone(),
            }
        });
        Watch {
            disks: self.disks.clone(),
            watched: watched.collect(),
            is_over: self.is_over.clone(),
        }
    }

    /// There is no peer any more.
    pub fn alone(&self) {
        for thread in &self.threads {
            let _ = thread.commands.send(Command::Alone);
        }
    }

    /// The backup has replayed this side's log up to here.
    pub fn replayed(&self, through: Sequence) {
        for thread in &self.threads {
            if thread
                .changes
                .as_ref()
                .is_some_and(|changes| changes.is_awaited())
            {
                let _ = thread
                    .commands
                    .send(Command::BothHave(Reached::Replayed(through)));
            }
        }
    }

    /// Begins nothing any more: another side acts. What is under way may end.
    pub fn abandon(&self) {
        for thread in &self.threads {
            let (quiet, _) = bounded(1);
            let _ = thread.commands.send(Command::Freeze { quiet });
        }
    }

    /// Carries out what the machine has asked for, makes it durable and ends the threads, within
    /// [`FINISH_LIMIT`]. Says what was not done. Gives the worst state of any.
    pub async fn finish(self) -> Durability {
        self.is_over.store(true, Ordering::Release);
        let until = Instant::now() + FINISH_LIMIT;
        let asked: Vec<(String, Receiver<Finished>)> = self
            .threads
            .into_iter()
            .map(|thread| {
                let (finished, outcome) = bounded(1);
                let _ = thread.commands.send(Command::Finish { until, finished });
                (thread.name, outcome)
            })
            .collect();
        let wait = move || {
            let ended = asked.into_iter().map(|(name, outcome)| {
                // A little longer: the thread has something to say at the limit.
                let finished = outcome.recv_deadline(until + FINISH_LIMIT / 10);
                conclude(&name, finished.ok())
            });
            ended.max().unwrap_or(Durability::Whole)
        };
        let waited = tokio::task::spawn_blocking(wait).await;
        waited.unwrap_or(Durability::Unknown)
    }
}

fn conclude(name: &str, finished: Option<Finished>) -> Durability {
    let Some(finished) = finished else {
        tracing::error!("{name}: its thread does not end; what was not flushed may be lost");
        return Durability::Unknown;
    };
    if finished.left > 0 {
        let left = finished.left;
        tracing::warn!(
            "{name}: {left} requests of the guest were not carried out: it was not told that they were"
        );
    }
    if let Some(why) = &finished.not_flushed {
        tracing::error!("{name}: what was written may not be durable: {why}");
    }
    finished.durability()
}
