//! `lockstep replica`: the store says what a start comes to.
//!
//! ```text
//!   look into the store ---> the claim is won -----> the machine begins here: alone, or when its backup is there
//!        ^       |
//!        |       +---------> a holder -> connect, compare, receive ---> this side joins
//!        |                                  |                             |
//!        +---- it does not answer, or is lost -----+      lost before it is armed: the program begins again
//! ```

use super::begin::{Meeting, Met};
use super::holding::Holding;
use super::identity::published::Published;
use super::identity::{Begun, Identity, LOOK_PAUSE};
use super::launch::Beginning;
use super::meeting::{look_for_primary, unless_stopped, wait_for_backup};
use super::receiving::NotReceived;
use super::report::Reporter;
use super::stop_point::{Step, pass};
use crate::error::RunError;
use crate::outside::Signals;
use lockstep_logging_channel::Generation;
use lockstep_logging_channel::transport::Address;
use lockstep_process::console;
use lockstep_process::writing::standard;
use lockstep_shared_disk::Claim;
use lockstep_shared_disk::decision::Sighting;
use serde_json::json;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::Duration;

/// Time that a holder has for its answer before the store is looked at again: longer than its
/// reception needs for another who comes at the same time.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// A side that has lost what it was joining gives the store so long to forget it.
const FORGET_LIMIT: Duration = Duration::from_millis(500);

/// A replica of a named machine, which has not found what to do.
pub(super) struct Of<'a> {
    pub meeting: &'a Meeting<'a>,
    /// Address at which it can be joined.
    pub listens: &'a Address,
    /// The operator wants a new machine.
    pub afresh: bool,
}

/// Why a holder was not joined.
enum NotJoined {
    /// It may be joined later, or another one.
    Yet(String),
    /// Never.
    Ever(RunError),
}

impl Of<'_> {
    /// Looks until there is something to begin with; `None` when a signal came first.
    pub async fn meet(
        &self,
        mut stand_by: impl FnMut([u8; 16]),
        reporter: &mut Reporter,
        signals: &mut Signals,
    ) -> Result<Option<Met>, RunError> {
        let named = named(self.meeting)?;
        let mut start = named.start(self.afresh);
        let mut told = false;
        let mut unanswered: Option<(Generation, String)> = None;
        loop {
            let Some(begun) = unless_stopped(start.begin(), signals).await? else {
                return Ok(None);
            };
            let (holder, sighting) = match begun {
                Begun::Holder(claim) => return self.hold(named, &claim, reporter, signals).await,
                Begun::Newcomer { holder, sighting } => (holder, sighting),
            };
            // The store was read after the attempt: whoever holds the machine now is not blamed for
            // the one before.
            let again = unanswered.take_if(|(generation, _)| *generation == holder.generation);
            let joining = async {
                if let Some((_, why)) = again {
                    match sighting {
                        // A holder that gives no sign of life is not taken at its word.
                        Sighting::Alive if is_protected(named, &holder).await => {
                            if !std::mem::replace(&mut told, true) {
                                tracing::info!(
                                    "{} is protected in generation {}, held by {}: this side waits until it is needed",
                                    named.name(),
                                    holder.generation,
                                    holder.party
                                );
                            }
                        }
                        _ => {
                            told = false;
                            start.not_answered(&holder, sighting, &why);
                        }
                    }
                }
                match self.join(&holder, &mut stand_by, reporter).await {
                    Ok(met) => Ok(Some(met)),
                    Err(NotJoined::Ever(why)) => Err(why),
                    Err(NotJoined::Yet(why)) => {
                        unanswered = Some((holder.generation, why));
                        tokio::time::sleep(LOOK_PAUSE).await;
                        Ok(None)
                    }
                }
            };
            match unless_stopped(joining, signals).await? {
                None => return Ok(None),
                Some(Some(met)) => return Ok(Some(met)),
                Some(None) => {}
            }
        }
    }

    /// The machine begins here.
    async fn hold(
        &self,
        named: &Identity,
        claim: &Claim,
        reporter: &mut Reporter,
        signals: &mut Signals,
    ) -> Result<Option<Met>, RunError> {
        tracing::info!(
            generation = claim.generation.0,
            "the machine {} begins here",
            named.name()
        );
        if claim.generation > Generation::FIRST {
            tracing::warn!(
                "what ran in generation {} is gone, with its memory: this machine begins from the image",
                claim.generation.0 - 1
            );
        }
        reporter.event("begun", json!({ "generation": claim.generation.0 }));
        console::want();
        if self.meeting.configuration.pair.wait_for_backup {
            return wait(self.meeting, named, claim, self.listens, reporter, signals).await;
        }
        Ok(Some(Met {
            pair: claim.machine.0,
            generation: claim.generation,
            beginning: Beginning::Alone,
        }))
    }

    async fn join(
        &self,
        holder: &Claim,
        stand_by: &mut impl FnMut([u8; 16]),
        reporter: &mut Reporter,
    ) -> Result<Met, NotJoined> {
        let address = holder.party.address.as_ref().map(ToString::to_string);
        let address: Address = address
            .unwrap_or_default()
            .parse()
            .map_err(|why| NotJoined::Yet(format!("{why}")))?;
        let here = self.meeting.environment([0; 16]).map_err(NotJoined::Ever)?;
        let config = &self.meeting.settings.config;
        let found = look_for_primary(&address, &here, config, ANSWER_LIMIT)
            .await
            .map_err(|why| match why.may_pass() {
                true => NotJoined::Yet(why.to_string()),
                false => NotJoined::Ever(why.into()),
            })?;
        if found.environment.pair != holder.machine.0 {
            let why = format!("another machine answers on {address}");
            return Err(NotJoined::Yet(why));
        }
        tracing::info!(%address, "joining generation {}, held by {}", holder.generation, holder.party);
        let met = self.meeting.join(found, reporter).await;
        let met = met.map_err(|why| match why {
            NotReceived::Lost { why } => NotJoined::Yet(why),
            refused => NotJoined::Ever(refused.into()),
        })?;
        // Not before: a port of a switch belongs to one machine for its life, and this side may
        // still begin another.
        stand_by(met.pair);
        Ok(met)
    }
}

