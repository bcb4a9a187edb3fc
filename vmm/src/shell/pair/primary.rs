//! `lockstep primary`: waits for its backup, then runs the guest live.

use super::asking::Asking;
use super::driver::{Driver, Parts};
use super::journal::{self, LoopEnd, Shared};
use super::link::Link;
use super::meeting::{self, CONNECT_PATIENCE, settings, unless_stopped, wait_for_backup};
use super::report::Reporter;
use super::storage::{self, Storage};
use super::witness::Witnesses;
use crate::kvm::ClockKind;
use crate::machine::door::Door;
use crate::replica::Recorder;
use crate::replica::recorder::Start;
use crate::replica::replayer::TimeFloor;
use crate::replica::role::Replica;
use crate::shell::commands::arrange::{Live, Outsides, Signals, world};
use crate::shell::configuration::Configuration;
use crate::shell::machine::{Plan, start};
use crate::shell::pair::clock::role_ns;
use crate::shell::status::{CommandError, Status};
use lockstep_logging_channel::{Generation, Sequence};
use lockstep_shared_disk::Claimant;
use serde_json::json;
use std::path::Path;
use std::sync::{Arc, OnceLock};

/// Runs the primary of a pair.
///
/// # Errors
/// [`CommandError`].
pub async fn primary(
    image: &Path,
    configuration: &Configuration,
    mut signals: Signals,
) -> Result<Status, CommandError> {
    let settings = settings(&configuration.pair)?;
    let plan = Plan::new(image, configuration)?;
    let mut reporter = Reporter::open(configuration.pair.report.as_deref())?;
    let witnesses = tokio::select! {
        witnesses = Witnesses::open(&configuration.pair.witnesses, &settings.config) => witnesses?,
        () = signals.received() => return Ok(Status::Success),
    };
    reporter.witnesses = witnesses.names();
    let pair = meeting::fresh_name()?;
    let identity = storage::identity(settings.directory, meeting::fresh_name()?, CONNECT_PATIENCE);
    let Some(identity) = unless_stopped(identity, &mut signals).await? else {
        return Ok(Status::Success);
    };
    let environment = meeting::environment(&plan, configuration, identity, pair)?;
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
    let claimant = Claimant::new(
        meeting::fresh_name()?,
        &format!("primary, process {}", std::process::id()),
    );
    let storage = Storage::open(settings.directory, pair, claimant, CONNECT_PATIENCE);
    let met = wait_for_backup(
        &settings.address,
        &environment,
        &settings.config,
        storage,
        &mut reporter,
        &mut signals,
    )
    .await?;
    let Some((connection, (storage, answers))) = met else {
        return Ok(Status::Success);
    };
    storage.prepare(Generation(settings.config.generation.0 + 1));
    tracing::info!("protected: the backup is {}", connection.peer());
    reporter.event("protected", json!({ "role": "primary" }));

    let shared = Arc::new(Shared::default());
    let (to_loop, from_cpu) = journal::to_loop();
    let clock = plan.clock();
    let mac = plan.mac();
    let first = Start {
        generation: settings.config.generation,
        sequence: Sequence(1),
    };
    outlets.network().announce(pair, first.generation, mac);
    let (journal_shared, on_cpu) = (shared.clone(), ordered.clone());
    let make_door = Box::new(move || {
        let journal = LoopEnd::journal(to_loop, journal_shared, on_cpu.clone());
        let outside = world(TimeFloor::default(), arrivals, on_cpu, clock)?;
        Ok(Box::new(Recorder::new(outside, journal, first)) as Box<dyn Door>)
    });
    let machine = start(plan, ordered, make_door)?;
    let replica = Replica::primary(settings.config, role_ns())
        .map_err(|why| CommandError::setting("pair settings", why.to_string()))?;
    let parts = Parts {
        replica,
        link: Link::over(connection),
        from_cpu,
        shared,
        items: None,
        won: Arc::new(OnceLock::new()),
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
        asking: Asking::default(),
        pair,
        mac,
    };
    Driver::new(parts, true).run().await
}
