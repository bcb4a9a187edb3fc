//! `lockstep switchover NAME`: asks the holder of a machine, by the store, to hand it over to its
//! backup, and waits until that holds it and is protected.

use super::machines::{Condition, Found, STORE_LIMIT, StoreArguments, answer, look, named};
use crate::printing::print_text;
use crate::status::{CommandError, Status};
use lockstep_host::pair::identity::process;
use lockstep_host::pair::{storage, terms};
use lockstep_process::signals::Signals;
use lockstep_shared_disk::{Claim, Line, MachineName, MachineStore, Store, Switchover};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Pause between two looks into the store.
const LOOK_PAUSE: Duration = Duration::from_millis(100);

/// Looks at a machine that is protected, until its holder names its backup. It asks the store for
/// it once a second, and writes what it knows once a second: with a second more, 3 s.
const NAMED_LOOKS_MAX: u32 = 30;

/// Time for taking a request back when a signal has come: the process is ended a little later.
const STOP_LIMIT: Duration = Duration::from_millis(500);

/// Machine that is to be switched over, and the time that this may take.
#[derive(Clone, Debug, clap::Args)]
pub struct SwitchoverArguments {
    /// Name of the machine
    pub name: String,
    /// Store to look into, and output format
    #[command(flatten)]
    pub store: StoreArguments,
    /// Seconds that it may take, until the machine is protected again
    #[arg(long, value_name = "SECONDS", default_value_t = 120, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    pub timeout: u64,
    /// End when the backup holds the machine: do not wait until it is protected again
    #[arg(long)]
    pub no_wait: bool,
}

/// A machine that is being switched over.
struct Asking<'a> {
    store: &'a dyn Store,
    machine: Arc<dyn MachineStore>,
    name: &'a MachineName,
    /// The claim of who is asked.
    holder: Claim,
    deadline: Instant,
    limit: Duration,
}

/// Asks for a switchover, and waits for it.
///
/// # Errors
/// A setting's, where the store cannot be used, or does not know the machine;
/// [`CommandError::Switchover`]: it is not made, or the machine is not protected after it.
pub async fn switchover(
    arguments: &SwitchoverArguments,
    signals: &mut Signals,
) -> Result<Status, CommandError> {
    let name = named(&arguments.name)?;
    let store = storage::at(&arguments.store.shared_directory);
    let limit = Duration::from_secs(arguments.timeout);
    let found = switched_over(&*store, &name, limit, arguments.no_wait, signals.received()).await?;
    let text = if arguments.store.json {
        format!("{}\n", found.to_json())
    } else {
        found.text()
    };
    print_text(&text, Status::Success)
}

async fn switched_over(
    store: &dyn Store,
    name: &MachineName,
    limit: Duration,
    no_wait: bool,
    stopped: impl Future<Output = ()>,
) -> Result<Found, CommandError> {
    let mut stopped = pin!(stopped);
    let found = tokio::select! {
        found = look(store, name) => found?,
        () = &mut stopped => return Err(not(name, "a signal has stopped this, and nobody was asked")),
    };
    let Some(holder) = found.claim.clone().filter(|_| found.protected()) else {
        let why = found.why_not().unwrap_or_default();
        return Err(not(name, why));
    };
    let Some(machine) = answer(store, store.find(name)).await? else {
        return Err(not(name, "it is not in the shared directory any more"));
    };
    let asking = Asking {
        store,
        machine,
        name,
        holder,
        deadline: Instant::now() + limit,
        limit,
    };
    asking.ask().await?;
    let claim = tokio::select! {
        claim = asking.taken_over() => claim?,
        () = &mut stopped => return Err(asking.stopped().await),
    };
    tracing::info!(
        "{name}: {} holds it, in generation {}",
        claim.party,
        claim.generation
    );
    tokio::select! {
        found = asking.settled(&claim, no_wait) => found,
        () = &mut stopped => Err(asking.unprotected(&claim, "a signal has ended the wait for that")),
    }
}

fn not(name: &MachineName, why: impl Into<String>) -> CommandError {
    CommandError::Switchover {
        name: name.to_string(),
        why: why.into(),
    }
}

