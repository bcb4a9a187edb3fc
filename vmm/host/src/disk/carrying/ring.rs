//! io_uring: whole blocks of raw images are read and written by the kernel, which the thread of
//! their disk waits for itself. Two threads less are woken for each request than with a pool.
//!
//! ```text
//!   thread of the disk                                 kernel
//!   begin: whole blocks of a raw image --------------> submission queue
//!          everything else ----------> pool               |
//!   wait:  completions, orders <------ bell <-- pool      |
//!          io_uring_enter <------------------------------ completion queue
//! ```
//!
//! The pool carries out what the kernel would give to threads of its own anyway (flushes, discards,
//! zeros), writes that are marked before, parts of blocks, large requests, and whatever came back
//! short: it does that again, until all of it is done or has failed.

#![allow(unsafe_code, reason = "the kernel is given addresses of memory")]

use super::bell::Bell;
use super::carrier::{Carried, Carrier, Happened};
use super::no_ring::NoRing;
use super::threads::Pool;
use crate::disk::changes::Reached;
use crate::disk::orders::Command;
use crate::disk::target::Target;
use crossbeam_channel::{Receiver, TryRecvError, unbounded};
use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, opcode};
use lockstep_core::machine::disk::{IN_FLIGHT_MAX, Operation, Request};
use lockstep_logging_channel::ReadData;
use lockstep_process::once_a_minute::Seldom;
use lockstep_shared_disk::image::Aligned;
use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Places of the submission queue: each request of a device takes one, and the bell another.
const ENTRIES: u32 = (IN_FLIGHT_MAX as u32 + 1).next_power_of_two();
/// Mark of the bell among completions: no request has this number.
const BELL: u64 = u64::MAX;
/// Largest request that the kernel is given. Its bytes are copied by the thread of the disk, alone;
/// with more of them that takes longer than it takes to wake a thread of the pool, and those copy
/// side by side.
const QUEUED_BYTES_MAX: u64 = 128 << 10;
/// Pause where the kernel refuses to be waited in.
const REFUSED_PAUSE: Duration = Duration::from_millis(10);

/// Tries whether this process can use io_uring.
///
/// # Errors
/// [`NoRing`]
pub fn probe() -> Result<(), NoRing> {
    open().map(drop)
}

fn open() -> Result<IoUring, NoRing> {
    let ring = IoUring::new(ENTRIES)?;
    if ring.params().is_feature_ext_arg() {
        Ok(ring)
    } else {
        Err(NoRing::Old)
    }
}

/// A request that the kernel has.
struct Flying {
    request: Request,
    /// The kernel reads or writes it until the request is complete.
    memory: Aligned,
}

/// A ring, and the pool beside it.
pub(in crate::disk) struct Ring {
    ring: IoUring,
    target: Target,
    /// By the numbers of the requests.
    flying: BTreeMap<u64, Flying>,
    ready: VecDeque<Carried>,
    pool: Pool,
    pooled: Receiver<Carried>,
    bell: Arc<Bell>,
    hears_bell: bool,
    told: Seldom,
}

impl Ring {
    /// Opens a ring, and starts the threads of its pool, which have this name.
    ///
    /// # Errors
    /// [`NoRing`]
    pub fn start(thread: &str, target: &Target) -> Result<Self, NoRing> {
        let ring = open()?;
        let bell = Bell::new().map_err(NoRing::Other)?;
        let (report, pooled) = unbounded();
        let ringing = bell.clone();
        let report = move |outcome| {
            // Nobody takes it where the machine is over.
            let _ = report.send(outcome);
            ringing.ring();
        };
        let pool = Pool::start(thread, target, report).map_err(NoRing::Other)?;
        Ok(Self {
            ring,
            target: target.clone(),
            flying: BTreeMap::new(),
            ready: VecDeque::new(),
            pool,
            pooled,
            bell,
            hears_bell: false,
            told: Seldom::default(),
        })
    }

    /// Queues `request` for the kernel, or gives it back.
    fn queue(&mut self, request: Request) -> Result<(), Request> {
        let length_bytes = request
            .operation
            .range()
            .map_or(0, |range| range.end - range.start);
        if length_bytes > QUEUED_BYTES_MAX {
            return Err(request);
        }
        let Some(raw) = self.target.whole(&request.operation) else {
            return Err(request);
        };
        let number = request.number;
        let mut memory = match &request.operation {
            Operation::Read { length_bytes, .. } => {
                Aligned::zeroed(*length_bytes as usize, raw.memory_align_bytes)
            }
            Operation::Write { bytes, .. } => {
                let mut memory = Aligned::zeroed(bytes.len(), raw.memory_align_bytes);
                memory.bytes_mut().copy_from_slice(bytes);
                memory
            }
            Operation::Flush | Operation::Discard { .. } | Operation::WriteZeroes { .. } => {
                return Err(request);
            }
        };
        let file = Fd(raw.file.as_raw_fd());
        let length_bytes = memory.bytes().len() as u32;
        let start = memory.bytes_mut().as_mut_ptr();
        let entry = match &request.operation {
            Operation::Write { offset_bytes, .. } => opcode::Write::new(file, start, length_bytes)
                .offset(*offset_bytes)
                .build(),
            _ => opcode::Read::new(file, start, length_bytes)
                .offset(request.operation.range().unwrap_or_default().start)
                .build(),
        };
        // SAFETY: the memory has this length, does not move, and is kept in `flying` until its
        // completion was taken; without one it is never freed. The file is open as long as
        // `target` is, and the kernel takes a reference of its own when it takes the entry.
        let pushed = unsafe { self.ring.submission().push(&entry.user_data(number)) };
        if pushed.is_err() {
            return Err(request);
        }
        self.flying.insert(number, Flying { request, memory });
        Ok(())
    }

