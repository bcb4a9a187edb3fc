//! Snapshots of a recording while its guest runs on: the machine is sent as to a newcomer, into a
//! file.
//!
//! ```text
//!   this task                       transfer thread              vCPU thread
//!   each interval: starts one ----> rounds over memory --------> captured at a pause
//!   waits for the writing thread <- records                      runs on
//! ```
//!
//! The interval is counted by the host's clock, and nothing of it enters the guest or the log.
//! Whatever fails gives up that snapshot and nothing else.

use super::disks::{Part, RecordedDisks};
use super::folder::{Folder, Kind, Partial};
use super::journal::CapturedAt;
use super::not_taken::{BUFFER_BYTES, Look, NotTaken};
use crate::disk::Watch;
use crate::live::Control;
use crate::machine::transfer::{NotSent, Sent, Transfer, Way, send_to};
use lockstep_core::replica::snapshot::{Place, Recording, Writer};
use lockstep_logging_channel::Sequence;
use lockstep_logging_channel::message::FollowsBy;
use lockstep_process::causes::with_causes;
use std::convert::Infallible;
use std::fs::File;
use std::io::{self, BufWriter};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

/// The shortest interval: a snapshot costs two pauses of the guest, of a few milliseconds each.
pub const EVERY_MIN: Duration = Duration::from_millis(100);
/// Records between the transfer and the file: as many as a newcomer's channel has (1 MiB).
const RECORDS_WAITING_MAX: usize = 8;
/// Longest wait for a write that is under way when the recording ends.
const LAST_WRITE_LIMIT: Duration = Duration::from_secs(10);

/// A snapshot that was written.
#[derive(Clone, Copy, Debug)]
struct Written {
    entry: u64,
    bytes: u64,
    /// Bytes of the file with its disks.
    disk_bytes: u64,
    pause: Duration,
}

/// Takes the snapshots of one recording.
pub struct Snapshots {
    control: Control,
    recording: Recording,
    folder: Folder,
    every: Duration,
    captured: Arc<CapturedAt>,
    /// The machine's disks; none where it has no disks.
    disks: Option<Arc<Mutex<RecordedDisks>>>,
    is_over: Arc<AtomicBool>,
    writing: Option<JoinHandle<Result<Written, NotTaken>>>,
    /// First entry of the newest.
    newest: Option<u64>,
    taken: u64,
    given_up: u64,
}

impl Snapshots {
    /// Snapshots of the machine under `control`, into `folder`, one each `every`.
    #[must_use]
    pub fn new(
        control: Control,
        recording: Recording,
        folder: Folder,
        every: Duration,
        captured: CapturedAt,
    ) -> Self {
        Self {
            control,
            recording,
            folder,
            every,
            captured: Arc::new(captured),
            disks: None,
            is_over: Arc::default(),
            writing: None,
            newest: None,
            taken: 0,
            given_up: 0,
        }
    }

    /// The same of a machine with disks.
    #[must_use]
    pub fn with_disks(self, disks: RecordedDisks) -> Self {
        let disks = Some(Arc::new(Mutex::new(disks)));
        Self { disks, ..self }
    }

    /// Takes them until it is dropped; [`Snapshots::stop`] has to follow.
    pub async fn take(&mut self) -> Infallible {
        let mut due = Instant::now() + self.every;
        loop {
            sleep_until(due).await;
            let begun = Instant::now();
            let outcome = self.take_one().await;
            self.count(outcome);
            due = next_due(begun, Instant::now(), self.every);
        }
    }

    async fn take_one(&mut self) -> Result<Written, NotTaken> {
        self.captured.forget();
        let writing = Writing {
            control: self.control.clone(),
            recording: self.recording,
            folder: self.folder.clone(),
            captured: self.captured.clone(),
            disks: self.disks.clone(),
            is_over: self.is_over.clone(),
        };
        let runtime = tokio::runtime::Handle::current();
        // Kept, because this future may be dropped before it is done.
        let thread = tokio::task::spawn_blocking(move || writing.run(&runtime));
        let outcome = self.writing.insert(thread).await;
        self.writing = None;
        outcome.unwrap_or_else(|why| Err(io::Error::other(why).into()))
    }

    fn count(&mut self, outcome: Result<Written, NotTaken>) {
        match outcome {
            Ok(Written {
                entry,
                bytes,
                disk_bytes,
                pause,
            }) => {
                // One without an entry since the one before has replaced it.
                self.taken += u64::from(self.newest != Some(entry));
                self.newest = Some(entry);
                let pause_us = pause.as_micros() as u64;
                tracing::debug!(entry, bytes, disk_bytes, pause_us, "a snapshot was written");
            }
            Err(NotTaken::Over | NotTaken::NotSent(NotSent::NoPause(_))) => {}
            Err(why) => {
                self.given_up += 1;
                let why = with_causes(&why);
                if self.given_up == 1 {
                    tracing::warn!(
                        "a snapshot was given up, and the recording goes on; of others that are given up only the number is said, at the end: {why}"
                    );
                } else {
                    tracing::debug!("a snapshot was given up: {why}");
                }
            }
        }
    }

    /// The recording is over: gives up a snapshot that is being written, and waits until nothing is
    /// left of it.
    pub async fn stop(mut self) {
        self.is_over.store(true, Ordering::Relaxed);
        if let Some(writing) = self.writing.take() {
            match timeout(LAST_WRITE_LIMIT, writing).await {
                Ok(outcome) => self.count(outcome.unwrap_or(Err(NotTaken::Over))),
                Err(_) => tracing::warn!(
                    folder = %self.folder.path().display(),
                    "a file of a snapshot that was given up may be left behind: the disk does not answer"
                ),
            }
        }
        self.folder.remove_if_empty();
        let Self { taken, given_up, .. } = self;
        if given_up > 1 {
            tracing::warn!(
                snapshots = taken,
                given_up,
                "the recording has snapshots, and others were given up"
            );
        } else {
            tracing::info!(snapshots = taken, "the recording has snapshots");
        }
    }
}

