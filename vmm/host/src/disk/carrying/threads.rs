//! Threads that carry requests out with calls that block.

use super::bell::Bell;
use super::carrier::{Carried, Carrier, Happened};
use crate::disk::changes::Reached;
use crate::disk::orders::Command;
use crate::disk::target::Target;
use crossbeam_channel::{Receiver, Sender, after, never, select, unbounded};
use lockstep_core::machine::disk::Request;
use std::io;
use std::sync::Arc;
use std::thread::Builder;
use std::time::Instant;

/// Requests that are carried out at the same time. More do not make a disk faster that has a queue
/// of its own, and each is a thread.
pub const WORKERS: usize = 4;

/// Work that may block.
enum Job {
    CarryOut(Request),
    Clear(Reached),
}

/// Threads, which end when this is dropped.
pub(super) struct Pool {
    jobs: Sender<Job>,
}

impl Pool {
    /// Starts threads of this name, which give each outcome to `report`.
    ///
    /// # Errors
    /// The host starts none.
    pub fn start(
        thread: &str,
        target: &Target,
        report: impl Fn(Carried) + Clone + Send + 'static,
    ) -> io::Result<Self> {
        // At most as many jobs as requests are known, and those are bounded by their disk's device.
        let (jobs, to_do) = unbounded::<Job>();
        for _ in 0..WORKERS {
            let (to_do, report, target) = (to_do.clone(), report.clone(), target.clone());
            let work = move || {
                for job in to_do {
                    match job {
                        Job::CarryOut(request) => {
                            let outcome = target.carry_out(&request);
                            report(Carried { request, outcome });
                        }
                        Job::Clear(reached) => target.clear(reached),
                    }
                }
            };
            Builder::new().name(format!("{thread}-io")).spawn(work)?;
        }
        Ok(Self { jobs })
    }

    /// Has one of them carry `request` out.
    pub fn begin(&self, request: Request) {
        // They end with this only.
        let _ = self.jobs.send(Job::CarryOut(request));
    }

    /// Has one of them clear marks.
    pub fn clear(&self, reached: Reached) {
        let _ = self.jobs.send(Job::Clear(reached));
    }
}

/// Threads alone.
pub(in crate::disk) struct Threads {
    pool: Pool,
    carried: Receiver<Carried>,
}

impl Threads {
    /// Starts threads of this name.
    ///
    /// # Errors
    /// The host starts none.
    pub fn start(thread: &str, target: &Target) -> io::Result<Self> {
        let (report, carried) = unbounded();
        let report = move |outcome| {
            // Nobody takes it where the machine is over.
            let _ = report.send(outcome);
        };
        let pool = Pool::start(thread, target, report)?;
        Ok(Self { pool, carried })
    }
}

impl Carrier for Threads {
    fn begin(&mut self, request: Request) {
        self.pool.begin(request);
    }

    fn clear(&mut self, reached: Reached) {
        self.pool.clear(reached);
    }

    fn wait(&mut self, commands: &Receiver<Command>, until: Option<Instant>) -> Happened {
        let timer = match until {
            Some(until) => after(until.saturating_duration_since(Instant::now())),
            None => never(),
        };
        select! {
            recv(commands) -> command => command.map_or(Happened::Abandoned, Happened::Command),
            // A worker reports until this is dropped.
            recv(self.carried) -> carried => carried.map_or(Happened::Abandoned, Happened::Carried),
            recv(timer) -> _ => Happened::Time,
        }
    }

    fn bell(&self) -> Option<Arc<Bell>> {
        None
    }
}
