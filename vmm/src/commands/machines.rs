//! `lockstep list` and `lockstep status NAME`: what the store remembers of machines, and what their
//! holders publish there. Changes nothing.

use crate::printing::print_text;
use crate::status::{CommandError, Status};
use lockstep_host::error::RunError;
use lockstep_host::pair::identity::process;
use lockstep_host::pair::identity::published::{Published, Side};
use lockstep_host::pair::storage;
use lockstep_shared_disk::{Claim, Ended, MachineName, MachineStore, Seen, Store, StoreError};
use serde_json::{Value, json};
use std::fmt::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

/// Longest wait for a sign of life: a holder gives one a second.
const SIGN_LIMIT: Duration = Duration::from_millis(3_000);
/// Pause between two looks for it.
const SIGN_PAUSE: Duration = Duration::from_millis(100);
/// A store that does not answer has this long in all.
pub(super) const STORE_LIMIT: Duration = Duration::from_secs(10);
/// Machines that are looked at together, each with a few threads for the storage.
const TOGETHER_MAX: usize = 16;

/// Role of a machine's holder.
const PRIMARY: &str = "primary";

/// Store to look into, and output format.
#[derive(Clone, Debug, clap::Args)]
pub struct StoreArguments {
    /// Directory on storage that both sides reach, as their --shared-directory
    #[arg(long, value_name = "DIRECTORY")]
    pub shared_directory: PathBuf,
    /// JSON
    #[arg(long)]
    pub json: bool,
}

/// Condition of a machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Condition {
    /// Its holder was seen.
    Seen,
    /// Its holder was not seen for [`SIGN_LIMIT`].
    NotSeen,
    /// Its holder's process is proven to be dead.
    Dead,
    /// Its guest has ended.
    Ended,
    /// Nobody has claimed it.
    Unclaimed,
}

impl Condition {
    fn word(self) -> &'static str {
        match self {
            Self::Seen => "seen",
            Self::NotSeen => "not seen",
            Self::Dead => "dead",
            Self::Ended => "ended",
            Self::Unclaimed => "not started",
        }
    }
}

/// Everything that is known of a machine.
pub(super) struct Found {
    name: MachineName,
    pub(super) condition: Condition,
    pub(super) claim: Option<Claim>,
    ended: Option<Ended>,
    published: Published,
}

/// Lists the machines of a store.
///
/// # Errors
/// [`RunError::Setting`]: the store cannot be used. A machine whose records are damaged is
/// listed with what is wrong, and its status is that of the command.
pub async fn list(arguments: &StoreArguments) -> Result<Status, CommandError> {
    let store = storage::at(&arguments.shared_directory);
    let names = answer(&*store, store.names()).await?;
    let mut looks = JoinSet::new();
    let mut found = Vec::new();
    for name in names {
        if looks.len() >= TOGETHER_MAX {
            found.extend(looks.join_next().await);
        }
        let store = store.clone();
        looks.spawn(async move {
            let looked = look(&*store, &name).await;
            (name, looked)
        });
    }
    while let Some(looked) = looks.join_next().await {
        found.push(looked);
    }
    let mut machines: Vec<_> = found.into_iter().flatten().collect();
    machines.sort_by(|(left, _), (right, _)| left.cmp(right));
    let damaged = machines.iter().any(|(_, looked)| looked.is_err());
    let status = if damaged {
        Status::Configuration
    } else {
        Status::Success
    };
    let text = if arguments.json {
        let values = machines.iter().map(|(name, looked)| match looked {
            Ok(found) => found.to_json(),
            Err(why) => json!({ "name": name.as_str(), "error": why.to_string() }),
        });
        format!("{}\n", Value::Array(values.collect()))
    } else if machines.is_empty() {
        format!("no machine is known in {}\n", store.place())
    } else {
        let lines = machines.iter().map(|(name, looked)| match looked {
            Ok(found) => found.line(),
            Err(why) => format!("{name}: {why}\n"),
        });
        lines.collect()
    };
    print_text(&text, status)
}

/// Shows one machine.
///
/// # Errors
/// [`RunError::Setting`]: the store cannot be used, or does not know the machine.
pub async fn status(name: &str, arguments: &StoreArguments) -> Result<Status, CommandError> {
    let name = named(name)?;
    let store = storage::at(&arguments.shared_directory);
    let found = look(&*store, &name).await?;
    let text = if arguments.json {
        format!("{}\n", found.to_json())
    } else {
        found.text()
    };
    print_text(&text, Status::Success)
}