/// Time of the next snapshot after one that was taken from `begun` to `done`. The guest, which a
/// snapshot slows down, has at least as long to itself: on a busy host one could follow on another,
/// and a guest that writes much would get nowhere.
fn next_due(begun: Instant, done: Instant, every: Duration) -> Instant {
    let took = done.saturating_duration_since(begun);
    (begun + every).max(done + took)
}

/// State of the writing thread.
struct Writing {
    control: Control,
    recording: Recording,
    folder: Folder,
    captured: Arc<CapturedAt>,
    disks: Option<Arc<Mutex<RecordedDisks>>>,
    is_over: Arc<AtomicBool>,
}

impl Writing {
    /// Writes the snapshot. There is one at a time.
    fn run(self, runtime: &tokio::runtime::Handle) -> Result<Written, NotTaken> {
        let Some(disks) = self.disks.clone() else {
            let (partial, writer, sent) = self.machine(runtime, None)?;
            return self.finish(partial, writer, &sent, |_| Ok(0));
        };
        let mut disks = disks.lock().unwrap_or_else(PoisonError::into_inner);
        let is_over = || self.is_over.load(Ordering::Relaxed);
        let mut part: Part = disks.begin(&self.folder, &is_over)?;
        let watch = disks.watch().clone();
        // Whatever happens from here on, the disks go on then.
        let still = Still(&watch);
        let (partial, writer, sent) = self.machine(runtime, Some(watch.clone()))?;
        disks.copy_rest(&mut part, &is_over)?;
        drop(still);
        self.finish(partial, writer, &sent, |entry| {
            disks.keep(part, &self.recording, entry)
        })
    }

    /// Writes the machine, and waits for the end of the transfer in every case. Its `disks` stand
    /// still then.
    fn machine(
        &self,
        runtime: &tokio::runtime::Handle,
        disks: Option<Arc<Watch>>,
    ) -> Result<(Partial, Writer<BufWriter<File>>, Sent), NotTaken> {
        let (records, mut arriving) = mpsc::channel(RECORDS_WAITING_MAX);
        let (control, name) = (self.control.clone(), self.recording.name);
        let still = disks.clone();
        let mut transfer: Transfer = send_to(control, name, Way::Decided, FollowsBy::Replay, disks, records)?;
        let written = self.write_records(&mut arriving);
        // The transfer ends where nobody takes its records.
        arriving.close();
        while arriving.blocking_recv().is_some() {}
        let sent = runtime.block_on(transfer.outcome());
        let (partial, writer) = written?;
        match sent {
            Ok(sent) => Ok((partial, writer, sent)),
            // Disks that finish do not stand still.
            Err(_) if still.is_some_and(|disks| disks.is_over()) => Err(NotTaken::Over),
            Err(why) => Err(why.into()),
        }
    }

    fn write_records(
        &self,
        arriving: &mut mpsc::Receiver<Vec<u8>>,
    ) -> Result<(Partial, Writer<BufWriter<File>>), NotTaken> {
        let (file, partial) = self.folder.begin(Kind::Machine)?;
        let mut look = Look::at(&file)?;
        let mut writer = Writer::new(BufWriter::with_capacity(BUFFER_BYTES, file))?;
        while let Some(record) = arriving.blocking_recv() {
            if self.is_over.load(Ordering::Relaxed) {
                return Err(NotTaken::Over);
            }
            look.take(writer.bytes())?;
            writer.put(&record)?;
        }
        Ok((partial, writer))
    }

    fn finish(
        &self,
        partial: Partial,
        writer: Writer<BufWriter<File>>,
        sent: &Sent,
        keep_disks: impl FnOnce(u64) -> Result<u64, NotTaken>,
    ) -> Result<Written, NotTaken> {
        let Sent {
            position,
            execution,
            pause,
            ..
        } = *sent;
        let last = Sequence(position.sequence);
        let place = Place {
            entry: last.next().0,
            log_offset: self.captured.offset_behind(last).ok_or(NotTaken::NoPlace)?,
            exits: execution.exits,
            instructions: execution.instructions,
            guest_ns: position.monotonic_ns,
        };
        let bytes = writer.bytes();
        let file = writer.finish(&self.recording, place)?;
        if self.is_over.load(Ordering::Relaxed) {
            return Err(NotTaken::Over);
        }
        // First: a snapshot has its disks.
        let disk_bytes = keep_disks(place.entry)?;
        partial.keep(file.get_ref(), place.entry)?;
        Ok(Written {
            entry: place.entry,
            bytes,
            disk_bytes,
            pause,
        })
    }
}

/// Disks that stand still, or will, until this is dropped.
struct Still<'a>(&'a Watch);

impl Drop for Still<'_> {
    fn drop(&mut self) {
        self.0.thaw();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guest_has_as_long_to_itself_as_a_snapshot_took() {
        let every = Duration::from_millis(100);
        let begun = Instant::now();
        let after = |took_ms, due_ms| {
            let done = begun + Duration::from_millis(took_ms);
            assert_eq!(
                next_due(begun, done, every) - begun,
                Duration::from_millis(due_ms),
                "{took_ms} ms"
            );
        };
        after(0, 100);
        after(40, 100);
        after(60, 120);
        after(2000, 4000);
    }
}
