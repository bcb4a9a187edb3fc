//! Disks that are copied while their machine runs: what is written to them, and how they are made
//! to stand still.

use super::disks::Disks;
use super::executor::Changed;
use super::orders::{Command, Orders};
use crossbeam_channel::{Receiver, RecvTimeoutError, bounded};
use lockstep_core::replica::snapshot::DiskBlock;
use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

/// Time that disks have until nothing is under way and the guest has taken every completion.
const FREEZE_LIMIT: Duration = Duration::from_secs(5);
/// Between two looks whether the guest has taken them.
const LOOK: Duration = Duration::from_millis(1);

/// A watch over the disks of a machine. Dropped, the disks go on, and nobody watches.
#[derive(Debug)]
pub struct Watch {
    pub(super) disks: Disks,
    pub(super) watched: Vec<Watched>,
    pub(super) is_over: Arc<AtomicBool>,
}

#[derive(Debug)]
pub(super) struct Watched {
    pub place: u8,
    pub commands: Orders,
    pub changed: Changed,
}

impl Watch {
    /// Takes the blocks that were written since the last time, by the places of their disks.
    #[must_use]
    pub fn take(&self) -> Vec<(u8, BTreeSet<u64>)> {
        let watched = self.watched.iter();
        watched
            .map(|watched| (watched.place, watched.changed.take()))
            .collect()
    }

    /// The same, as blocks of a snapshot.
    #[must_use]
    pub fn take_blocks(&self) -> Vec<DiskBlock> {
        let all = self.take().into_iter();
        let blocks = all.flat_map(|(disk, blocks)| {
            let blocks = blocks.into_iter();
            blocks.map(move |block| DiskBlock { disk, block })
        });
        blocks.collect()
    }

    /// Carries nothing more out, and waits until the machine knows of everything that was: from then
    /// on the images have what is complete in the machine, and nothing else. False where that takes
    /// too long or the machine is over, and the disks go on.
    #[must_use]
    pub fn freeze(&self) -> bool {
        let until = Instant::now() + FREEZE_LIMIT;
        let asked: Vec<Receiver<()>> = self
            .watched
            .iter()
            .map(|watched| {
                let (quiet, is_quiet) = bounded(1);
                let _ = watched.commands.send(Command::Freeze { quiet });
                is_quiet
            })
            .collect();
        let is_quiet = asked.iter().all(|quiet| quiet.recv_deadline(until).is_ok());
        while is_quiet && !self.is_over() && Instant::now() < until {
            if self.disks.are_quiet() {
                return true;
            }
            sleep(LOOK);
        }
        self.thaw();
        false
    }

    /// True once the disks finish, because their machine is over: they may have gone on without
    /// having been thawed.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    /// Waits until everything is carried out that the machine has asked for. Between two looks `obey`
    /// says whether to go on.
    ///
    /// # Errors
    /// Those of `obey`.
    pub fn settle<E>(&self, mut obey: impl FnMut() -> Result<(), E>) -> Result<(), E> {
        for watched in &self.watched {
            let (settled, is_settled) = bounded(1);
            let _ = watched.commands.send(Command::Settle { settled });
            // A thread that is gone carries nothing out.
            while let Err(RecvTimeoutError::Timeout) = is_settled.recv_timeout(LOOK) {
                obey()?;
            }
        }
        Ok(())
    }

    /// The disks go on.
    pub fn thaw(&self) {
        for watched in &self.watched {
            let _ = watched.commands.send(Command::Thaw);
        }
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.thaw();
        for watched in &self.watched {
            watched.changed.watch(false);
        }
    }
}