/// The name of a machine, as an operator gives it.
pub(super) fn named(name: &str) -> Result<MachineName, CommandError> {
    name.parse()
        .map_err(|why| CommandError::setting("name", format!("{why}")))
}

/// An answer of the store, which has a while for it.
pub(super) async fn answer<T>(
    store: &dyn Store,
    asked: impl Future<Output = Result<T, StoreError>>,
) -> Result<T, RunError> {
    match tokio::time::timeout(STORE_LIMIT, asked).await {
        Ok(answer) => answer.map_err(|why| storage::unusable(&why)),
        Err(_) => Err(storage::silent(&store.place(), 1)),
    }
}

pub(super) async fn look(store: &dyn Store, name: &MachineName) -> Result<Found, CommandError> {
    let Some(machine) = answer(store, store.find(name)).await? else {
        let why = format!(
            "no machine is called {name} in {}: `lockstep list` names those that there are",
            store.place()
        );
        return Err(CommandError::setting("name", why));
    };
    Ok(answer(store, look_at(&machine, name)).await?)
}

async fn look_at(machine: &Arc<dyn MachineStore>, name: &MachineName) -> Result<Found, StoreError> {
    let mut found = Found {
        name: name.clone(),
        condition: Condition::Unclaimed,
        claim: machine.newest().await?,
        ended: None,
        published: Published::default(),
    };
    let Some(claim) = &found.claim else {
        return Ok(found);
    };
    found.ended = machine.ended(claim.generation).await?;
    let first = machine.seen(claim.generation).await?;
    let (condition, seen) = if found.ended.is_some() {
        (Condition::Ended, first)
    } else {
        signs(&**machine, claim, first).await?
    };
    found.condition = condition;
    let published = seen.and_then(|seen| Published::from_json(seen.status()));
    found.published = published.unwrap_or_default();
    if found.published.sides.is_empty() {
        found.published.sides = vec![Side::of(&claim.party, PRIMARY)];
    }
    Ok(found)
}

/// Waits for a sign of life, unless the holder is proven to be dead.
async fn signs(
    machine: &dyn MachineStore,
    claim: &Claim,
    first: Option<Seen>,
) -> Result<(Condition, Option<Seen>), StoreError> {
    let deadline = Instant::now() + SIGN_LIMIT;
    let counter = |seen: &Option<Seen>| seen.as_ref().map(Seen::counter);
    loop {
        if process::is_dead(&claim.party) {
            return Ok((Condition::Dead, first));
        }
        let seen = machine.seen(claim.generation).await?;
        if counter(&seen) != counter(&first) {
            return Ok((Condition::Seen, seen));
        }
        if Instant::now() >= deadline {
            return Ok((Condition::NotSeen, seen));
        }
        sleep(SIGN_PAUSE).await;
    }
}

impl Found {
    /// True where a backup that may take over follows, as far as this can be known.
    pub(super) fn protected(&self) -> bool {
        self.published.protected && self.condition == Condition::Seen
    }

    /// True where the holder has found out who its backup is.
    pub(super) fn names_its_backup(&self) -> bool {
        let backup = self.published.sides.iter().find(|side| side.role != PRIMARY);
        backup.is_some_and(|backup| backup.process != 0)
    }

    pub(super) fn why_not(&self) -> Option<String> {
        match (self.condition, &self.claim, &self.ended) {
            (Condition::Unclaimed, ..) | (_, None, _) => Some("it was never started".to_owned()),
            (Condition::Ended, _, ended) => {
                let how = ended.as_ref().map(|ended| ended.how.to_string());
                Some(format!("it has ended: {}", how.unwrap_or_default()))
            }
            (Condition::Dead, Some(claim), _) => Some(format!(
                "its holder, {}, is dead, and nobody has taken over",
                claim.party
            )),
            (Condition::NotSeen, Some(claim), _) => {
                let seconds = SIGN_LIMIT.as_secs();
                Some(format!(
                    "its holder, {}, was not seen for {seconds} s",
                    claim.party
                ))
            }
            (Condition::Seen, ..) if self.published.protected => None,
            (Condition::Seen, ..) => {
                let why = self.published.why_not.clone();
                Some(why.unwrap_or_else(|| "no backup has joined".to_owned()))
            }
        }
    }

    /// Wall time since when what is said of the machine is so. Since when a holder has been dead,
    /// or was not seen, nobody has recorded.
    fn since_unix_s(&self) -> Option<u64> {
        let claimed = self.claim.as_ref().map(|claim| claim.party.written_unix_s);
        let published = Some(self.published.since_unix_s).filter(|since| *since != 0);
        match self.condition {
            Condition::Ended => self.ended.as_ref().map(|ended| ended.at_unix_s),
            Condition::Seen => published.or(claimed),
            Condition::Dead | Condition::NotSeen | Condition::Unclaimed => None,
        }
    }