    /// Takes what the kernel has completed. True where there was something.
    fn reap(&mut self) -> bool {
        let completed: Vec<(u64, i32)> = self
            .ring
            .completion()
            .map(|completion| (completion.user_data(), completion.result()))
            .collect();
        for (number, result) in &completed {
            if *number == BELL {
                self.hears_bell = false;
                self.bell.silence();
            } else if let Some(flying) = self.flying.remove(number) {
                self.landed(flying, *result);
            }
        }
        !completed.is_empty()
    }

    fn landed(&mut self, flying: Flying, result: i32) {
        let Flying { request, memory } = flying;
        let outcome = match usize::try_from(result) {
            Ok(length) if length == memory.bytes().len() => Ok(match request.operation {
                Operation::Read { .. } => ReadData::Bytes(memory.bytes().to_vec()),
                _ => ReadData::Nothing,
            }),
            Ok(_short) => return self.pool.begin(request),
            Err(_) if [-libc::EINTR, -libc::EAGAIN].contains(&result) => return self.pool.begin(request),
            Err(_) => Err(io::Error::from_raw_os_error(result.saturating_neg())),
        };
        self.ready.push_back(Carried { request, outcome });
    }

    /// What has happened already.
    fn happened(&mut self, commands: &Receiver<Command>) -> Option<Happened> {
        if let Some(carried) = self.ready.pop_front() {
            return Some(Happened::Carried(carried));
        }
        if let Ok(carried) = self.pooled.try_recv() {
            return Some(Happened::Carried(carried));
        }
        match commands.try_recv() {
            Ok(command) => Some(Happened::Command(command)),
            Err(TryRecvError::Disconnected) => Some(Happened::Abandoned),
            Err(TryRecvError::Empty) => None,
        }
    }

    /// Has the bell complete something, unless it does already.
    fn hear_bell(&mut self) {
        if self.hears_bell {
            return;
        }
        let poll = opcode::PollAdd::new(Fd(self.bell.descriptor()), libc::POLLIN as u32).build();
        // SAFETY: it has no memory, and the kernel keeps the descriptor's file while it polls it.
        let pushed = unsafe { self.ring.submission().push(&poll.user_data(BELL)) };
        self.hears_bell = pushed.is_ok();
    }

    /// Gives the kernel what is queued, and waits for what happens first.
    fn sleep(&mut self, commands: &Receiver<Command>, until: Option<Instant>) {
        self.hear_bell();
        let pooled = &self.pooled;
        let may_sleep = self.bell.may_sleep(|| commands.is_empty() && pooled.is_empty());
        let wanted = usize::from(may_sleep && self.hears_bell);
        let submitter = self.ring.submitter();
        let entered = match until {
            Some(until) => {
                let pause = Timespec::from(until.saturating_duration_since(Instant::now()));
                submitter.submit_with_args(wanted, &SubmitArgs::new().timespec(&pause))
            }
            None => submitter.submit_and_wait(wanted),
        };
        self.bell.wakes();
        let Err(why) = entered else { return };
        if matches!(why.raw_os_error(), Some(libc::ETIME | libc::EINTR)) {
            return;
        }
        if self.told.may(Instant::now()) {
            tracing::warn!("io_uring is not waited for, and is tried again: {why}");
        }
        std::thread::sleep(REFUSED_PAUSE);
    }
}

impl Carrier for Ring {
    fn begin(&mut self, request: Request) {
        if let Err(request) = self.queue(request) {
            self.pool.begin(request);
        }
    }

    fn clear(&mut self, reached: Reached) {
        self.pool.clear(reached);
    }

    fn wait(&mut self, commands: &Receiver<Command>, until: Option<Instant>) -> Happened {
        loop {
            self.reap();
            if let Some(happened) = self.happened(commands) {
                return happened;
            }
            if until.is_some_and(|until| until <= Instant::now()) {
                return Happened::Time;
            }
            self.sleep(commands, until);
        }
    }

    fn bell(&self) -> Option<Arc<Bell>> {
        Some(self.bell.clone())
    }
}

impl Drop for Ring {
    /// Memory that the kernel still has is not given back: the kernel may write to it. Nor is the
    /// lock on the image, which then ends with the process and its last request: nobody else is to
    /// write before those.
    fn drop(&mut self) {
        if !self.flying.is_empty() {
            std::mem::forget(self.target.clone());
        }
        for flying in std::mem::take(&mut self.flying).into_values() {
            std::mem::forget(flying.memory);
        }
    }
}
