//! Sends a machine that runs to a newcomer: the thread that makes the rounds, and what it has done
//! at the pause (docs/joining.md).
//!
//! ```text
//!   this thread                                     vCPU thread
//!   asks for a pause  ----------------------------> gives its dirty log
//!   log on; first round; rounds; copies
//!   asks for a pause  ----------------------------> saves, takes the log, says where it is, copies what is left or forks
//!   log off; copies or the child's pages; the rest
//! ```
//!
//! Whatever fails here, or on the way, ends the transfer and nothing else: the log is switched off,
//! the child is killed, and the guest has run on.

use crate::live::Control;
use crate::live::control::NoPause;
use crate::pair::stop_point::{Step, pass};
use lockstep_core::machine::Machine;
use lockstep_core::machine::cpu::CpuError;
use lockstep_core::machine::memory::{self, Memory};
use lockstep_core::machine::page_set::PageSet;
use lockstep_core::machine::saved::format::LogPosition;
use lockstep_core::machine::saved::pages::PAGE_BYTES;
use lockstep_core::machine::saved::{Page, SavedMachine};
use lockstep_core::replica::LiveDoor;
use lockstep_core::replica::transfer::{
    COPIED_PAGES_MAX, Capture, Copies, Next, PAGES_PER_RECORD, PAUSE_PAGES_MAX, Round, Rounds, Sender,
};
use lockstep_kvm::dirty::given;
use lockstep_kvm::fork::Image;
use lockstep_kvm::{DirtyLog, KvmCpu, Logging};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc as threads;
use std::thread::{Builder, JoinHandle};
use std::time::{Duration, Instant};
use tokio::sync::{mpsc, oneshot};

/// Why a machine was not sent. It has run on.
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
        /// Why.
        why: String,
    },
    /// No child, or it died.
    #[error("the machine cannot be forked")]
    Fork(#[source] io::Error),
}

/// A machine that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sent {
    /// Position at which it was captured.
    pub position: LogPosition,
    /// Rounds over the channel while the guest ran.
    pub rounds: u32,
    /// Pages that were sent, each as often as it was.
    pub pages: u64,
    /// Bytes of all records.
    pub bytes: u64,
    /// Longest time that the guest stood at a pause.
    pub pause: Duration,
    /// The last pages came from a child.
    pub forked: bool,
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
    /// By fork after the first round.
    Forked,
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
    let progress = Arc::<Progress>::default();
    let (done, outcome) = oneshot::channel();
    let shown = progress.clone();
    let thread = Builder::new().name("transfer".to_owned()).spawn(move || {
        let mut sending = Sending {
            control,
            records,
            progress: shown,
            bytes: 0,
            pause: Duration::ZERO,
        };
        // Nobody waits any more when the program is going away.
        let _ = done.send(sending.run(pair, way));
    })?;
    Ok(Transfer {
        progress,
        outcome,
        _thread: thread,
    })
}

struct Sending {
    control: Control,
    records: mpsc::Sender<Vec<u8>>,
    progress: Arc<Progress>,
    bytes: u64,
    pause: Duration,
}

/// Outcome of a pause.
enum Paused {
    /// More is left than may be copied while the guest stands.
    Declined(PageSet),
    Captured(Box<Capture>, Last),
    Failed(NotSent),
}

