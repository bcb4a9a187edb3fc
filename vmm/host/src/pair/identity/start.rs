//! A side that starts: it looks into the store until it holds the machine, or can join its holder.

use super::process;
use super::{Identity, SECOND, TELL_INTERVAL, repeat};
use crate::disk::Images;
use crate::error::RunError;
use crate::pair::listening::Listening;
use crate::pair::ownership;
use crate::pair::stop_point::{Step, pass};
use crate::pair::storage::{LOOK_PAUSE, patiently};
use crate::pair::terms::fresh_name;
use lockstep_logging_channel::transport::Address;
use lockstep_shared_disk::decision::{self, Decision, Reading, Refusal, Sighting, Starter, Waiting};
use lockstep_shared_disk::{Asked, Claim, MachineId, MachineName, Party, Verdict};
use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::sync::Arc;
use tokio::time::{Instant, sleep};

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

impl Identity {
    /// Begins to look for what to do.
    #[must_use]
    pub fn start(&self, wish: Wish) -> Start {
        Start {
            starter: Starter::new(self.party.id, wish == Wish::Anything { afresh: true }),
            listening: Listening::default(),
            images: Arc::default(),
            wish,
            nobody: false,
            forgetting: BTreeSet::new(),
            identity: self.clone(),
            since: Instant::now(),
            told: None,
            complained: None,
        }
    }
}

/// A side that starts, and has not found what to do.
pub struct Start {
    listening: Listening,
    images: Arc<Images>,
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

    /// The same, which claims only where the machine may begin from these images.
    #[must_use]
    pub fn with_images(self, images: Arc<Images>) -> Self {
        Self { images, ..self }
    }

    /// Refuses to begin a machine from an image that may not be the newest.
    async fn may_begin(&self) -> Result<(), RunError> {
        if self.images.written().next().is_none() {
            return Ok(());
        }
        let Identity {
            machine,
            place,
            patience,
            name,
            ..
        } = &self.identity;
        let newest = patiently(place, *patience, || machine.newest()).await?;
        let ended = match &newest {
            Some(claim) => patiently(place, *patience, || machine.ended(claim.generation)).await?,
            None => None,
        };
        ownership::may_begin(&self.images, name, newest.as_ref(), ended.is_some())
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
                    self.may_begin().await?;
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
