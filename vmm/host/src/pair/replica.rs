//! `lockstep replica`: the store says what a start comes to.
//!
//! ```text
//!   look into the store ---> the claim is won -----> the machine begins here: alone, or when its backup is there
//!        ^       |
//!        |       +---------> a holder -> connect, compare, receive ---> this side joins
//!        |                                  |                             |
//!        +---- it does not answer, or is lost -----+      lost before it is armed: the program begins again
//! ```

use super::copying::Giving;
use super::follows::Follows;
use super::holding::Holding;
use super::identity::Identity;
use super::identity::published::Published;
use super::identity::start::{Begun, Start, Wish};
use super::launch::Beginning;
use super::meeting::{Meeting, Met, NotFound, look_for_primary, wait_for_backup};
use super::receiving::NotReceived;
use super::report::Reporter;
use super::stop_point::{Step, pass};
use super::storage::LOOK_PAUSE;
use super::terms::{NAME_FIELD, STORAGE_FIELD, fresh_name};
use crate::error::RunError;
use crate::outside::{Signals, unless_stopped};
use lockstep_core::replica::divergences::Counted;
use lockstep_logging_channel::Generation;
use lockstep_logging_channel::handshake::HandshakeError;
use lockstep_logging_channel::transport::{Address, Connection};
use lockstep_process::causes::with_causes;
use lockstep_process::console;
use lockstep_process::signals::replace_process;
use lockstep_process::status::Status;
use lockstep_process::writing::standard;
use lockstep_shared_disk::Claim;
use lockstep_shared_disk::decision::Sighting;
use serde_json::json;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::process::Command;
use std::time::{Duration, Instant};
use tokio::time::sleep;

/// Time that a holder has for its answer before the store is looked at again: longer than its
/// reception needs for another who comes at the same time.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// A side that has lost what it was joining gives the store so long to forget it.
const FORGET_LIMIT: Duration = Duration::from_millis(500);
/// Shortest rest of a newcomer that was lost, before it joins again.
const AGAIN_PAUSE_MIN: Duration = Duration::from_secs(1);
/// Longest rest: a machine that needs hours for a newcomer is not without one for hours.
const AGAIN_PAUSE_MAX: Duration = Duration::from_secs(60);

/// Reason why a holder was not joined.
enum NotJoined {
    /// It does not answer.
    Silent(String),
    /// It answers, and another newcomer is joining it.
    Busy,
    /// Something else answers at its address.
    Another(String),
    /// Somebody holds a later generation.
    Overtaken,
    /// It never will be.
    Ever(RunError),
}

