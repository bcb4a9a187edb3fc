//! `lockstep primary` and `lockstep backup`: the same start, in which one side runs the guest live and the other replays it.
//!
//! ```text
//!   settings, plan, witnesses, identity of the storage, network ---> meet the peer ---> vCPU thread ---> replica loop
//!                                                                    primary: waits for its backup
//!                                                                    backup:  looks for its primary
//! ```

use super::identity::process;
use super::launch::{Beginning, Launch};
use super::meeting::{self, CONNECT_PATIENCE, Found, PairSettings, find_primary, settings, unless_stopped};
use super::meeting::{fresh_name, wait_for_backup};
use super::newcomers::Welcoming;
use super::receiving::receive;
use super::report::Reporter;
use super::sending::Pace;
use super::storage::{self, Answer, Storage};
use super::witness::Witnesses;
use crate::replica::role::Config;
use crate::shell::commands::arrange::{Outsides, Signals};
use crate::shell::configuration::Configuration;
use crate::shell::machine::Plan;
use crate::shell::status::{CommandError, Status};
use lockstep_logging_channel::{Environment, Generation};
use lockstep_shared_disk::{Claim, MachineId, MachineName};
use std::path::Path;
use tokio::sync::mpsc;

/// What a side of a pair begins as.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    /// Its guest is live.
    Primary,
    /// It replays.
    Backup,
}

impl Side {
    fn name(self) -> &'static str {
        match self {
            Self::Primary => "primary",
            Self::Backup => "backup",
        }
    }
}

/// A pair that is formed.
struct Met {
    pair: [u8; 16],
    generation: Generation,
    beginning: Beginning,
    storage: Storage,
    answers: mpsc::UnboundedReceiver<Answer>,
}

/// What the two sides compare, and how this one looks for the other.
struct Meeting<'a> {
    plan: &'a Plan,
    configuration: &'a Configuration,
    settings: &'a PairSettings,
    /// Name of the shared storage.
    identity: [u8; 16],
}

/// Runs one side of a pair.
///
/// # Errors
/// [`CommandError`].
pub async fn begin(
    side: Side,
    image: &Path,
    configuration: &Configuration,
    mut signals: Signals,
) -> Result<Status, CommandError> {
    let settings = settings(&configuration.pair)?;
    let plan = Plan::new(image, configuration)?;
    let mut reporter = Reporter::open(configuration.pair.report.as_deref())?;
    let witnesses = Witnesses::open(&configuration.pair.witnesses, &settings.config);
    let Some(witnesses) = unless_stopped(witnesses, &mut signals).await? else {
        return Ok(Status::Success);
    };
    reporter.witnesses = witnesses.names();
    let identity = storage::identity(&*settings.store, fresh_name()?, CONNECT_PATIENCE);
    let Some(identity) = unless_stopped(identity, &mut signals).await? else {
        return Ok(Status::Success);
    };
    let Some((host, mut live)) = Outsides::open(configuration, plan.clock(), &mut signals).await? else {
        return Ok(Status::Success);
    };
    reporter.network = Some(live.outlets.network().counts());
    let meeting = Meeting {
        plan: &plan,
        configuration,
        settings: &settings,
        identity,
    };
    let met = match side {
        Side::Primary => meeting.as_primary(&mut reporter, &mut signals).await?,
        Side::Backup => {
            let stand_by = |pair| live.outlets.network().stand_by(pair);
            meeting.as_backup(stand_by, &mut reporter, &mut signals).await?
        }
    };
    let Some(Met {
        pair,
        generation,
        beginning,
        storage,
        answers,
    }) = met
    else {
        return Ok(Status::Success);
    };
    let config = Config {
        generation,
        ..settings.config
    };
    let welcoming = Welcoming {
        address: settings.address.clone(),
        environment: meeting::environment(&plan, configuration, identity, pair)?,
        config,
    };
    let launch = Launch {
        beginning,
        config,
        plan,
        pair,
        storage,
        answers,
        live,
        host,
        signals,
        reporter,
        witnesses,
        welcoming,
        pace: Pace::default(),
    };
    launch.run(configuration).await
}

impl Meeting<'_> {
    /// Waits for the backup of a pair that this side names.
    async fn as_primary(
        &self,
        reporter: &mut Reporter,
        signals: &mut Signals,
    ) -> Result<Option<Met>, CommandError> {
        let pair = fresh_name()?;
        let environment = meeting::environment(self.plan, self.configuration, self.identity, pair)?;
        let (address, config) = (&self.settings.address, &self.settings.config);
        let storage = self.storage(pair, Side::Primary);
        let met = wait_for_backup(address, &environment, config, storage, reporter, signals).await?;
        Ok(met.map(|(connection, (storage, answers))| Met {
            pair,
            generation: config.generation,
            beginning: Beginning::Primary(connection),
            storage,
            answers,
        }))
    }

    /// Finds the primary, adopts the pair's name, and receives the machine if it runs already. `stand_by` is told the name.
    async fn as_backup(
        &self,
        stand_by: impl FnOnce([u8; 16]),
        reporter: &mut Reporter,
        signals: &mut Signals,
    ) -> Result<Option<Met>, CommandError> {
        let here = meeting::environment(self.plan, self.configuration, self.identity, [0; 16])?;
        let (address, config) = (&self.settings.address, &self.settings.config);
        let Some(found) = find_primary(address, &here, config, signals).await? else {
            return Ok(None);
        };
        let Found {
            mut connection,
            environment: Environment { pair, .. },
            beginning: from,
        } = found;
        stand_by(pair);
        let beginning = if from.saved_state {
            tracing::info!(generation = from.generation.0, "joining the machine that runs");
            let receiving = receive(&mut connection, pair, self.plan.memory_bytes(), reporter);
            let receiving = async { receiving.await.map_err(CommandError::from) };
            let Some(received) = unless_stopped(receiving, signals).await? else {
                return Ok(None);
            };
            Beginning::Newcomer(connection, Box::new(received))
        } else {
            Beginning::Backup(connection)
        };
        let storage = unless_stopped(self.storage(pair, Side::Backup), signals).await?;
        Ok(storage.map(|(storage, answers)| Met {
            pair,
            generation: from.generation,
            beginning,
            storage,
            answers,
        }))
    }

    /// Opens the store of the pair, whose name is that of its machine.
    async fn storage(
        &self,
        pair: [u8; 16],
        side: Side,
    ) -> Result<(Storage, mpsc::UnboundedReceiver<Answer>), CommandError> {
        let label = format!("{}, process {}", side.name(), std::process::id());
        let claim = Claim {
            generation: self.settings.config.generation,
            machine: MachineId(pair),
            party: process::own(fresh_name()?, &label),
        };
        let name = MachineName::of_pair(claim.machine);
        let machine = storage::open(&*self.settings.store, &name, CONNECT_PATIENCE).await?;
        Ok(Storage::new(machine, claim))
    }
}
