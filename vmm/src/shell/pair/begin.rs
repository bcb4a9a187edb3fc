//! `lockstep primary` and `lockstep backup`: the same start, in which one side runs the guest live and the other replays it.
//!
//! ```text
//!   settings, plan, witnesses, identity of the storage, network ---> meet the peer ---> vCPU thread ---> replica loop
//!                                                                    primary: waits for its backup
//!                                                                    backup:  looks for its primary
//! ```

use super::asking::Asking;
use super::door::CpuSide;
use super::driver::{Driver, Parts};
use super::feed;
use super::identity::process;
use super::journal::{self, Shared};
use super::link::Link;
use super::meeting::{self, CONNECT_PATIENCE, PairSettings, find_primary, settings, unless_stopped};
use super::meeting::{fresh_name, wait_for_backup};
use super::report::Reporter;
use super::storage::{self, Answer, Storage};
use super::witness::Witnesses;
use crate::kvm::ClockKind;
use crate::replica::recorder::Start;
use crate::replica::role::Replica;
use crate::shell::commands::arrange::{Live, Outsides, Signals};
use crate::shell::configuration::Configuration;
use crate::shell::machine::{Plan, start};
use crate::shell::status::{CommandError, Status};
use lockstep_logging_channel::transport::Connection;
use lockstep_logging_channel::{Generation, Sequence};
use lockstep_process::clock::role_ns;
use lockstep_shared_disk::{Claim, MachineId, MachineName};
use serde_json::json;
use std::path::Path;
use std::sync::{Arc, OnceLock};
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
    connection: Connection,
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
    let (
        host,
        Live {
            mut outlets,
            arrivals,
            ordered,
        },
    ) = match Outsides::open(configuration, plan.clock(), &mut signals).await? {
        Some(opened) => opened,
        None => return Ok(Status::Success),
    };
    reporter.network = Some(outlets.network().counts());
    let meeting = Meeting {
        plan: &plan,
        configuration,
        settings: &settings,
        identity,
    };
    let met = match side {
        Side::Primary => meeting.as_primary(&mut reporter, &mut signals).await?,
        Side::Backup => {
            let stand_by = |pair| outlets.network().stand_by(pair);
            meeting.as_backup(stand_by, &mut signals).await?
        }
    };
    let Some(Met {
        pair,
        connection,
        storage,
        answers,
    }) = met
    else {
        return Ok(Status::Success);
    };
    storage.prepare(Generation(settings.config.generation.0 + 1));
    match side {
        Side::Primary => tracing::info!("protected: the backup is {}", connection.peer()),
        Side::Backup => tracing::info!("protecting {}", connection.peer()),
    }
    reporter.event("protected", json!({ "role": side.name() }));

    let shared = Arc::new(Shared::default());
    let won = Arc::new(OnceLock::new());
    let (to_loop, from_cpu) = journal::to_loop();
    let (clock, mac) = (plan.clock(), plan.mac());
    let cpu_side = CpuSide {
        to_loop,
        shared: shared.clone(),
        won: won.clone(),
        arrivals,
        ordered: ordered.clone(),
        clock,
    };
    let (replica, make_door, items, asking) = match side {
        Side::Primary => {
            let first = Start {
                generation: settings.config.generation,
                sequence: Sequence(1),
            };
            outlets.network().announce(pair, first.generation, mac);
            let replica = Replica::primary(settings.config, role_ns());
            (replica, cpu_side.live(first), None, Asking::default())
        }
        Side::Backup => {
            let (items, items_out) = feed::items();
            let replica = Replica::backup(settings.config, role_ns());
            let make_door = cpu_side.replaying(items_out);
            (replica, make_door, Some(items), Asking::over(configuration))
        }
    };
    let machine = start(plan, ordered, make_door)?;
    let parts = Parts {
        replica: replica.map_err(|why| CommandError::setting("pair settings", why.to_string()))?,
        link: Link::over(connection),
        from_cpu,
        shared,
        items,
        won,
        storage,
        answers,
        outlets,
        frames: host.frames,
        frames_in: host.frames_in,
        kicks: clock != ClockKind::None,
        control: host.control,
        signals,
        machine,
        reporter,
        witnesses,
        asking,
        pair,
        mac,
    };
    Driver::new(parts, side == Side::Primary).run().await
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
            connection,
            storage,
            answers,
        }))
    }

    /// Finds the primary, and adopts the pair's name. `stand_by` is told it.
    async fn as_backup(
        &self,
        stand_by: impl FnOnce([u8; 16]),
        signals: &mut Signals,
    ) -> Result<Option<Met>, CommandError> {
        let here = meeting::environment(self.plan, self.configuration, self.identity, [0; 16])?;
        let (address, config) = (&self.settings.address, &self.settings.config);
        let Some((connection, adopted)) = find_primary(address, &here, config, signals).await? else {
            return Ok(None);
        };
        let pair = adopted.pair;
        stand_by(pair);
        let storage = unless_stopped(self.storage(pair, Side::Backup), signals).await?;
        Ok(storage.map(|(storage, answers)| Met {
            pair,
            connection,
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