/// True where the holder has published that it has its backup: then it takes no other, and nothing
/// is wrong.
async fn is_protected(named: &Identity, holder: &Claim) -> bool {
    let seen = named.machine().seen(holder.generation);
    let seen = tokio::time::timeout(ANSWER_LIMIT, seen).await;
    let Ok(Ok(Some(seen))) = seen else { return false };
    Published::from_json(seen.status()).is_some_and(|published| published.protected)
}

fn named<'a>(meeting: &Meeting<'a>) -> Result<&'a Identity, RunError> {
    meeting.named.ok_or_else(no_name)
}

/// A replica was given no name.
pub(super) fn no_name() -> RunError {
    RunError::setting("name", "a replica finds its machine by it; see --help")
}

/// The claim of a machine that begins now, for a side that joins none.
///
/// # Errors
/// [`RunError::Setting`]: somebody holds it.
pub(super) async fn begun(named: &Identity) -> Result<Claim, RunError> {
    match named.start(false).begin().await? {
        Begun::Holder(claim) => Ok(claim),
        Begun::Newcomer { holder, .. } => {
            let why = format!(
                "{} is held in generation {} by {}: `lockstep replica --name {}` joins it",
                named.name(),
                holder.generation,
                holder.party,
                named.name()
            );
            Err(RunError::setting("name", why))
        }
    }
}

/// Waits for the backup of a machine that was claimed and has not begun. If none comes the machine
/// is at its end.
pub(super) async fn wait(
    meeting: &Meeting<'_>,
    named: &Identity,
    claim: &Claim,
    listens: &Address,
    reporter: &mut Reporter,
    signals: &mut Signals,
) -> Result<Option<Met>, RunError> {
    let mut holding = Holding::new(named.clone(), claim.machine);
    holding.hold(claim.generation);
    let config = lockstep_core::replica::role::Config {
        generation: claim.generation,
        ..meeting.settings.config
    };
    let environment = meeting.environment(claim.machine.0)?;
    let ready = async { Ok(()) };
    let met = wait_for_backup(listens, &environment, &config, ready, reporter, signals).await;
    if !matches!(met, Ok(Some(_))) {
        holding.ended("no backup came, and it has not begun").await;
    }
    Ok(met?.map(|(connection, ())| Met {
        pair: claim.machine.0,
        generation: claim.generation,
        beginning: Beginning::Primary(connection),
    }))
}

/// This side was recorded as a newcomer, and will never take over.
pub(super) async fn not_armed(named: &Identity, generation: Generation) {
    pass(Step::BeforeForget);
    let forgotten = named.machine().remove_backup(generation, named.party().id);
    let forgotten = tokio::time::timeout(FORGET_LIMIT, forgotten).await;
    pass(Step::AfterForget);
    match forgotten {
        Ok(Ok(())) => {}
        Ok(Err(why)) => tracing::debug!("this side is left in the store: {why}"),
        Err(_) => tracing::debug!("this side is left in the store: it is slow"),
    }
}

/// Begins this program again, with its arguments: what was received is of no use, and the store
/// says what to do. Comes back only with an error.
pub(super) fn look_again() -> RunError {
    tracing::info!("looking into the shared directory again");
    pass(Step::BeforeAgain);
    console::restore();
    standard::flush();
    let mut arguments = std::env::args_os();
    let name = arguments.next().unwrap_or_default();
    let why = Command::new("/proc/self/exe").arg0(name).args(arguments).exec();
    RunError::other("this program cannot be started again")(why)
}
