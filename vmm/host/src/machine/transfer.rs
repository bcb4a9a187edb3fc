//! Sends a machine that runs to a newcomer: the thread that makes the rounds, and what it has done
//! at the pause (docs/joining.md).
//!
//! ```text
//!   this thread                                     vCPU thread
//!   asks for a pause  ----------------------------> gives its dirty log
//!   log on; rounds over the channel; rounds of copies
//!   asks for a pause  ----------------------------> saves, takes the log, copies what is left, says where it is
//!     (again where that took too long)
//!   log off; the copies; the rest
//! ```
//!
//! Whatever fails here, or on the way, ends the transfer and nothing else: the log is switched off,
//! and the guest has run on.

use crate::disk::Watch;
use crate::live::Control;
use crate::live::control::NoPause;
use crate::pair::stop_point::{Step, pass};
use lockstep_core::machine::Machine;
use lockstep_core::machine::cpu::CpuError;
use lockstep_core::machine::memory::{self, Memory};
use lockstep_core::machine::page_set::PageSet;
use lockstep_core::machine::saved::format::LogPosition;
use lockstep_core::machine::saved::pages::PAGE_BYTES;
use lockstep_core::machine::saved::{Page, SavedMachine, SavedPosition};
use lockstep_core::replica::LiveDoor;
use lockstep_core::replica::transfer::{
    Capture, Copies, Next, NoRoom, PAUSE_PAGES_MAX, Round, Rounds, Sender,
};
use lockstep_kvm::dirty::given;
use lockstep_kvm::{DirtyLog, KvmCpu, Logging};
use lockstep_logging_channel::message::FollowsBy;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc as threads;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// Time that pages are copied for while the guest is paused: half of the 20 ms that a pause may
/// take. The rest is for saving the machine, and for a host that is busy with other things.
const COPYING_MAX: Duration = Duration::from_millis(10);
/// Pages between two looks at the time: 0.2 ms at 3 µs each.
const COPIED_AT_ONCE: u64 = 64;
/// Pages between two looks at the channel while the guest runs on: 4 MiB.
const BATCH_PAGES: u64 = 1024;

/// Reason why a machine was not sent. It has run on.
#[derive(Debug, thiserror::Error)]
pub enum NotSent {
    /// The machine is over, or somebody else had a pause.
    #[error(transparent)]
    NoPause(#[from] NoPause),
    /// It still replays.
    #[error("the machine is not live")]
    NotLive,
    /// Nobody takes records any more.
    #[error("the newcomer is gone")]
    Gone,
    /// The dirty log.
    #[error(transparent)]
    Log(#[from] CpuError),
    /// The state has no saved form here, or the door refused.
    #[error("the machine cannot be saved: {why}")]
    Save {
        /// The reason.
        why: String,
    },
    /// The host has too little memory for what is to be copied.
    #[error(transparent)]
    NoRoom(#[from] NoRoom),
    /// The guest does not take completions of its disks.
    #[error("its disks do not stand still: the guest takes no completions")]
    BusyDisks,
    /// Pause after pause found more than could be copied.
    #[error("its guest writes faster than its memory can be copied")]
    TooBusy,
}

/// A machine that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Position in its log at which it was captured.
    pub position: LogPosition,
    /// Position in its execution.
    pub execution: SavedPosition,
    /// Rounds over the channel while the guest ran.
    pub rounds: u32,
    /// Pages that were sent, each as often as it was.
    pub pages: u64,
    /// Bytes of all records.
    pub bytes: u64,
    /// Longest pause of the guest.
    pub pause: Duration,
    /// Pauses in which more was left than could be copied.
    pub declined: u32,
    /// Pages that were copied inside this process: so many that it has them twice.
    pub copied: u64,
}

/// Progress of a transfer.
#[derive(Debug, Default)]
pub struct Progress {
    round: AtomicU64,
    pages: AtomicU64,
    pages_left: AtomicU64,
    bytes: AtomicU64,
}

/// Progress at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Shown {
    /// Number of the round, from 1.
    pub round: u64,
    /// Pages sent.
    pub pages: u64,
    /// Pages that this round still has to look at.
    pub pages_left: u64,
    /// Bytes of records.
    pub bytes: u64,
}

impl Progress {
    /// Progress at this moment.
    #[must_use]
    pub fn shown(&self) -> Shown {
        let read = |number: &AtomicU64| number.load(Ordering::Relaxed);
        Shown {
            round: read(&self.round),
            pages: read(&self.pages),
            pages_left: read(&self.pages_left),
            bytes: read(&self.bytes),
        }
    }
}

/// Method by which the last pages are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Way {
    /// As [`Rounds`] decides.
    #[default]
    Decided,
    /// As copies from the first round on.
    Copied,
}

