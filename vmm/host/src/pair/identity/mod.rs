//! A machine: what this side finds in the store when it starts, and what it keeps
//! there while it runs.
//!
//! ```text
//!   Identity::open -> Start::begin -> Begun::Holder:   keep_seen, watch, ended
//!                          ^       -> Begun::Newcomer: connect to the holder; record before it says that it has the state;
//!                          |                           when the holder does not answer, or is lost before this side is armed
//!                          +---------------------------+
//! ```

pub mod process;
pub mod published;
mod repeat;
pub mod start;

use super::ownership::Ownership;
use super::stop_point::{Step, pass};
use super::storage::{self, LOOK_PAUSE, patiently};
use super::terms::fresh_name;
use crate::disk::Images;
use crate::error::RunError;
use lockstep_logging_channel::Generation;
use lockstep_shared_disk::{
    Backup, Claim, Ended, Line, MachineId, MachineName, MachineStore, Party, Seen, Store, Switchover,
};
use published::Published;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::Instant;

/// Time between two signs of life, and between two looks for a later generation.
pub(super) const SECOND: Duration = Duration::from_secs(1);
/// Time between two lines about a holder that does not answer.
const TELL_INTERVAL: Duration = Duration::from_secs(10);

/// A machine in its store, and this side of it.
#[derive(Clone)]
pub struct Identity {
    machine: Arc<dyn MachineStore>,
    place: String,
    name: MachineName,
    party: Party,
    patience: Duration,
}

/// A task that ends when this is dropped.
pub struct Kept(JoinHandle<()>);

impl Drop for Kept {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Identity {
    /// Opens the machine's part of `store`. What may pass is tried again for `patience`, now and
    /// whenever this waits for the store.
    ///
    /// # Errors
    /// [`RunError::Setting`]: the store cannot be used.
    pub async fn open(
        store: &dyn Store,
        name: &MachineName,
        label: &str,
        patience: Duration,
    ) -> Result<Self, RunError> {
        pass(Step::BeforeFolder);
        let machine = storage::open(store, name, patience).await?;
        pass(Step::AfterFolder);
        Ok(Self {
            machine,
            place: store.place(),
            name: name.clone(),
            party: process::own(fresh_name()?, label),
            patience,
        })
    }

    /// The machine's part of `store`, for a side that only joins: it makes nothing there before a
    /// holder has.
    ///
    /// # Errors
    /// As [`Identity::open`].
    pub fn expect(
        store: &dyn Store,
        name: &MachineName,
        label: &str,
        patience: Duration,
    ) -> Result<Self, RunError> {
        Ok(Self {
            machine: store.expect(name),
            place: store.place(),
            name: name.clone(),
            party: process::own(fresh_name()?, label),
            patience,
        })
    }

    /// Forgets what this side has prepared, in so much time: it ends, or begins again as another.
    pub async fn forget_prepared(&self, limit: Duration) {
        let forgotten = self.machine.forget_prepared(self.party.id);
        match tokio::time::timeout(limit, forgotten).await {
            Ok(Ok(())) => {}
            Ok(Err(why)) => tracing::debug!("a prepared claim is left in the store: {why}"),
            Err(_) => tracing::debug!("a prepared claim is left in the store: it is slow"),
        }
    }

    /// The machine's name.
    #[must_use]
    pub fn name(&self) -> &MachineName {
        &self.name
    }

    /// This side.
    #[must_use]
    pub fn party(&self) -> &Party {
        &self.party
    }

    /// The machine's part of the store, for [`storage::Storage`].
    #[must_use]
    pub fn machine(&self) -> Arc<dyn MachineStore> {
        self.machine.clone()
    }

    /// Path of a socket for this side, in the machine's folder of the store, where it has one.
    #[must_use]
    pub fn socket(&self) -> Option<PathBuf> {
        let [a, b, c, d, ..] = self.party.id;
        let name = format!("channel-{:08x}", u32::from_be_bytes([a, b, c, d]));
        Some(self.machine.folder()?.join(name))
    }

    /// From now on this side's claims say that it can be joined at `address`.
    ///
    /// # Errors
    /// [`RunError::Setting`]: it cannot be written into a claim.
    pub fn joined_at(&mut self, address: &str) -> Result<(), RunError> {
        let line = Line::exact(address);
        self.party.address = Some(line.ok_or_else(|| {
            let why = "the address must be a line of at most 260 bytes without control characters";
            RunError::setting("channel", why)
        })?);
        Ok(())
    }

    /// This side's claim.
    #[must_use]
    pub fn claim(&self, generation: Generation, machine: MachineId) -> Claim {
        Claim {
            generation,
            machine,
            party: self.party.clone(),
        }
    }

    /// What this side writes beside the `images` of `machine`.
    #[must_use]
    pub fn ownership(&self, images: Arc<Images>, machine: MachineId) -> Ownership {
        Ownership::new(images, self.name.clone(), machine, self.party.clone())
    }

