//! The thread of a disk, which keeps the order of its requests. A [`Carrier`] carries them out.
//!
//! ```text
//!   vCPU thread            disk thread: DiskOrder         carrier
//!   request ------------->  may it start? -------------->  read, write, flush
//!   completion <----------  done <-----------------------  outcome
//!                           failed: again after a second
//! ```
//!
//! An error of the host is never reported to the guest, which would take a file system that it
//! cannot write for a broken one. The request waits, what depends on it too, and it is tried again
//! until it works.

use super::carrying::{Carried, Carrier, Happened};
use super::orders::{Command, Finished};
use super::setting::OnError;
use super::storage::described;
use super::target::Target;
use crossbeam_channel::{Receiver, Sender};
use lockstep_core::machine::disk::{Operation, Request};
use lockstep_core::replica::disk_order::{DiskOrder, Held};
use lockstep_core::replica::replayer::OwnRead;
use lockstep_process::once_a_minute::Seldom;
use lockstep_shared_disk::image::COPY_BLOCK_BYTES;
use std::collections::BTreeSet;
use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::Builder;
use std::time::{Duration, Instant, SystemTime};
use tokio::sync::Notify;

/// Time from a failure to the next try.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// A request that was carried out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// Its number.
    pub number: u64,
    /// Bytes that it has read, if it was a read.
    pub read: Option<OwnRead>,
}

/// State of a disk, for the operator.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DiskState {
    /// Requests that are not carried out.
    pub waiting: usize,
    /// The host's error for which requests wait.
    pub error: Option<Fault>,
    /// Tries that have failed since the machine began.
    pub failures: u64,
    /// Setting for an error that lasts.
    pub on_error: OnError,
}

/// An error of the host that lasts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The request that failed last, in words.
    pub request: String,
    /// The system's answer.
    pub why: String,
    /// Time of the first failure.
    pub since: SystemTime,
    /// The same, for how long it has lasted.
    pub begun: Instant,
    /// Tries that have failed since then.
    pub failures: u64,
}

impl Fault {
    /// True where a try after a pause has failed, too.
    #[must_use]
    pub fn lasts(&self) -> bool {
        self.begun.elapsed() >= RETRY_AFTER
    }
}

impl std::fmt::Display for Fault {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "it cannot {}: {}", self.request, self.why)
    }
}

/// Blocks that were written since somebody began to watch; none where nobody does.
#[derive(Clone, Debug, Default)]
pub(super) struct Changed(Arc<Mutex<Option<BTreeSet<u64>>>>);

impl Changed {
    /// Watches from now on, or no longer.
    pub fn watch(&self, watched: bool) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = watched.then(BTreeSet::new);
    }

    /// Takes what was written since the last time.
    pub fn take(&self) -> BTreeSet<u64> {
        let mut changed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        changed.as_mut().map(std::mem::take).unwrap_or_default()
    }

    /// Notes the blocks that `operation` has changed.
    fn note(&self, operation: &Operation) {
        let range = operation
            .range()
            .filter(|range| operation.changes() && !range.is_empty());
        let mut changed = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let (Some(range), Some(changed)) = (range, changed.as_mut()) {
            changed.extend(range.start / COPY_BLOCK_BYTES..=(range.end - 1) / COPY_BLOCK_BYTES);
        }
    }
}

/// Ends of the channels and settings of a disk's thread.
pub(super) struct Executor {
    /// Name of its thread.
    pub thread: String,
    /// Its name in messages.
    pub name: String,
    /// True where both sides have the disk: it is not touched before the machine is live.
    pub is_shared: bool,
    /// Its bytes, and the marks of those that may differ from the other side's.
    pub target: Target,
    pub carrier: Box<dyn Carrier>,
    pub commands: Receiver<Command>,
    pub done: Sender<Done>,
    /// Called behind each completion.
    pub notify: Box<dyn Fn() + Send>,
    pub state: Arc<Mutex<DiskState>>,
    /// Told where the state has another error.
    pub noticed: Arc<Notify>,
    pub changed: Changed,
}