/// A transfer under way.
pub struct Transfer {
    progress: Arc<Progress>,
    outcome: oneshot::Receiver<Result<Sent, NotSent>>,
    _thread: JoinHandle<()>,
}

impl Transfer {
    /// Progress.
    #[must_use]
    pub fn progress(&self) -> Shown {
        self.progress.shown()
    }

    /// Waits for its end. Where that was given before, there is nothing to wait for.
    ///
    /// # Errors
    /// [`NotSent`].
    pub async fn outcome(&mut self) -> Result<Sent, NotSent> {
        if self.outcome.is_terminated() {
            return Err(NoPause.into());
        }
        (&mut self.outcome)
            .await
            .unwrap_or(Err(NotSent::NoPause(NoPause)))
    }
}

/// Sends the machine under `control`, of pair `pair`, into `records`. Who receives there sets the
/// pace, and ends the transfer by closing it.
///
/// # Errors
/// The host starts no thread.
pub fn send(
    control: Control,
    pair: [u8; 16],
    way: Way,
    records: mpsc::Sender<Vec<u8>>,
) -> io::Result<Transfer> {
    send_to(control, pair, way, FollowsBy::Replay, None, records)
}

/// The same to one who `follows_by` replay or by checkpoints from there. The machine's `disks` stand
/// still from its capture on, until they are thawed.
///
/// # Errors
/// The host starts no thread.
pub fn send_to(
    control: Control,
    pair: [u8; 16],
    way: Way,
    follows_by: FollowsBy,
    disks: Option<Arc<Watch>>,
    records: mpsc::Sender<Vec<u8>>,
) -> io::Result<Transfer> {
    let progress = Arc::<Progress>::default();
    let (done, outcome) = oneshot::channel();
    let shown = progress.clone();
    let thread = Builder::new().name("transfer".to_owned()).spawn(move || {
        let mut sending = Sending {
            control,
            follows_by,
            disks,
            records,
            progress: shown,
            bytes: 0,
            pause: Duration::ZERO,
        };
        let outcome = sending.run(pair, way);
        // Before it is said: another transfer may begin then, with a watch of its own.
        drop(sending);
        // Nobody waits any more when the program is going away.
        let _ = done.send(outcome);
    })?;
    Ok(Transfer {
        progress,
        outcome,
        _thread: thread,
    })
}

struct Sending {
    control: Control,
    follows_by: FollowsBy,
    disks: Option<Arc<Watch>>,
    records: mpsc::Sender<Vec<u8>>,
    progress: Arc<Progress>,
    bytes: u64,
    pause: Duration,
}

/// Outcome of a pause.
enum Paused {
    /// So much was left when the time of a pause was over.
    Declined(PageSet),
    Captured(Box<Capture>),
    Failed(NotSent),
}