    /// `work`, unless a generation later than `generation` is won meanwhile: a holder that is gone
    /// may be waited for in vain while another one has its place.
    pub async fn unless_overtaken<T>(
        &self,
        generation: Generation,
        work: impl Future<Output = T>,
    ) -> Option<T> {
        let (_watching, mut later) = self.watch(generation, LOOK_PAUSE);
        tokio::select! {
            done = work => Some(done),
            Some(_) = later.recv() => None,
        }
    }

    /// Records this side with `generation`, durably: to be done before it says that it has the
    /// state.
    ///
    /// # Errors
    /// [`RunError::Setting`]: the store cannot be used. Nothing may be said to the holder.
    pub async fn record(&self, generation: Generation) -> Result<(), RunError> {
        let backup = Backup {
            generation,
            party: self.party.clone(),
        };
        pass(Step::BeforeRecord);
        let recorded = patiently(&self.place, self.patience, || self.machine.put_backup(&backup)).await;
        pass(Step::AfterRecord);
        recorded
    }

    /// Records the end of the machine: its guest has ended and everything has left, or its last
    /// side stops. Storage that is slower than `limit` has no record of it: then the next start
    /// needs proof of death, or the operator's word.
    pub async fn ended(&self, generation: Generation, machine: MachineId, how: &str, limit: Duration) {
        let ended = Ended {
            generation,
            machine,
            how: Line::shortened(how),
            at_unix_s: process::now_unix_s(),
        };
        pass(Step::BeforeEnded);
        let recorded = tokio::time::timeout(limit, self.machine.put_ended(&ended)).await;
        pass(Step::AfterEnded);
        match recorded {
            Ok(Ok(())) => {}
            Ok(Err(why)) => tracing::warn!("the store has no record of the machine's end: {why}"),
            Err(_) => tracing::warn!("the store has no record of the machine's end: it is slow"),
        }
    }

    /// Gives a sign of life in `generation` every second, with what is published at that time. The
    /// first one removes those of earlier generations: `first` is done before.
    #[must_use]
    pub fn keep_seen(
        &self,
        first: impl Future<Output = ()> + Send + 'static,
        generation: Generation,
        published: watch::Receiver<Published>,
    ) -> Kept {
        let (machine, id, mut counter) = (self.machine.clone(), self.party.id, 0);
        let mut told: Option<Instant> = None;
        let ask = move || {
            pass(Step::BeforeSeen);
            counter += 1;
            let status = published.borrow().to_json();
            let seen = Seen::new(generation, id, counter, &status)
                .or_else(|| Seen::new(generation, id, counter, "{}"));
            Some(machine.put_seen(&seen?))
        };
        let answered = move |put: Result<(), _>| {
            pass(Step::AfterSeen);
            if let Err(why) = put
                && told.is_none_or(|at| at.elapsed() >= TELL_INTERVAL)
            {
                told = Some(Instant::now());
                tracing::warn!("no sign of life in the store: {why}");
            }
            ControlFlow::Continue(())
        };
        Kept(tokio::spawn(async move {
            first.await;
            repeat::repeat(SECOND, ask, answered).await;
        }))
    }

    /// Looks every `interval` for a generation later than `generation`, and sends the first that it
    /// finds.
    #[must_use]
    pub fn watch(&self, generation: Generation, interval: Duration) -> (Kept, mpsc::Receiver<Generation>) {
        let machine = self.machine.clone();
        let (later, receiver) = mpsc::channel(1);
        let answered = move |newest: Result<Option<Claim>, _>| match newest {
            Ok(Some(claim)) if claim.generation > generation => {
                // It is the only message, and there is room for one.
                let _ = later.try_send(claim.generation);
                ControlFlow::Break(())
            }
            _ => ControlFlow::Continue(()),
        };
        let task = repeat::repeat(interval, move || Some(machine.newest()), answered);
        (Kept(tokio::spawn(task)), receiver)
    }

    /// Looks every second for a request to hand over what is held in `generation`, and sends it for
    /// as long as it is there.
    #[must_use]
    pub fn watch_requests(&self, generation: Generation) -> (Kept, mpsc::Receiver<Switchover>) {
        let machine = self.machine.clone();
        let (asked, receiver) = mpsc::channel(1);
        let answered = move |found: Result<Option<Switchover>, _>| {
            if let Ok(Some(found)) = found {
                // One that waits to be taken is as good as two.
                let _ = asked.try_send(found);
            }
            ControlFlow::Continue(())
        };
        let ask = move || Some(machine.switchover(generation));
        (
            Kept(tokio::spawn(repeat::repeat(SECOND, ask, answered))),
            receiver,
        )
    }
}

#[cfg(test)]
mod tests;
