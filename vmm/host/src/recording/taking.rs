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

use super::folder::{Folder, Partial};
use super::journal::CapturedAt;
use crate::live::Control;
use crate::machine::transfer::{NotSent, Sent, Transfer, Way, send};
use lockstep_core::replica::snapshot::{Place, Recording, Writer};
use lockstep_logging_channel::Sequence;
use lockstep_process::causes::with_causes;
use nix::sys::statvfs::fstatvfs;
use std::convert::Infallible;
use std::fs::File;
use std::io::{self, BufWriter};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

/// The shortest interval: a snapshot costs two pauses of the guest, of a few milliseconds each.
pub const EVERY_MIN: Duration = Duration::from_millis(100);
/// Records between the transfer and the file: as many as a newcomer's channel has (1 MiB).
const RECORDS_WAITING_MAX: usize = 8;
/// Bytes given to the system at once.
const BUFFER_BYTES: usize = 1 << 20;
/// Bytes that a snapshot leaves free on the disk: the log goes on, and needs them. At 4 MiB/s, far
/// more than a log of the key-value guest under full load, 4 s.
const LEFT_FREE_BYTES: u64 = 16 << 20;
/// Bytes of a snapshot between two looks at what is free.
const LOOK_BYTES: u64 = 1 << 20;
/// Longest wait for a write that is under way when the recording ends.
const LAST_WRITE_LIMIT: Duration = Duration::from_secs(10);

/// Reason why there is no snapshot. The recording goes on.
#[derive(Debug, thiserror::Error)]
enum NotTaken {
    /// The recording is over.
    #[error("the recording is over")]
    Over,
    /// The machine was not sent.
    #[error(transparent)]
    NotSent(#[from] NotSent),
    /// The disk.
    #[error("its file cannot be written")]
    File(#[from] io::Error),
    /// The disk is nearly full.
    #[error("the disk has {free_bytes} bytes left, and {LEFT_FREE_BYTES} of them are kept for the log")]
    LittleRoom {
        /// Bytes that are free.
        free_bytes: u64,
    },
    /// The capture and the log do not belong together.
    #[error("its place in the log is not known: this is a defect of Lockstep")]
    NoPlace,
}

/// A snapshot that was written.
#[derive(Clone, Copy, Debug)]
struct Written {
    entry: u64,
    bytes: u64,
    pause: Duration,
}

/// Takes the snapshots of one recording.
pub struct Snapshots {
    control: Control,
    recording: Recording,
    folder: Folder,
    every: Duration,
    captured: Arc<CapturedAt>,
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
            is_over: Arc::default(),
            writing: None,
            newest: None,
            taken: 0,
            given_up: 0,
        }
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
        let (records, arriving) = mpsc::channel(RECORDS_WAITING_MAX);
        let transfer = send(self.control.clone(), self.recording.name, Way::Decided, records)?;
        let writing = Writing {
            transfer,
            arriving,
            recording: self.recording,
            folder: self.folder.clone(),
            captured: self.captured.clone(),
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
            Ok(Written { entry, bytes, pause }) => {
                // One without an entry since the one before has replaced it.
                self.taken += u64::from(self.newest != Some(entry));
                self.newest = Some(entry);
                let pause_us = pause.as_micros() as u64;
                tracing::debug!(entry, bytes, pause_us, "a snapshot was written");
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
    transfer: Transfer,
    arriving: mpsc::Receiver<Vec<u8>>,
    recording: Recording,
    folder: Folder,
    captured: Arc<CapturedAt>,
    is_over: Arc<AtomicBool>,
}

impl Writing {
    /// Writes the snapshot, and waits for the end of the transfer in every case: there is one at a
    /// time.
    fn run(mut self, runtime: &tokio::runtime::Handle) -> Result<Written, NotTaken> {
        let written = self.write_records();
        // The transfer ends where nobody takes its records.
        self.arriving.close();
        while self.arriving.blocking_recv().is_some() {}
        let sent = runtime.block_on(self.transfer.outcome());
        let (partial, writer) = written?;
        self.finish(partial, writer, &sent?)
    }

    fn write_records(&mut self) -> Result<(Partial, Writer<BufWriter<File>>), NotTaken> {
        let (file, partial) = self.folder.begin()?;
        let mut look = Look {
            file: file.try_clone()?,
            at_bytes: 0,
        };
        let mut writer = Writer::new(BufWriter::with_capacity(BUFFER_BYTES, file))?;
        while let Some(record) = self.arriving.blocking_recv() {
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
        partial.keep(file.get_ref(), place.entry)?;
        Ok(Written {
            entry: place.entry,
            bytes,
            pause,
        })
    }
}

/// Looks now and then at what is free on the disk.
struct Look {
    file: File,
    at_bytes: u64,
}

impl Look {
    /// Refuses to go on from `bytes` where the log would have too little.
    fn take(&mut self, bytes: u64) -> Result<(), NotTaken> {
        if bytes < self.at_bytes {
            return Ok(());
        }
        self.at_bytes = bytes + LOOK_BYTES;
        let disk = fstatvfs(&self.file).map_err(io::Error::from)?;
        let free_bytes = disk.blocks_available() * disk.fragment_size();
        if free_bytes < LEFT_FREE_BYTES + BUFFER_BYTES as u64 {
            return Err(NotTaken::LittleRoom { free_bytes });
        }
        Ok(())
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