impl Sending {
    fn run(&mut self, pair: [u8; 16], way: Way) -> Result<Sent, NotSent> {
        let log = self.at_pause(|machine, _| machine.vcpu().dirty_log())?;
        let logging = Arc::new(log.start()?);
        let memory = log.memory().clone();
        let (mut sender, first) = Sender::new(pair, memory::size_bytes(&memory));
        self.put(first)?;
        let pages = given(&memory);
        let mut rounds = Rounds::begun(pages.len());
        let first = Round::first(memory.clone(), pages);
        let mut left = self.round(&mut sender, &mut rounds, &logging, first)?;
        if way == Way::Copied {
            rounds.copy_from_now_on(left.len());
        }
        let mut copies = Copies::of(memory::size_bytes(&memory) / PAGE_BYTES as u64);
        let mut declined = 0;
        loop {
            left.add(&logging.take()?);
            match rounds.next(left.len()) {
                Next::Round => {
                    let again = Round::again(memory.clone(), std::mem::take(&mut left));
                    left = self.round(&mut sender, &mut rounds, &logging, again)?;
                }
                Next::Copy => self.copy(&mut sender, &mut copies, &memory, &mut left)?,
                Next::GiveUp => return Err(NotSent::TooBusy),
                Next::Capture => {
                    // Before the pause, which touches no fresh memory.
                    copies.make_room(PAUSE_PAGES_MAX)?;
                    let paused;
                    (copies, paused) = self.capture(copies, &log, &logging, left)?;
                    match paused {
                        Paused::Failed(why) => return Err(why),
                        Paused::Declined(pages) => {
                            self.disks.iter().for_each(|disks| disks.thaw());
                            declined += 1;
                            rounds.decline(pages.len());
                            left = pages;
                        }
                        Paused::Captured(capture) => {
                            // The guest is free of it as early as can be.
                            drop(logging);
                            let mut sent = Sent {
                                position: capture.position,
                                execution: capture.machine.position,
                                rounds: rounds.made(),
                                pages: 0,
                                bytes: 0,
                                pause: self.pause,
                                declined,
                                copied: copies.len(),
                            };
                            for pages in copies.into_pages() {
                                self.pages(&mut sender, pages)?;
                            }
                            sent.pages = sender.pages_sent();
                            for record in sender.last(*capture) {
                                self.put(record)?;
                            }
                            sent.bytes = self.bytes;
                            return Ok(sent);
                        }
                    }
                }
            }
        }
    }

    /// Does something on the vCPU thread while the guest is paused.
    fn at_pause<T: Send + 'static>(
        &mut self,
        what: impl FnOnce(&mut Machine<KvmCpu>, &mut dyn LiveDoor) -> T + Send + 'static,
    ) -> Result<T, NotSent> {
        let (send, done) = threads::sync_channel(1);
        self.control.at_pause(Box::new(move |machine, door| {
            let begun = Instant::now();
            let outcome = what(machine, door);
            // Whoever asked still waits.
            let _ = send.send((outcome, begun.elapsed()));
        }))?;
        let (outcome, pause) = done.recv().map_err(|_| NoPause)?;
        self.pause = self.pause.max(pause);
        Ok(outcome)
    }

    fn capture(
        &mut self,
        mut copies: Copies,
        log: &DirtyLog,
        logging: &Arc<Logging>,
        mut left: PageSet,
    ) -> Result<(Copies, Paused), NotSent> {
        pass(Step::BeforeCapture);
        if self.disks.as_ref().is_some_and(|disks| !disks.freeze()) {
            return Err(NotSent::BusyDisks);
        }
        let (memory, logging) = (log.memory().clone(), logging.clone());
        let follows_by = self.follows_by;
        self.at_pause(move |machine, door| {
            let paused = capture(
                machine,
                door,
                &memory,
                &logging,
                &mut left,
                &mut copies,
                follows_by,
            );
            (copies, paused.unwrap_or_else(Paused::Failed))
        })
    }

    /// Sends a round over the channel, all of it or as long as that does some good. Gives the pages
    /// that are known to be left then.
    fn round(
        &mut self,
        sender: &mut Sender,
        rounds: &mut Rounds,
        logging: &Logging,
        mut round: Round,
    ) -> Result<PageSet, NotSent> {
        pass(Step::Round);
        self.progress.round.store(rounds.made().into(), Ordering::Relaxed);
        self.progress.pages_left.store(round.left(), Ordering::Relaxed);
        let mut written = PageSet::default();
        let sent_before = sender.pages_sent();
        let mut judged_at = sent_before + rounds.judged_after();
        while let Some(pages) = round.next_pages() {
            self.progress.pages_left.store(round.left(), Ordering::Relaxed);
            self.pages(sender, pages)?;
            if sender.pages_sent() < judged_at {
                continue;
            }
            judged_at += rounds.judged_after();
            written.add(&logging.take()?);
            if Rounds::is_hopeless(sender.pages_sent() - sent_before, written.len()) {
                written.add(&round.into_rest());
                rounds.copy_from_now_on(written.len());
                break;
            }
        }
        Ok(written)
    }

    /// Copies all of `left` while the guest runs on. The page that is sent after each batch is for
    /// the receiver to see that something goes on.
    fn copy(
        &mut self,
        sender: &mut Sender,
        copies: &mut Copies,
        memory: &Memory,
        left: &mut PageSet,
    ) -> Result<(), NotSent> {
        while let Some(page) = left.next_from(0) {
            copies.make_room(BATCH_PAGES)?;
            copies.copy(memory, left, BATCH_PAGES);
            self.pages(sender, Page::of(memory, page).into_iter().collect())?;
        }
        Ok(())
    }

    fn pages(&mut self, sender: &mut Sender, pages: Vec<Page>) -> Result<(), NotSent> {
        match sender.pages(pages) {
            Some(record) => {
                self.progress.pages.store(sender.pages_sent(), Ordering::Relaxed);
                self.put(record)
            }
            None if self.records.is_closed() => Err(NotSent::Gone),
            None => Ok(()),
        }
    }

    fn put(&mut self, record: Vec<u8>) -> Result<(), NotSent> {
        self.bytes += record.len() as u64;
        self.progress.bytes.store(self.bytes, Ordering::Relaxed);
        self.records.blocking_send(record).map_err(|_| NotSent::Gone)
    }
}

