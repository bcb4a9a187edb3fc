//! `lockstep primary` and `lockstep backup`: the same start, in which one side runs the guest live
//! and the other replays it.
//!
//! ```text
//!   settings, plan, witnesses, identity of the storage, network ---> meet the peer ---> vCPU thread ---> replica loop
//!                                                                    primary: waits for its backup
//!                                                                    backup:  looks for its primary
//! ```

use super::holding::Holding;
use super::identity::{Identity, process};
use super::joinable::joinable;
use super::launch::{Beginning, Launch};
use super::meeting::{self, CONNECT_PATIENCE, Found, PairSettings, find_primary, settings, unless_stopped};
use super::meeting::{fresh_name, wait_for_backup};
use super::newcomers::Welcoming;
use super::receiving::{NotReceived, receive};
use super::replica;
use super::report::Reporter;
use super::stop_point::{self, Step, pass};
use super::storage::{self, Answer, Storage};
use super::witness::Witnesses;
use crate::configuration::Configuration;
use crate::error::RunError;
use crate::machine::Plan;
use crate::outside::{Outsides, Signals};
use lockstep_core::replica::role::Config;
use lockstep_logging_channel::{Environment, Generation};
use lockstep_process::status::Status;
use lockstep_shared_disk::{Claim, MachineId, MachineName};
use std::path::Path;
use tokio::sync::mpsc;

/// Role in which a side of a pair begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Its guest is live.
    Primary,
    /// It replays.
    Backup,
    /// The role that the store gives: see [`super::replica`].
    Replica {
        /// The operator wants a new machine.
        afresh: bool,
    },
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Backup => "backup",
            Self::Replica { .. } => "replica",
        }
    }
}

/// Beginning of a side, with the pair and the generation of its machine.
pub(super) struct Met {
    pub pair: [u8; 16],
    pub generation: Generation,
    pub beginning: Beginning,
}

/// Values that the two sides compare, and settings by which this one looks for the other.
pub(super) struct Meeting<'a> {
    pub plan: &'a Plan,
    pub configuration: &'a Configuration,
    pub settings: &'a PairSettings,
    /// Name of the shared storage.
    pub storage: [u8; 16],
    /// The machine that has a name.
    pub named: Option<&'a Identity>,
}

/// Runs one side of a pair.
///
/// # Errors
/// [`RunError`].
pub async fn begin(
    side: Side,
    image: &Path,
    configuration: &Configuration,
    mut signals: Signals,
) -> Result<Status, RunError> {
    if matches!(side, Side::Replica { .. }) && configuration.pair.name.is_none() {
        return Err(replica::no_name());
    }
    stop_point::arm()?;
    let settings = settings(&configuration.pair)?;
    let plan = Plan::new(image, configuration)?;
    let mut reporter = Reporter::open(configuration.pair.report.as_deref())?;
    let witnesses = Witnesses::open(&configuration.pair.witnesses, &settings.config);
    let Some(witnesses) = unless_stopped(witnesses, &mut signals).await? else {
        return Ok(Status::Success);
    };
    reporter.witnesses = witnesses.names();
    let storage = storage::identity(&*settings.store, fresh_name()?, CONNECT_PATIENCE);
    let Some(storage) = unless_stopped(storage, &mut signals).await? else {
        return Ok(Status::Success);
    };
    let Some((host, mut live)) = Outsides::open(configuration, plan.clock(), &mut signals).await? else {
        return Ok(Status::Success);
    };
    reporter.network = Some(live.outlets.network().counts());
    let label = format!("{}, process {}", side.name(), std::process::id());
    let mut named = None;
    if let Some(name) = &configuration.pair.name {
        let opening = Identity::open(&*settings.store, name, &label, CONNECT_PATIENCE);
        named = unless_stopped(opening, &mut signals).await?;
        if named.is_none() {
            return Ok(Status::Success);
        }
    }
    let listens = match &mut named {
        Some(named) => {
            let joinable = joinable(settings.address.as_ref(), named)?;
            named.joined_at(&joinable.claimed.to_string())?;
            joinable.listens
        }
        None => settings.channel()?.clone(),
    };
    let meeting = Meeting {
        plan: &plan,
        configuration,
        settings: &settings,
        storage,
        named: named.as_ref(),
    };
    let stand_by = |pair| live.outlets.network().stand_by(pair);
    let met = match side {
        Side::Primary => meeting.as_primary(&mut reporter, &mut signals).await?,
        Side::Backup => meeting.as_backup(stand_by, &mut reporter, &mut signals).await?,
        Side::Replica { afresh } => {
            let of = replica::Of {
                meeting: &meeting,
                listens: &listens,
                afresh,
            };
            of.meet(stand_by, &mut reporter, &mut signals).await?
        }
    };
    let Some(Met {
        pair,
        generation,
        beginning,
    }) = met
    else {
        return Ok(Status::Success);
    };
    let machine = MachineId(pair);
    let storing = async {
        match &named {
            Some(named) => Ok(Storage::new(named.machine(), named.claim(generation, machine))),
            None => unnamed(&settings, machine, generation, &label).await,
        }
    };
    let Some((storage_of_pair, answers)) = unless_stopped(storing, &mut signals).await? else {
        return Ok(Status::Success);
    };
    let config = Config {
        generation,
        ..settings.config
    };
    let welcoming = Welcoming {
        address: listens,
        environment: meeting::environment(&plan, configuration, storage, pair)?,
        config,
    };
    let is_newcomer = matches!(beginning, Beginning::Newcomer(..));
    let launch = Launch {
        beginning,
        config,
        plan,
        pair,
        storage: storage_of_pair,
        answers,
        live,
        host,
        signals,
        reporter,
        witnesses,
        welcoming,
        pace: configuration.pair.pace,
        holding: named.clone().map(|named| Holding::new(named, machine)),
    };
    let outcome = launch.run(configuration).await;
    if let (Err(RunError::NotArmed), Some(named), true) = (&outcome, &named, is_newcomer) {
        replica::not_armed(named, generation).await;
        if matches!(side, Side::Replica { .. }) {
            return Err(replica::look_again());
        }
    }
    outcome
}