impl Executor {
    /// Starts the thread.
    ///
    /// # Errors
    /// The host starts none.
    pub fn start(self) -> io::Result<()> {
        let thread = self.thread.clone();
        let (held, acts) = if self.is_shared {
            (Held::Shared, false)
        } else {
            (Held::Alone, true)
        };
        let running = Running {
            executor: self,
            order: DiskOrder::new(held, acts),
            acts,
            next: 0,
            waiting: 0,
            running: 0,
            failed: Vec::new(),
            retry_at: None,
            ending: None,
            freezing: Vec::new(),
            is_frozen: false,
            settling: Vec::new(),
            told: Seldom::default(),
        };
        Builder::new().name(thread).spawn(move || running.run()).map(drop)
    }
}

/// The disk's thread.
struct Running {
    executor: Executor,
    order: DiskOrder,
    /// The disk may be touched.
    acts: bool,
    /// Numbers below this one were given before.
    next: u64,
    /// Requests that are not carried out.
    waiting: usize,
    /// Requests that are being carried out.
    running: usize,
    /// Requests that wait for the next try.
    failed: Vec<Request>,
    retry_at: Option<Instant>,
    ending: Option<(Instant, Sender<Finished>)>,
    /// Whoever waits until nothing is under way.
    freezing: Vec<Sender<()>>,
    is_frozen: bool,
    /// Whoever waits until everything is carried out.
    settling: Vec<Sender<()>>,
    told: Seldom,
}

impl Running {
    fn run(mut self) {
        while self.goes_on() {
            let tries_again = !self.is_frozen && self.ending.is_none();
            let retry_at = self.retry_at.filter(|_| tries_again);
            let look_at = [retry_at, self.ending.as_ref().map(|(until, _)| *until)];
            let until = look_at.into_iter().flatten().min();
            let executor = &mut self.executor;
            match executor.carrier.wait(&executor.commands, until) {
                Happened::Command(command) => self.take(command),
                Happened::Carried(carried) => self.carried(carried),
                Happened::Time => self.try_again(),
                // Whoever gave requests is gone without a word: nobody waits for anything.
                Happened::Abandoned => return,
            }
            while !self.is_frozen
                && let Some(request) = self.order.start()
            {
                self.carry_out(request);
            }
            // A request that failed is outstanding, and will be carried out again as a whole.
            if self.running == 0 {
                if let (false, Some(changes)) = (self.freezing.is_empty(), &self.executor.target.changes) {
                    changes.join(self.order.outstanding());
                }
                for quiet in self.freezing.drain(..) {
                    let _ = quiet.send(());
                }
            }
            if self.waiting == 0 {
                for settled in self.settling.drain(..) {
                    let _ = settled.send(());
                }
            }
            self.show();
        }
        self.finish();
    }

    /// False once everything is done that can be, where it is to end.
    fn goes_on(&self) -> bool {
        match &self.ending {
            None => true,
            // What the host refuses is not waited for: it may never work again.
            Some((until, _)) => self.running > 0 && Instant::now() < *until,
        }
    }

    fn carry_out(&mut self, request: Request) {
        self.running += 1;
        self.executor.carrier.begin(request);
    }