/// On the vCPU thread, at the pause.
fn capture(
    machine: &mut Machine<KvmCpu>,
    door: &mut dyn LiveDoor,
    memory: &Memory,
    logging: &Logging,
    left: &mut PageSet,
    copies: &mut Copies,
    follows_by: FollowsBy,
) -> Result<Paused, NotSent> {
    let cannot = |why: &dyn std::fmt::Display| NotSent::Save { why: why.to_string() };
    // First, because it completes the pending access, which may write to memory.
    let saved: SavedMachine = machine.save().map_err(|why| cannot(&why))?;
    pass(Step::Saved);
    left.add(&logging.take()?);
    copy_for_a_while(copies, memory, left);
    if !left.is_empty() {
        return Ok(Paused::Declined(std::mem::take(left)));
    }
    pass(Step::Captured);
    if follows_by == FollowsBy::Checkpoints {
        door.begin_epochs();
    }
    // Whoever replays a recording follows from elsewhere.
    let is_alone = !door.is_followed();
    // Last, because it is said to the role machine: from then on the log is kept for the newcomer.
    let saved_at = door.saved_at(saved.position.exits).map_err(|why| cannot(&why))?;
    let saved_at = saved_at.ok_or(NotSent::NotLive)?;
    machine.was_captured(door, is_alone).map_err(|why| cannot(&why))?;
    Ok(Paused::Captured(Box::new(Capture {
        machine: saved,
        position: LogPosition {
            sequence: saved_at.sequence.0,
            monotonic_ns: saved_at.floor.monotonic_ns,
            tsc: saved_at.floor.tsc,
            wall_ns: saved_at.floor.wall_ns,
        },
    })))
}

/// Copies `left`, as long as there is room, until the time of a pause is over.
fn copy_for_a_while(copies: &mut Copies, memory: &Memory, left: &mut PageSet) {
    let begun = Instant::now();
    let mut before = left.len();
    while before > 0 && begun.elapsed() < COPYING_MAX {
        copies.copy(memory, left, COPIED_AT_ONCE);
        let now = left.len();
        if now == before {
            return;
        }
        before = now;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_transfer_that_is_over_may_be_waited_for_again() {
        let (done, outcome) = oneshot::channel();
        let mut transfer = Transfer {
            progress: Arc::default(),
            outcome,
            _thread: std::thread::spawn(|| ()),
        };
        assert!(done.send(Err(NotSent::Gone)).is_ok());
        assert!(matches!(transfer.outcome().await, Err(NotSent::Gone)));
        assert!(matches!(transfer.outcome().await, Err(NotSent::NoPause(_))));
    }
}