/// Place of the last pages.
enum Last {
    Copied,
    Forked(Image),
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
        self.round(
            &mut sender,
            rounds.made(),
            pages.len(),
            Round::first(memory.clone(), pages),
        )?;
        // Before the log is taken: what is left grows while room is made.
        let mut room = room(&memory);
        let mut left = PageSet::default();
        loop {
            left.add(&logging.take()?);
            let next = match way {
                Way::Decided => rounds.next(left.len()),
                Way::Forked => Next::Fork,
            };
            if next == Next::Round {
                let pages = std::mem::take(&mut left);
                let count = pages.len();
                self.round(
                    &mut sender,
                    rounds.made(),
                    count,
                    Round::again(memory.clone(), pages),
                )?;
                continue;
            }
            // There is room: it was just made or cleared.
            if next == Next::Copy && room.copy(&memory, &left).is_ok() {
                left = PageSet::default();
            }
            let paused;
            (room, paused) = self.capture(room, &log, &logging, left, next == Next::Fork)?;
            match paused {
                Paused::Failed(why) => return Err(why),
                Paused::Declined(pages) => {
                    rounds.decline();
                    self.copied(&mut sender, &room)?;
                    room.clear();
                    left = pages;
                }
                Paused::Captured(capture, last) => {
                    // The guest is free of it as early as can be.
                    drop(logging);
                    let position = capture.position;
                    let forked = matches!(last, Last::Forked(_));
                    self.copied(&mut sender, &room)?;
                    drop(room);
                    if let Last::Forked(image) = last {
                        self.forked(&mut sender, image)?;
                    }
                    let pages = sender.pages_sent();
                    for record in sender.last(*capture) {
                        self.put(record)?;
                    }
                    return Ok(Sent {
                        position,
                        rounds: rounds.made(),
                        pages,
                        bytes: self.bytes,
                        pause: self.pause,
                        forked,
                    });
                }
            }
        }
    }

    /// Does something on the vCPU thread while the guest stands.
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
        mut room: Copies,
        log: &DirtyLog,
        logging: &Arc<Logging>,
        mut left: PageSet,
        forks: bool,
    ) -> Result<(Copies, Paused), NotSent> {
        pass(Step::BeforeCapture);
        let (memory, logging) = (log.memory().clone(), logging.clone());
        self.at_pause(move |machine, door| {
            let paused = capture(machine, door, &memory, &logging, &mut left, forks, &mut room);
            (room, paused.unwrap_or_else(Paused::Failed))
        })
    }

    fn round(
        &mut self,
        sender: &mut Sender,
        number: u32,
        pages: u64,
        mut round: Round,
    ) -> Result<(), NotSent> {
        pass(Step::Round);
        self.progress.round.store(number.into(), Ordering::Relaxed);
        self.progress.pages_left.store(pages, Ordering::Relaxed);
        while let Some(pages) = round.next_pages() {
            self.progress.pages_left.store(round.left(), Ordering::Relaxed);
            self.pages(sender, pages)?;
        }
        Ok(())
    }

    fn copied(&mut self, sender: &mut Sender, copies: &Copies) -> Result<(), NotSent> {
        copies.pages().try_for_each(|pages| self.pages(sender, pages))
    }

    fn forked(&mut self, sender: &mut Sender, mut image: Image) -> Result<(), NotSent> {
        loop {
            let pages = image.next_pages(PAGES_PER_RECORD).map_err(NotSent::Fork)?;
            if pages.is_empty() {
                return Ok(());
            }
            self.pages(sender, pages)?;
        }
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

/// Room for copies of what is copied while the guest runs, and of what is left then; twice the
/// memory is as good where that is less.
fn room(memory: &Memory) -> Copies {
    let all = memory::size_bytes(memory) / PAGE_BYTES as u64;
    Copies::with_room((COPIED_PAGES_MAX + PAUSE_PAGES_MAX).min(2 * all))
}

/// On the vCPU thread, at the pause.
fn capture(
    machine: &mut Machine<KvmCpu>,
    door: &mut dyn LiveDoor,
    memory: &Memory,
    logging: &Logging,
    left: &mut PageSet,
    forks: bool,
    room: &mut Copies,
) -> Result<Paused, NotSent> {
    let cannot = |why: &dyn std::fmt::Display| NotSent::Save { why: why.to_string() };
    // First, because it completes the pending access, which may write to memory.
    let saved: SavedMachine = machine.save().map_err(|why| cannot(&why))?;
    pass(Step::Saved);
    left.add(&logging.take()?);
    if !forks && left.len() > PAUSE_PAGES_MAX {
        return Ok(Paused::Declined(std::mem::take(left)));
    }
    let last = if forks {
        Last::Forked(Image::fork(memory, left).map_err(NotSent::Fork)?)
    } else {
        room.copy(memory, left).map_err(|why| cannot(&why))?;
        Last::Copied
    };
    pass(Step::Captured);
    // Last, because it is said to the role machine: from then on the log is kept for the newcomer.
    let saved_at = door.saved_at(saved.position.exits).map_err(|why| cannot(&why))?;
    let saved_at = saved_at.ok_or(NotSent::NotLive)?;
    let capture = Capture {
        machine: saved,
        position: LogPosition {
            sequence: saved_at.sequence.0,
            monotonic_ns: saved_at.floor.monotonic_ns,
            tsc: saved_at.floor.tsc,
            wall_ns: saved_at.floor.wall_ns,
        },
    };
    Ok(Paused::Captured(Box::new(capture), last))
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