    fn take(&mut self, command: Command) {
        match command {
            Command::Issue(request) if request.number < self.next => {}
            Command::Issue(request) => {
                self.next = request.number + 1;
                self.waiting += 1;
                if let Some(changes) = &self.executor.target.changes {
                    changes.ask(&request);
                }
                self.order.ask(request);
            }
            Command::Release(number) => self.order.release(number),
            Command::Replayed(number) => {
                self.waiting = self.waiting.saturating_sub(1);
                self.order.replayed(number);
            }
            Command::Renumber => {
                self.next = 0;
                self.order = DiskOrder::new(Held::Alone, self.acts);
            }
            Command::GoLive => {
                self.acts = true;
                self.order.go_live();
            }
            Command::Alone => {
                if let Some(changes) = &self.executor.target.changes {
                    changes.alone();
                }
            }
            Command::BothHave(reached) => {
                self.executor.carrier.clear(reached);
            }
            Command::Freeze { quiet } => {
                // A machine that is over has nothing to be captured, and its disks finish.
                self.is_frozen = self.ending.is_none();
                self.freezing.push(quiet);
            }
            Command::Settle { settled } => self.settling.push(settled),
            Command::Thaw => self.is_frozen = false,
            Command::Finish { until, finished } => {
                self.is_frozen = false;
                self.ending = Some((until, finished));
            }
        }
    }

    fn carried(&mut self, carried: Carried) {
        let Carried { request, outcome } = carried;
        self.running -= 1;
        // Before it is said, and also where it was done in part.
        self.executor.changed.note(&request.operation);
        match outcome {
            Ok(read) => {
                let number = request.number;
                self.waiting -= 1;
                self.order.done(number, read);
                let read = self.order.replayed(number);
                if self.failed.is_empty() {
                    self.works_again();
                }
                // Nobody takes it where the machine is over.
                let _ = self.executor.done.send(Done { number, read });
                (self.executor.notify)();
            }
            Err(why) => {
                let what = described(&request.operation);
                let name = &self.executor.name;
                if self.told.may(Instant::now()) {
                    tracing::error!(
                        "{name} cannot {what}: {why}; the request waits, and is tried again each second"
                    );
                }
                self.has_failed(what, &why);
                self.failed.push(request);
                self.retry_at.get_or_insert(Instant::now() + RETRY_AFTER);
            }
        }
    }

    fn try_again(&mut self) {
        let is_due = self.retry_at.is_some_and(|at| at <= Instant::now());
        if is_due && self.ending.is_none() && !self.is_frozen {
            self.retry_at = None;
            for request in std::mem::take(&mut self.failed) {
                self.carry_out(request);
            }
        }
    }

    fn works_again(&self) {
        let Ok(mut state) = self.executor.state.lock() else {
            return;
        };
        if state.error.take().is_some() {
            tracing::info!("{} works again", self.executor.name);
            self.executor.noticed.notify_one();
        }
    }

    fn has_failed(&self, request: String, why: &io::Error) {
        let Ok(mut state) = self.executor.state.lock() else {
            return;
        };
        state.failures = state.failures.saturating_add(1);
        let before = state.error.take();
        state.error = Some(Fault {
            request,
            why: why.to_string(),
            since: before.as_ref().map_or_else(SystemTime::now, |fault| fault.since),
            begun: before.as_ref().map_or_else(Instant::now, |fault| fault.begun),
            failures: before.map_or(0, |fault| fault.failures).saturating_add(1),
        });
        self.executor.noticed.notify_one();
    }

    fn show(&self) {
        if let Ok(mut state) = self.executor.state.lock() {
            state.waiting = self.waiting;
        }
    }

    /// Makes what was written durable. A file that does not answer is not waited for.
    fn finish(self) {
        let Some((until, finished)) = self.ending else {
            return;
        };
        let left = if self.acts { self.waiting } else { 0 };
        let storage = self.executor.target.storage;
        let (flushed, outcome) = crossbeam_channel::bounded(1);
        let flushing = Builder::new().spawn(move || {
            let _ = flushed.send(storage.flush().map_err(|why| why.to_string()));
        });
        let not_flushed = match flushing.map(|_| outcome.recv_deadline(until)) {
            Ok(Ok(Ok(()))) => None,
            Ok(Ok(Err(why))) => Some(why),
            Ok(Err(_)) => Some("it does not answer".to_owned()),
            Err(why) => Some(why.to_string()),
        };
        let _ = finished.send(Finished { left, not_flushed });
    }
}

#[cfg(test)]
mod tests;