    /// True where the process of `side` is no more, false where its holder says that it takes part,
    /// `None` where neither is known.
    fn gone(&self, side: &Side) -> Option<bool> {
        match self.condition {
            Condition::Ended => Some(true),
            Condition::Dead if side.role == PRIMARY => Some(true),
            Condition::Seen => Some(false),
            Condition::Dead | Condition::NotSeen | Condition::Unclaimed => None,
        }
    }

    fn sides_to_json(&self) -> Vec<Value> {
        let sides = self.published.sides.iter().map(|side| {
            let mut value = json!(side);
            if let Some(keys) = value.as_object_mut() {
                keys.insert("gone".to_owned(), json!(self.gone(side)));
            }
            value
        });
        sides.collect()
    }

    pub(super) fn to_json(&self) -> Value {
        json!({
            "name": self.name.as_str(),
            "generation": self.claim.as_ref().map(|claim| claim.generation.0),
            "machine": self.claim.as_ref().map(|claim| claim.machine.to_string()),
            "condition": self.condition.word(),
            "protected": self.protected(),
            "since": self.since_unix_s().map(utc),
            "why_not": self.why_not(),
            "divergences": self.published.divergences,
            "mode": self.published.mode,
            "mode_why": self.published.mode_why,
            "sides": self.sides_to_json(),
            "disks": self.published.disks,
        })
    }

    fn headline(&self) -> String {
        let protected = if self.protected() {
            "protected"
        } else {
            "NOT protected"
        };
        let since = self.since_unix_s().map(|since| format!(" since {}", utc(since)));
        let why = self.why_not().map(|why| format!(": {why}"));
        let (since, why) = (since.unwrap_or_default(), why.unwrap_or_default());
        let generation = self
            .claim
            .as_ref()
            .map(|claim| format!("generation {}, ", claim.generation));
        let divergences = match self.published.divergences {
            0 => String::new(),
            1 => "; 1 divergence".to_owned(),
            count => format!("; {count} divergences"),
        };
        format!(
            "{}{protected}{since}{why}{}{divergences}",
            generation.unwrap_or_default(),
            self.mode()
        )
    }

    /// Method by which a backup follows, as the holder has last published it.
    fn mode(&self) -> String {
        let Some(mode) = &self.published.mode else {
            return String::new();
        };
        let why = self.published.mode_why.as_ref();
        let why = why.map(|why| format!(" ({why})")).unwrap_or_default();
        format!("; mode {mode}{why}")
    }

    fn line(&self) -> String {
        format!("{}: {}\n", self.name, self.headline())
    }

    pub(super) fn text(&self) -> String {
        let mut text = self.line();
        for side in &self.published.sides {
            let address = side.address.as_deref().unwrap_or("no address");
            let lag = side.lag_ms.map(|lag| format!(", {lag} ms behind"));
            let now = match self.gone(side) {
                Some(true) => ", gone".to_owned(),
                Some(false) => lag.unwrap_or_default(),
                None => ", as last published".to_owned(),
            };
            // Writing into a string cannot fail.
            let _ = writeln!(
                text,
                "  {}: host {}, process {}, {address}{now}",
                side.role, side.host, side.process
            );
        }
        let disks = self.published.disks.iter();
        for disk in disks.filter(|_| self.condition == Condition::Seen) {
            let since = disk.since_unix_s.map(|since| format!(" since {}", utc(since)));
            let since = since.unwrap_or_default();
            let state = disk.error.as_ref().map_or_else(
                || "works".to_owned(),
                |why| {
                    let (failures, waiting) = (disk.failures, disk.waiting);
                    format!("NOT working{since}: {why} ({failures} tries failed); {waiting} requests wait")
                },
            );
            // Writing into a string cannot fail.
            let _ = writeln!(text, "  {}: {state}", disk.name);
        }
        text
    }
}

/// A wall time as RFC 3339 writes it, in UTC; the seconds where that has no year for it.
fn utc(unix_s: u64) -> String {
    let time = i64::try_from(unix_s)
        .ok()
        .and_then(|unix_s| OffsetDateTime::from_unix_timestamp(unix_s).ok());
    let written = time.and_then(|time| time.format(&Rfc3339).ok());
    written.unwrap_or_else(|| unix_s.to_string())
}

#[cfg(test)]
mod tests;
