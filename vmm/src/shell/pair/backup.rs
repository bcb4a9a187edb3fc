//! `lockstep backup`: finds its primary, replays what it records, and goes live when it is gone.

use super::asking::Asking;
use super::driver::{Driver, Parts};
use super::feed::{self, LoopItems};
use super::journal::{self, ChannelJournal, LoopEnd, Shared, tell};
use super::link::Link;
use super::meeting::{self, CONNECT_PATIENCE, find_primary, settings, unless_stopped};
use super::report::Reporter;
use super::storage::{self, Storage};
use super::witness::Witnesses;
use crate::kvm::ClockKind;
use crate::machine::door::{Door, DoorError};
use crate::replica::role::Replica;
use crate::replica::standby::{GoLive, TakenOver};
use crate::replica::{Recorder, Replayer, Standby};
use crate::shell::commands::arrange::{Live, Outsides, Signals};
use crate::shell::configuration::Configuration;
use crate::shell::live::{Arrivals, GuestTime, World, control::Ordered};
use crate::shell::machine::{Plan, start};
use crate::shell::pair::FromCpu;
use crate::shell::pair::clock::role_ns;
use crate::shell::status::{CommandError, Status};
use lockstep_logging_channel::Generation;
use lockstep_shared_disk::Claimant;
use serde_json::json;
use std::path::Path;
use std::sync::{Arc, OnceLock};
use tokio::sync::mpsc;

/// Runs the backup of a pair.
///
/// # Errors
/// [`CommandError`].
pub async fn backup(image: &Path, configuration: &Configuration) -> Result<Status, CommandError> {
    let settings = settings(&configuration.pair)?;
    let plan = Plan::new(image, configuration)?;
    let mut signals = Signals::listen();
    let mut reporter = Reporter::open(configuration.pair.report.as_deref())?;
    let identity = storage::identity(settings.directory, meeting::fresh_name()?, CONNECT_PATIENCE);
    let Some(identity) = unless_stopped(identity, &mut signals).await? else {
        return Ok(Status::Success);
    };
    let witnesses = tokio::select! {
        witnesses = Witnesses::open(&configuration.pair.witnesses, &settings.config) => witnesses?,
        () = signals.received() => return Ok(Status::Success),
    };
    reporter.witnesses = witnesses.names();
    let here = meeting::environment(&plan, configuration, identity, [0; 16])?;
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
    let met = find_primary(&settings.address, &here, &settings.config, &mut signals).await?;
    let Some((connection, adopted)) = met else {
        return Ok(Status::Success);
    };
    let pair = adopted.pair;
    outlets.network().stand_by(pair);
    reporter.network = Some(outlets.network().counts());
    let claimant = Claimant::new(
        meeting::fresh_name()?,
        &format!("backup, process {}", std::process::id()),
    );
    let storage = Storage::open(settings.directory, pair, claimant, CONNECT_PATIENCE);
    let Some((storage, answers)) = unless_stopped(storage, &mut signals).await? else {
        return Ok(Status::Success);
    };
    storage.prepare(Generation(settings.config.generation.0 + 1));
    tracing::info!("protecting {}", connection.peer());
    reporter.event("protected", json!({ "role": "backup" }));

    let shared = Arc::new(Shared::default());
    let won = Arc::new(OnceLock::new());
    let (to_loop, from_cpu) = journal::to_loop();
    let (items, items_out) = feed::items();
    let (clock, mac) = (plan.clock(), plan.mac());
    let feed = LoopItems::feed(items_out, to_loop.clone(), ordered.clone());
    let after = AfterGoingLive {
        to_loop,
        shared: shared.clone(),
        won: won.clone(),
        arrivals,
        ordered: ordered.clone(),
        clock,
    };
    let make_door = Box::new(move || {
        let replayer = Replayer::new(feed, clock != ClockKind::None);
        Ok(Box::new(Standby::new(replayer, Some(after.go_live()))) as Box<dyn Door>)
    });
    let machine = start(plan, ordered, make_door)?;
    let replica = Replica::backup(settings.config, role_ns())
        .map_err(|why| CommandError::setting("pair settings", why.to_string()))?;
    let parts = Parts {
        replica,
        link: Link::over(connection),
        from_cpu,
        shared,
        items: Some(items),
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
        asking: Asking::over(configuration),
        pair,
        mac,
    };
    Driver::new(parts, false).run().await
}

/// What the vCPU thread needs when it goes live.
struct AfterGoingLive {
    to_loop: mpsc::Sender<FromCpu>,
    shared: Arc<Shared>,
    won: Arc<OnceLock<Generation>>,
    arrivals: Arrivals,
    ordered: Ordered,
    clock: ClockKind,
}

impl AfterGoingLive {
    fn go_live(self) -> GoLive<World, ChannelJournal> {
        Box::new(move |taken_over| self.recorder(taken_over))
    }

    fn recorder(self, taken_over: TakenOver) -> Result<Recorder<World, ChannelJournal>, DoorError> {
        let generation = self.won.get().copied().unwrap_or_default();
        tell(&self.to_loop, &self.ordered, taken_over.live_at())?;
        let journal = LoopEnd::journal(self.to_loop, self.shared, self.ordered.clone());
        let time = GuestTime::starting_at(taken_over.floor);
        let outside =
            World::new(time, self.arrivals, self.ordered, self.clock).map_err(|why| DoorError::Host {
                what: "kick timer",
                why: why.to_string(),
            })?;
        Ok(Recorder::new(outside, journal, taken_over.start(generation)))
    }
}