/// Looks until there is something to begin with; `None` when a signal came first.
pub(super) async fn meet(
    meeting: &Meeting<'_>,
    mut start: Start,
    mut stand_by: impl FnMut([u8; 16]),
    reporter: &mut Reporter,
    signals: &mut Signals,
) -> Result<Option<Met>, RunError> {
    let mut told = false;
    let mut asked = false;
    let mut unanswered: Option<(Generation, NotJoined)> = None;
    loop {
        let Some(begun) = unless_stopped(start.begin(), signals).await? else {
            return Ok(None);
        };
        let (holder, sighting) = match begun {
            Begun::Holder(claim) => return hold(meeting, &claim, reporter, signals).await,
            Begun::Newcomer { holder, sighting } => (holder, sighting),
        };
        if !std::mem::replace(&mut asked, true) {
            let (name, generation) = (meeting.identity.name(), holder.generation);
            tracing::info!(
                "{name} is held in generation {generation} by {}: asking to join it",
                holder.party
            );
        }
        // The store was read after the attempt: whoever holds the machine now is not blamed for the
        // one before.
        let again = unanswered.take_if(|(generation, _)| *generation == holder.generation);
        let joining = async {
            if let Some((_, why)) = again {
                // A holder that gives no sign of life is not taken at its word.
                let protects = match sighting {
                    Sighting::Alive => protects(meeting.identity, &holder).await,
                    _ => None,
                };
                if let Some(published) = protects.as_ref() {
                    fits(meeting, published)?;
                }
                if protects.is_none() {
                    told = false;
                    complain(&mut start, &holder, sighting, why);
                } else if !std::mem::replace(&mut told, true) {
                    tracing::info!(
                        "{} is protected in generation {}, held by {}: this side waits until it is needed",
                        meeting.identity.name(),
                        holder.generation,
                        holder.party
                    );
                }
            }
            match join(meeting, &holder, &mut stand_by, reporter).await {
                Ok(met) => Ok(Some(met)),
                Err(NotJoined::Ever(why)) => Err(why),
                Err(NotJoined::Overtaken) => Ok(None),
                Err(why) => {
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

fn complain(start: &mut Start, holder: &Claim, sighting: Sighting, why: NotJoined) {
    match why {
        NotJoined::Busy => start.busy(holder),
        NotJoined::Silent(why) => start.not_joined(holder, sighting, &format!("does not answer ({why})")),
        NotJoined::Another(who) => start.not_joined(
            holder,
            sighting,
            &format!("cannot be joined ({who} answers at its address)"),
        ),
        NotJoined::Overtaken | NotJoined::Ever(_) => {}
    }
}

/// Begins the machine as its primary, which joins nobody, and waits for its backup.
///
/// # Errors
/// [`RunError::Setting`]: somebody holds it. `None` when a signal came first.
pub(super) async fn begin(
    meeting: &Meeting<'_>,
    reporter: &mut Reporter,
    signals: &mut Signals,
) -> Result<Option<Met>, RunError> {
    let identity = meeting.identity;
    let wish = Wish::Anything { afresh: false };
    let mut start = identity
        .start(wish)
        .listening_at(meeting.settings.address.as_ref())
        .with_images(meeting.plan.images().clone());
    match unless_stopped(start.begin(), signals).await? {
        None => Ok(None),
        Some(Begun::Holder(claim)) => {
            begins(identity, &claim, reporter);
            wait(meeting, &claim, reporter, signals).await
        }
        Some(Begun::Newcomer { holder, .. }) => {
            let name = identity.name();
            let why = format!(
                "{name} is held in generation {} by {}: `lockstep replica --name {name}` joins it; \
                 another machine needs a name of its own, by --name",
                holder.generation, holder.party,
            );
            Err(RunError::setting("name", why))
        }
    }
}

/// The machine begins here.
async fn hold(
    meeting: &Meeting<'_>,
    claim: &Claim,
    reporter: &mut Reporter,
    signals: &mut Signals,
) -> Result<Option<Met>, RunError> {
    begins(meeting.identity, claim, reporter);
    console::want();
    if meeting.configuration.pair.wait_for_backup {
        return wait(meeting, claim, reporter, signals).await;
    }
    Ok(Some(Met {
        pair: claim.machine.0,
        generation: claim.generation,
        follows_by: meeting.configuration.mode.first(),
        beginning: Beginning::Alone,
    }))
}

/// Says that the machine begins, and what is lost by that.
fn begins(identity: &Identity, claim: &Claim, reporter: &mut Reporter) {
    tracing::info!(
        generation = claim.generation.0,
        "the machine {} begins here",
        identity.name()
    );
    if claim.generation > Generation::FIRST {
        tracing::warn!(
            "what ran in generation {} is gone, with its memory: this machine begins from the image",
            claim.generation.0 - 1
        );
    }
    reporter.event("begun", json!({ "generation": claim.generation.0 }));
}

async fn join(
    meeting: &Meeting<'_>,
    holder: &Claim,
    stand_by: &mut impl FnMut([u8; 16]),
    reporter: &mut Reporter,
) -> Result<Met, NotJoined> {
    let address = holder.party.address.as_ref().map(ToString::to_string);
    let address: Address = address
        .unwrap_or_default()
        .parse()
        .map_err(|why| NotJoined::Silent(format!("{why}")))?;
    let here = meeting.environment([0; 16]).map_err(NotJoined::Ever)?;
    let config = &meeting.settings.config;
    let looking = look_for_primary(&address, &here, config, ANSWER_LIMIT);
    let found = meeting
        .identity
        .unless_overtaken(holder.generation, looking)
        .await;
    let found = found.ok_or(NotJoined::Overtaken)?.map_err(not_found)?;
    if found.environment.pair != holder.machine.0 {
        return Err(NotJoined::Another("another machine of this name".to_owned()));
    }
    let met = meeting.join(found, reporter).await;
    let met = met.map_err(|why| match why {
        NotReceived::Lost { why } => NotJoined::Silent(why),
        refused => NotJoined::Ever(refused.into()),
    })?;
    // Not before: a port of a switch belongs to one machine for its life, and this side may still
    // begin another.
    stand_by(met.pair);
    Ok(met)
}

/// Sorts out who answers at the address of a holder. A port may have been taken by another machine,
/// or by another program, while its holder could not listen on it.
fn not_found(why: NotFound) -> NotJoined {
    match &why {
        NotFound::Handshake(HandshakeError::Busy { .. }) => NotJoined::Busy,
        NotFound::Handshake(HandshakeError::Differs { field, primary, .. }) if field == NAME_FIELD => {
            let name = primary.as_deref().unwrap_or_default().escape_debug();
            NotJoined::Another(format!("the machine `{name}`"))
        }
        NotFound::Handshake(HandshakeError::Differs { field, .. }) if field == STORAGE_FIELD => {
            NotJoined::Another("a machine of another shared directory".to_owned())
        }
        NotFound::Handshake(HandshakeError::Foreign { .. }) => {
            NotJoined::Another("something that is not Lockstep".to_owned())
        }
        _ if why.may_pass() => NotJoined::Silent(why.to_string()),
        _ => NotJoined::Ever(why.into()),
    }
}

/// What the holder has published, where that is that it has its backup: then it takes no other, and
/// nothing is wrong.
async fn protects(identity: &Identity, holder: &Claim) -> Option<Published> {
    let seen = identity.machine().seen(holder.generation);
    let seen = tokio::time::timeout(ANSWER_LIMIT, seen).await;
    let Ok(Ok(Some(seen))) = seen else { return None };
    Published::from_json(seen.status()).filter(|published| published.protected)
}

/// Refuses a side that its holder would refuse once it has no other backup: it would wait in vain.
fn fits(meeting: &Meeting<'_>, published: &Published) -> Result<(), RunError> {
    let here = meeting.environment([0; 16])?;
    let Some((field, primary, backup)) = published.first_difference(&here) else {
        return Ok(());
    };
    Err(RunError::Peer(Box::new(HandshakeError::Differs {
        field,
        primary: Some(primary),
        backup,
    })))
}

/// Waits for the backup of a machine that was claimed and has not begun. If none comes the machine
/// is at its end.
async fn wait(
    meeting: &Meeting<'_>,
    claim: &Claim,
    reporter: &mut Reporter,
    signals: &mut Signals,
) -> Result<Option<Met>, RunError> {
    let mut holding = Holding::new(meeting.identity.clone(), claim.machine);
    let environment = meeting.environment(claim.machine.0)?;
    let mode = meeting.configuration.mode;
    let follows_by = mode.first();
    holding.compares(&environment);
    holding.follows(&Follows::begin(mode, follows_by, Counted::default()));
    holding.hold(claim.generation);
    let config = lockstep_core::replica::role::Config {
        generation: claim.generation,
        ..meeting.settings.config
    };
    let met = wait_for_backup(
        meeting.listens,
        &environment,
        &config,
        follows_by,
        reporter,
        signals,
    )
    .await;
    let met = match met {
        Ok(Some(connection)) => compare_disks(meeting, connection, claim.generation, signals).await,
        other => other,
    };
    if !matches!(met, Ok(Some(_))) {
        holding
            .ended(claim.generation, "no backup came, and it has not begun")
            .await;
    }
    Ok(met?.map(|connection| Met {
        pair: claim.machine.0,
        generation: claim.generation,
        follows_by,
        beginning: Beginning::Primary(connection),
    }))
}

/// Makes the disks of the backup those of this side, before the guest runs.
async fn compare_disks(
    meeting: &Meeting<'_>,
    mut connection: Connection,
    generation: Generation,
    signals: &mut Signals,
) -> Result<Option<Connection>, RunError> {
    let images = meeting.plan.images().mirrored();
    let mut giving = Giving::of(images.clone(), meeting.configuration.pair.pace);
    if giving.is_empty() {
        return Ok(Some(connection));
    }
    let comparing = async {
        let compared = async {
            giving.compare(&mut connection, |_| ()).await?;
            // The guest has not begun.
            for changes in images.iter().filter_map(|image| image.changes.as_ref()) {
                changes.join([]);
            }
            let name = fresh_name().map_err(|why| with_causes(&why))?;
            giving.finish_equal(&mut connection, name, generation).await
        };
        let lost = |why: String| {
            RunError::Peer(format!("the backup was lost while disks were compared: {why}").into())
        };
        compared.await.map_err(lost)
    };
    let compared = unless_stopped(comparing, signals).await?;
    Ok(compared.map(|()| connection))
}

/// This side was recorded as a newcomer, and will never take over.
pub(super) async fn never_takes_over(identity: &Identity, generation: Generation) {
    pass(Step::BeforeForget);
    let forgotten = identity.machine().remove_backup(generation, identity.party().id);
    let forgotten = tokio::time::timeout(FORGET_LIMIT, forgotten);
    let (forgotten, ()) = tokio::join!(forgotten, identity.forget_prepared(FORGET_LIMIT));
    pass(Step::AfterForget);
    match forgotten {
        Ok(Ok(())) => {}
        Ok(Err(why)) => tracing::debug!("this side is left in the store: {why}"),
        Err(_) => tracing::debug!("this side is left in the store: it is slow"),
    }
}

/// Rest of a newcomer that has been joining for so long and was lost.
fn rest_after(joining: Duration) -> Duration {
    joining.clamp(AGAIN_PAUSE_MIN, AGAIN_PAUSE_MAX)
}

/// Begins this program again after a newcomer was lost.
///
/// It rests before that as long as it has been joining, `since`, so that a newcomer that is too
/// slow burdens its holder for half of the time at most.
pub(super) async fn look_again(since: Instant, found: Found) -> Result<Status, RunError> {
    begin_again(rest_after(since.elapsed()), found, None).await
}

/// Begins this program again after a rest, with its arguments, and with a `variable` in its
/// environment: what was received is of no use, and the store says what to do. Comes back where a
/// signal has come before, or with an error. A new machine is wanted once: not again.
pub(super) async fn begin_again(
    pause: Duration,
    found: Found,
    variable: Option<(&'static str, String)>,
) -> Result<Status, RunError> {
    tracing::info!(
        pause_ms = pause.as_millis() as u64,
        "looking into the shared directory again"
    );
    sleep(pause).await;
    again(std::env::args_os().collect(), found.into_iter().chain(variable))
}

/// Begins this program again, as a `replica`, after a switchover: the other side goes on, and this
/// one joins it at once. Comes back as [`begin_again`] does.
pub(super) fn join_again(found: Found) -> Result<Status, RunError> {
    tracing::info!("joining the side that goes on");
    again(as_replica(std::env::args_os().collect()), found)
}

/// Name and value of the variable with what was found of this host: it is not measured again.
pub(super) type Found = Option<(&'static str, String)>;

fn again(
    arguments: Vec<OsString>,
    variables: impl IntoIterator<Item = (&'static str, String)>,
) -> Result<Status, RunError> {
    pass(Step::BeforeAgain);
    console::restore();
    standard::flush();
    let mut arguments = arguments.into_iter();
    let name = arguments.next().unwrap_or_default();
    // A new machine is wanted once, and so is a measurement of the host.
    let arguments = arguments.filter(|argument| argument != "--afresh" && argument != "--requalify");
    let mut command = Command::new("/proc/self/exe");
    command.arg0(name).args(arguments).envs(variables);
    match replace_process(|| command.exec()) {
        None => Ok(Status::Success),
        Some(why) => Err(RunError::other("this program cannot be started again")(why)),
    }
}

/// The arguments of a `replica` of the same machine. `primary` and `backup` are what a side began
/// as: nothing before the command can have one of these values.
fn as_replica(mut arguments: Vec<OsString>) -> Vec<OsString> {
    let command = arguments.iter_mut().find(|argument| {
        ["primary", "backup", "replica"]
            .iter()
            .any(|name| argument == name)
    });
    if let Some(command) = command {
        *command = "replica".into();
    }
    arguments
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_side_that_was_switched_over_joins_as_a_replica() {
        let replica = |arguments: &[&str]| {
            let arguments = arguments.iter().map(OsString::from).collect();
            as_replica(arguments).join(" ".as_ref())
        };
        assert_eq!(
            replica(&["--log-format", "json", "primary", "--name", "primary", "k.elf"]),
            "--log-format json replica --name primary k.elf"
        );
        assert_eq!(replica(&["backup", "k.elf"]), "replica k.elf");
        assert_eq!(replica(&["replica", "k.elf"]), "replica k.elf");
    }

    #[test]
    fn a_newcomer_that_was_lost_rests_as_long_as_it_has_burdened_its_holder() {
        let seconds = Duration::from_secs;
        assert_eq!(rest_after(Duration::ZERO), seconds(1));
        assert_eq!(rest_after(seconds(20)), seconds(20));
        assert_eq!(rest_after(seconds(3_600)), seconds(60));
    }
}