/// The claims of a pair without a name, which goes by the id of its machine.
async fn unnamed(
    settings: &PairSettings,
    machine: MachineId,
    generation: Generation,
    label: &str,
) -> Result<(Storage, mpsc::UnboundedReceiver<Answer>), RunError> {
    let claim = Claim {
        generation,
        machine,
        party: process::own(fresh_name()?, label),
    };
    let name = MachineName::of_pair(machine);
    let machine = storage::open(&*settings.store, &name, CONNECT_PATIENCE).await?;
    Ok(Storage::new(machine, claim))
}

impl Meeting<'_> {
    /// Environment that the two sides compare, with the name of the pair.
    pub(super) fn environment(&self, pair: [u8; 16]) -> Result<Environment, RunError> {
        meeting::environment(self.plan, self.configuration, self.storage, pair)
    }

    /// Waits for the backup of a pair that this side names. A machine that has a name is not begun
    /// beside a living one.
    async fn as_primary(
        &self,
        reporter: &mut Reporter,
        signals: &mut Signals,
    ) -> Result<Option<Met>, RunError> {
        if let Some(named) = self.named {
            let Some(claim) = unless_stopped(replica::begun(named), signals).await? else {
                return Ok(None);
            };
            return replica::wait(self, named, &claim, self.settings.channel()?, reporter, signals).await;
        }
        let pair = fresh_name()?;
        let config = &self.settings.config;
        let address = self.settings.channel()?;
        let environment = self.environment(pair)?;
        // A store that cannot take claims is refused before the backup is told that it is one.
        let ready = async {
            let name = MachineName::of_pair(MachineId(pair));
            storage::open(&*self.settings.store, &name, CONNECT_PATIENCE).await
        };
        let met = wait_for_backup(address, &environment, config, ready, reporter, signals).await?;
        Ok(met.map(|(connection, _)| Met {
            pair,
            generation: config.generation,
            beginning: Beginning::Primary(connection),
        }))
    }

    /// Finds the primary, adopts the pair's name, and receives the machine if it runs already.
    /// `stand_by` is told the name.
    async fn as_backup(
        &self,
        mut stand_by: impl FnMut([u8; 16]),
        reporter: &mut Reporter,
        signals: &mut Signals,
    ) -> Result<Option<Met>, RunError> {
        let here = self.environment([0; 16])?;
        let (address, config) = (self.settings.channel()?, &self.settings.config);
        let Some(found) = find_primary(address, &here, config, signals).await? else {
            return Ok(None);
        };
        let joining = async { Ok(self.join(found, reporter).await?) };
        let met = unless_stopped(joining, signals).await?;
        met.iter().for_each(|met| stand_by(met.pair));
        Ok(met)
    }

    /// Takes what there is to take from the holder of the machine.
    pub(super) async fn join(&self, found: Found, reporter: &mut Reporter) -> Result<Met, NotReceived> {
        pass(Step::Found);
        let Found {
            mut connection,
            environment: Environment { pair, .. },
            beginning: from,
        } = found;
        let beginning = if from.saved_state {
            tracing::info!(generation = from.generation.0, "joining the machine that runs");
            let received = receive(&mut connection, pair, self.plan.memory_bytes(), reporter).await?;
            Beginning::Newcomer(connection, Box::new(received))
        } else {
            Beginning::Backup(connection)
        };
        Ok(Met {
            pair,
            generation: from.generation,
            beginning,
        })
    }
}