impl Asking<'_> {
    fn not(&self, why: impl Into<String>) -> CommandError {
        not(self.name, why)
    }

    fn is_late(&self) -> bool {
        Instant::now() >= self.deadline
    }

    /// Puts the request where the holder looks.
    async fn ask(&self) -> Result<(), CommandError> {
        let Claim {
            generation, party, ..
        } = &self.holder;
        let own = process::own(terms::fresh_name()?, "switchover");
        let asked = Switchover {
            generation: *generation,
            id: own.id,
            by: Line::shortened(&format!("host {}, process {}", own.host, own.process.id)),
            at_unix_s: own.written_unix_s,
        };
        let first = answer(self.store, self.machine.ask_switchover(&asked)).await?;
        if first.id != asked.id {
            let why = format!("another switchover is under way, asked for by {}", first.by);
            return Err(self.not(why));
        }
        let name = self.name;
        tracing::info!("{name}: {party} is asked to hand over generation {generation}");
        Ok(())
    }

    /// Waits until the next generation is held.
    async fn taken_over(&self) -> Result<Claim, CommandError> {
        loop {
            if let Some(claim) = self.next_claim().await? {
                return self.checked(claim);
            }
            let generation = self.holder.generation;
            if let Some(ended) = answer(self.store, self.machine.ended(generation)).await? {
                return Err(self.not(format!("it has ended: {}", ended.how)));
            }
            if answer(self.store, self.machine.switchover(generation))
                .await?
                .is_none()
            {
                // The next holder removes it too.
                return match self.next_claim().await? {
                    Some(claim) => self.checked(claim),
                    None => Err(self.not(format!(
                        "its holder, {}, has lost its backup, and nobody can take over",
                        self.holder.party
                    ))),
                };
            }
            if self.is_late() {
                return Err(self.give_up().await);
            }
            sleep(LOOK_PAUSE).await;
        }
    }

    /// The newest claim, where it is later than that of the side that was asked.
    async fn next_claim(&self) -> Result<Option<Claim>, CommandError> {
        let newest = answer(self.store, self.machine.newest()).await?;
        Ok(newest.filter(|claim| claim.generation > self.holder.generation))
    }

    fn checked(&self, claim: Claim) -> Result<Claim, CommandError> {
        let generation = claim.generation;
        if claim.party.id == self.holder.party.id {
            return Err(self.not(format!(
                "its holder, {}, has lost its backup meanwhile, and goes on alone in generation {generation}",
                claim.party
            )));
        }
        if claim.machine != self.holder.machine {
            let why = format!("{} has begun it afresh in generation {generation}", claim.party);
            return Err(self.not(why));
        }
        Ok(claim)
    }

    /// Takes the request back, and says where it could not. A holder that has found it may still
    /// carry it out, and forgets it otherwise.
    async fn take_back(&self, limit: Duration) -> &'static str {
        let removed = self.machine.remove_switchover(self.holder.generation);
        match tokio::time::timeout(limit, removed).await {
            Ok(Ok(())) => "",
            _ => ", and the request could not be taken back",
        }
    }

    /// A signal has come.
    async fn stopped(&self) -> CommandError {
        let left = self.take_back(STOP_LIMIT).await;
        self.not(format!("a signal has stopped this{left}"))
    }

    /// The time is over.
    async fn give_up(&self) -> CommandError {
        let Claim {
            generation, party, ..
        } = &self.holder;
        let left = self.take_back(STORE_LIMIT).await;
        let is = if process::is_dead(party) {
            "is dead"
        } else {
            "has not handed it over"
        };
        let seconds = self.limit.as_secs();
        self.not(format!(
            "its holder in generation {generation}, {party}, {is} within {seconds} s{left}"
        ))
    }

    /// Waits until the machine is protected by the side that holds it now.
    async fn settled(&self, claim: &Claim, no_wait: bool) -> Result<Found, CommandError> {
        let mut told = None;
        let mut protected = 0;
        loop {
            let found = look(self.store, self.name).await?;
            let later = found
                .claim
                .as_ref()
                .filter(|found| found.generation != claim.generation);
            if let Some(later) = later {
                let why = format!(
                    "generation {} was held by {}, and generation {} is held by {} since then",
                    claim.generation, claim.party, later.generation, later.party
                );
                return Err(self.unprotected(claim, &why));
            }
            protected += u32::from(found.protected());
            let named = found.names_its_backup() || protected >= NAMED_LOOKS_MAX;
            if no_wait || found.protected() && named {
                return Ok(found);
            }
            let why = found.why_not().unwrap_or_default();
            if matches!(found.condition, Condition::Dead | Condition::Ended)
                || self.is_late() && !found.protected()
            {
                return Err(self.unprotected(claim, &why));
            }
            if told.as_ref() != Some(&why) && !found.protected() {
                tracing::info!("{}: not protected yet: {why}", self.name);
                told = Some(why);
            }
            sleep(LOOK_PAUSE).await;
        }
    }

    fn unprotected(&self, claim: &Claim, why: &str) -> CommandError {
        CommandError::Unprotected {
            name: self.name.to_string(),
            holder: claim.party.to_string(),
            why: why.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests;
