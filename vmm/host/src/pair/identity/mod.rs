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

use super::listening::Listening;
use super::stop_point::{Step, pass};
use super::storage::{self, LOOK_PAUSE, patiently};
use super::terms::fresh_name;
use crate::error::RunError;
use lockstep_logging_channel::Generation;
use lockstep_logging_channel::transport::Address;
use lockstep_shared_disk::decision::{self, Decision, Reading, Refusal, Sighting, Starter, Waiting};
use lockstep_shared_disk::{
    Asked, Backup, Claim, Ended, Line, MachineId, MachineName, MachineStore, Party, Seen, Store, Switchover,
    Verdict,
};
use published::Published;
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

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

/// Wish of the operator who starts a side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    /// To begin the machine, or to join its holder.
    Anything {
        /// To begin it in place of one that is gone for good.
        afresh: bool,
    },
    /// To join its holder.
    Join,
}

/// Role in which a side begins.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Begun {
    /// It has won this claim, and acts in its generation: alone, until it is joined.
    Holder(Claim),
    /// It can join the holder of this claim.
    Newcomer {
        /// The holder's claim.
        holder: Claim,
        /// Its signs of life.
        sighting: Sighting,
    },
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

    /// Begins to look for what to do.
    #[must_use]
    pub fn start(&self, wish: Wish) -> Start {
        Start {
            starter: Starter::new(self.party.id, wish == Wish::Anything { afresh: true }),
            listening: Listening::default(),
            wish,
            nobody: false,
            forgetting: BTreeSet::new(),
            identity: self.clone(),
            since: Instant::now(),
            told: None,
            complained: None,
        }
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

/// A side that starts, and has not found what to do.
pub struct Start {
    listening: Listening,
    identity: Identity,
    starter: Starter,
    wish: Wish,
    /// It was said that nobody holds the machine.
    nobody: bool,
    /// Earlier lives of this process that the store is told to forget: at most as many as it gives.
    forgetting: BTreeSet<[u8; 16]>,
    since: Instant,
    told: Option<Waiting>,
    complained: Option<Instant>,
}

impl Start {
    /// The same, which claims only where it can be joined: at the address of `--channel`, if there
    /// is one.
    #[must_use]
    pub fn listening_at(self, channel: Option<&Address>) -> Self {
        Self {
            listening: Listening::at(channel),
            ..self
        }
    }

    /// Looks into the store until there is something to do: a claim is won, or a holder can be
    /// joined. To be called again when that holder does not answer, or is lost before this side is
    /// armed.
    ///
    /// # Errors
    /// [`RunError::Setting`]: the store cannot be used, says two things, or the holder that was
    /// to be replaced is alive.
    pub async fn begin(&mut self) -> Result<Begun, RunError> {
        loop {
            match self.look().await? {
                Decision::Claim { .. } if self.wish == Wish::Join => self.nobody_holds().await?,
                Decision::Claim { .. } if !self.listening.is_possible().await? => sleep(LOOK_PAUSE).await,
                Decision::Claim { generation, machine } => {
                    let machine = match machine {
                        Some(machine) => machine,
                        None => MachineId(fresh_name()?),
                    };
                    let claim = self.identity.claim(generation, machine);
                    if self.claimed(&claim).await? {
                        return Ok(Begun::Holder(claim));
                    }
                }
                Decision::Join { holder, sighting } => return Ok(Begun::Newcomer { holder, sighting }),
                Decision::Wait(waiting) => {
                    if self.told.as_ref() != Some(&waiting) {
                        tracing::info!("{}: {waiting}", self.identity.name);
                        self.told = Some(waiting);
                    }
                    sleep(LOOK_PAUSE).await;
                }
                Decision::Refuse(why) => return Err(refused(&self.identity.name, &why)),
            }
        }
    }

    /// A side that only joins waits for a holder, for as long as it waits for the store.
    async fn nobody_holds(&mut self) -> Result<(), RunError> {
        let Identity { name, patience, .. } = &self.identity;
        if self.since.elapsed() >= *patience {
            let why = format!(
                "nobody holds {name}, and this side begins no machine: `lockstep primary` and `lockstep replica` do"
            );
            return Err(RunError::setting("name", why));
        }
        if !std::mem::replace(&mut self.nobody, true) {
            tracing::info!("nobody holds {name} yet: waiting for {} s", patience.as_secs());
        }
        sleep(LOOK_PAUSE).await;
        Ok(())
    }

    /// Says, at most every 10 s, that the holder is busy.
    pub fn busy(&mut self, holder: &Claim) {
        if self.is_to_complain() {
            tracing::info!(
                "{}: generation {} is held by {}, which another newcomer is joining: this side waits for its turn",
                self.identity.name,
                holder.generation,
                holder.party
            );
        }
    }

    /// Says, at most every 10 s, that the holder was not joined: `what` it does instead.
    pub fn not_joined(&mut self, holder: &Claim, sighting: Sighting, what: &str) {
        if self.is_to_complain() {
            let seen = match sighting {
                Sighting::Alive => "it gives signs of life in the store".to_owned(),
                Sighting::Silent { for_ns } => {
                    format!(
                        "no sign of life from it has been seen for {} s",
                        for_ns / 1_000_000_000
                    )
                }
            };
            tracing::warn!(
                "{}: generation {} is held by {}, which {what}, and {seen}: trying again. \
                 If it is gone for good, --afresh begins a new machine",
                self.identity.name,
                holder.generation,
                holder.party,
            );
        }
    }

    fn is_to_complain(&mut self) -> bool {
        let due = self.complained.is_none_or(|at| at.elapsed() >= TELL_INTERVAL);
        if due {
            self.complained = Some(Instant::now());
        }
        due
    }

    async fn look(&mut self) -> Result<Decision, RunError> {
        let Identity {
            machine,
            place,
            patience,
            ..
        } = &self.identity;
        let read = || {
            let machine = machine.clone();
            let reading = async move { decision::read(&*machine, &process::is_dead).await };
            Box::pin(reading) as Asked<Reading>
        };
        let mut reading = patiently(place, *patience, read).await?;
        pass(Step::Looked);
        self.forget_earlier_lives(&mut reading);
        let now_ns = u64::try_from(self.since.elapsed().as_nanos()).unwrap_or(u64::MAX);
        Ok(self.starter.decide(now_ns, &reading))
    }

    /// Newcomers that this process was before it began its program again are dead: the process that
    /// could have taken over as one of them is this one. Others see that it lives, and would wait
    /// for them: they are forgotten, for as long as the store takes for it.
    fn forget_earlier_lives(&mut self, reading: &mut Reading) {
        let own = &self.identity.party;
        for (backup, dead) in &mut reading.backups {
            let Party {
                id, boot, process, ..
            } = &backup.party;
            if (boot, process) != (&own.boot, &own.process) || *id == own.id || *dead {
                continue;
            }
            *dead = true;
            // Once: it is seen again until the store has forgotten it.
            if self.forgetting.insert(*id) {
                let (machine, generation, id) = (self.identity.machine.clone(), backup.generation, *id);
                let forgotten = |outcome: Result<(), _>| match outcome {
                    Ok(()) => ControlFlow::Break(()),
                    Err(_) => ControlFlow::Continue(()),
                };
                let ask = move || Some(machine.remove_backup(generation, id));
                tokio::spawn(repeat::repeat(SECOND, ask, forgotten));
            }
        }
    }

    async fn claimed(&self, claim: &Claim) -> Result<bool, RunError> {
        let Identity {
            machine,
            place,
            patience,
            ..
        } = &self.identity;
        pass(Step::BeforeBeginning);
        let verdict = patiently(place, *patience, || machine.claim(claim)).await?;
        pass(Step::AfterBeginning);
        if let Verdict::Lost { winner } = &verdict {
            tracing::info!("generation {} is {}'s", winner.generation, winner.party);
        }
        Ok(verdict == Verdict::Won)
    }
}

fn refused(name: &MachineName, why: &Refusal) -> RunError {
    let setting = match why {
        Refusal::HolderAlive { .. } => "afresh",
        Refusal::Contradiction { .. } => "shared-directory",
        Refusal::LastGeneration(_) => "name",
    };
    RunError::setting(setting, format!("{name}: {why}"))
}

#[cfg(test)]
mod tests;
