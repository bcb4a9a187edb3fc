//! `lockstep primary` and `lockstep backup`: the same start, in which one side runs the guest live
//! and the other replays it.
//!
//! ```text
//!   settings, plan, witnesses, network, the machine in the store ---> meet the peer ---> vCPU thread ---> replica loop
//!                                                                    primary: waits for its backup
//!                                                                    backup:  looks for its primary
//! ```

use super::diverging::Diverging;
use super::driver::Over;
use super::follows::Follows;
use super::holding::Holding;
use super::identity::Identity;
use super::identity::start::Wish;
use super::joinable::joinable;
use super::launch::{Beginning, Launch};
use super::listening;
use super::meeting::{Meeting, Met, PairSettings, find_primary, settings};
use super::newcomers::Welcoming;
use super::replica;
use super::report::Reporter;
use super::stop_point;
use super::storage::{self, Storage};
use super::terms::{self, CONNECT_PATIENCE, fresh_name};
use super::witness::Witnesses;
use crate::configuration::{Configuration, GuestFiles};
use crate::disk::Purpose;
use crate::error::RunError;
use crate::machine::Plan;
use crate::outside::{Outsides, Signals, unless_stopped};
use lockstep_core::replica::role::Config;
use lockstep_process::status::Status;
use lockstep_shared_disk::MachineId;
use std::time::Instant;

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

    /// True where the store says whom it joins: then it can join again.
    fn finds_its_holder(self, settings: &PairSettings) -> bool {
        match self {
            Self::Primary => false,
            Self::Backup => settings.address.is_none(),
            Self::Replica { .. } => true,
        }
    }
}

/// Runs one side of a pair.
///
/// # Errors
/// [`RunError`].
pub async fn begin(
    side: Side,
    guest: &GuestFiles,
    configuration: &Configuration,
    mut signals: Signals,
) -> Result<Status, RunError> {
    stop_point::arm()?;
    let settings = settings(&configuration.pair)?;
    let plan = Plan::new(guest, configuration, Purpose::Pair)?;
    let mut reporter = Reporter::open(configuration.pair.report.as_deref())?;
    let witnesses = Witnesses::open(&configuration.pair.witnesses, &settings.config);
    let Some(witnesses) = unless_stopped(witnesses, &mut signals).await? else {
        return Ok(Status::Success);
    };
    reporter.witnesses = witnesses.names();
    let drives = plan.images().drives(plan.board())?;
    // The store comes last: what cannot be used leaves nothing there.
    let Some((host, mut live)) = Outsides::open(configuration, plan.clock(), drives, &mut signals).await?
    else {
        return Ok(Status::Success);
    };
    reporter.network = Some(live.outlets.network().counts());
    let opening = opened(&settings, configuration, side);
    let Some((storage, mut identity)) = unless_stopped(opening, &mut signals).await? else {
        return Ok(Status::Success);
    };
    let joinable = joinable(settings.address.as_ref(), &identity)?;
    identity.joined_at(&joinable.claimed.to_string())?;
    let listens = joinable.listens;
    let meeting = Meeting {
        plan: &plan,
        configuration,
        settings: &settings,
        storage,
        identity: &identity,
        listens: &listens,
    };
    let stand_by = |pair| live.outlets.network().stand_by(pair);
    let met = match side {
        Side::Primary => replica::begin(&meeting, &mut reporter, &mut signals).await?,
        Side::Backup => meeting.as_backup(stand_by, &mut reporter, &mut signals).await?,
        Side::Replica { afresh } => {
            let start = identity
                .start(Wish::Anything { afresh })
                .listening_at(settings.address.as_ref())
                .with_images(plan.images().clone());
            replica::meet(&meeting, start, stand_by, &mut reporter, &mut signals).await?
        }
    };
    let Some(Met {
        pair,
        generation,
        follows_by,
        beginning,
    }) = met
    else {
        return Ok(Status::Success);
    };
    reporter.follows_by = follows_by;
    let machine = MachineId(pair);
    let (storage_of_pair, answers) = Storage::new(identity.machine(), identity.claim(generation, machine));
    let config = Config {
        generation,
        ..settings.config
    };
    let welcoming = Welcoming {
        address: listens.clone(),
        environment: terms::environment(&plan, configuration, storage, pair)?,
        config,
    };
    let diverging = Diverging::new(side.finds_its_holder(&settings), configuration.mode.falls_back());
    let ownership = identity.ownership(plan.images().clone(), machine);
    if matches!(beginning, Beginning::Primary(_) | Beginning::Alone) {
        ownership.holds(generation)?;
        let disks = live.arrivals.disks();
        disks.act(&|image| ownership.opens(image, generation))?;
    }
    let holding = Holding::new(identity.clone(), machine);
    holding.compares(&welcoming.environment);
    let is_newcomer = matches!(beginning, Beginning::Newcomer(..));
    let joining_since = reporter.joining.unwrap_or_else(Instant::now);
    let found = plan.to_carry();
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
        holding,
        ownership,
        follows: Follows::begin(configuration.mode, follows_by, diverging.counted()),
        diverging,
    };
    match launch.run(configuration).await {
        Ok(Over::Ended(status)) => Ok(status),
        Ok(Over::JoinsAgain(again)) => {
            replica::never_takes_over(&identity, generation).await;
            replica::begin_again(again.rest, found, Some(again.variable())).await
        }
        Err(RunError::SwitchedOver) => replica::join_again(found),
        Err(RunError::NotArmed) if is_newcomer => {
            replica::never_takes_over(&identity, generation).await;
            if matches!(side, Side::Replica { .. }) {
                return replica::look_again(joining_since, found).await;
            }
            Err(RunError::NotArmed)
        }
        Err(why) => Err(why),
    }
}

/// The identity of the store, and the machine's part of it.
async fn opened(
    settings: &PairSettings,
    configuration: &Configuration,
    side: Side,
) -> Result<([u8; 16], Identity), RunError> {
    let (store, name) = (&*settings.store, &configuration.pair.name);
    if side != Side::Backup {
        listening::before_the_first(store, name, settings.address.as_ref()).await?;
    }
    let storage = storage::identity(store, fresh_name()?, CONNECT_PATIENCE).await?;
    let identity = match side {
        // One that is refused, or stopped before it has found a holder, leaves nothing.
        Side::Backup => Identity::expect(store, name, side.name(), CONNECT_PATIENCE)?,
        Side::Primary | Side::Replica { .. } => {
            Identity::open(store, name, side.name(), CONNECT_PATIENCE).await?
        }
    };
    Ok((storage, identity))
}

impl Meeting<'_> {
    /// Finds the primary, at the address that was given or where the store says that it is; adopts
    /// the pair's name, and receives the machine if it runs already. `stand_by` is told the name.
    async fn as_backup(
        &self,
        mut stand_by: impl FnMut([u8; 16]),
        reporter: &mut Reporter,
        signals: &mut Signals,
    ) -> Result<Option<Met>, RunError> {
        let Some(address) = &self.settings.address else {
            let start = self.identity.start(Wish::Join);
            return replica::meet(self, start, stand_by, reporter, signals).await;
        };
        let here = self.environment([0; 16])?;
        let Some(found) = find_primary(address, &here, &self.settings.config, signals).await? else {
            return Ok(None);
        };
        let joining = async { Ok(self.join(found, reporter).await?) };
        let met = unless_stopped(joining, signals).await?;
        met.iter().for_each(|met| stand_by(met.pair));
        Ok(met)
    }
}
