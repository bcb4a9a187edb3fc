//! The meeting of the two sides of a pair: address, environment, shared storage, handshake.

use super::copying::take;
use super::identity::Identity;
use super::launch;
use super::receiving::{NotReceived, receive};
use super::reception::{Reception, ReceptionError};
use super::report::Reporter;
use super::stop_point::{Step, pass};
use super::storage::store;
use super::terms::{
    self, CONNECT_PATIENCE, MEASURING_LIMIT, channel_failed, check_round_trip, measured, round_trip_fits,
};
use crate::configuration::{Configuration, PairConfiguration};
use crate::error::RunError;
use crate::machine::Plan;
use crate::outside::{Signals, unless_stopped};
use lockstep_core::replica::role::{Config, KEPT_BYTES_MAX, RoundTripError};
use lockstep_logging_channel::handshake::{HandshakeError, as_backup};
use lockstep_logging_channel::measuring;
use lockstep_logging_channel::message::{Beginning, FollowsBy};
use lockstep_logging_channel::transport::{Address, ChannelError, Connection, connect};
use lockstep_logging_channel::{Environment, Generation};
use lockstep_shared_disk::{MachineId, Store};
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// Pause before a backup connects again to a primary that was lost before it answered.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);
const NS_PER_MS: u64 = 1_000_000;

/// The settings that a pair cannot do without.
pub struct PairSettings {
    /// The logging channel, where one was given.
    pub address: Option<Address>,
    /// Store of the test-and-set.
    pub store: Arc<dyn Store>,
    /// Settings of the role machine.
    pub config: Config,
}

/// Checks the settings of a pair.
///
/// # Errors
/// [`RunError::Setting`].
pub fn settings(pair: &PairConfiguration) -> Result<PairSettings, RunError> {
    let missing = |setting| RunError::setting(setting, "a protected pair needs it; see --help");
    let store = store(pair).ok_or_else(|| missing("shared-directory"))?;
    let config = Config {
        timeout_ns: pair.timeout_ms.saturating_mul(NS_PER_MS),
        window_bytes_max: pair.window_bytes,
        kept_bytes_max: KEPT_BYTES_MAX,
        lag_ns_max: pair.lag_ms_max.saturating_mul(NS_PER_MS),
        witnesses: pair.witnesses.len(),
        ..Config::default()
    };
    config
        .check()
        .map_err(|why| RunError::setting("pair settings", why.to_string()))?;
    let address = pair.channel.as_deref().map(channel).transpose()?;
    Ok(PairSettings {
        address,
        store,
        config,
    })
}

/// The address that the setting `channel` gives, which the store can tell to others.
fn channel(text: &str) -> Result<Address, RunError> {
    let wrong = |why: String| RunError::setting("channel", why);
    match text.parse().map_err(|why| wrong(format!("{why}")))? {
        Address::Tcp { port: 0, .. } => {
            let why = "a side can only be joined at a port that is known: give one";
            Err(wrong(why.to_owned()))
        }
        address => Ok(address),
    }
}

fn reception_failed(why: ReceptionError) -> RunError {
    match why {
        ReceptionError::Listener(why) => channel_failed(why),
        ReceptionError::Differs(why) => RunError::Peer(Box::new(why)),
    }
}

/// Waits for a backup that fits, and that `follows_by` replay or by checkpoints, for as long as it
/// takes. Strangers do not end the wait; a side of
/// this pair that differs does.
///
/// # Errors
/// [`RunError::Channel`], [`RunError::Peer`]. `None` when a signal came first.
pub async fn wait_for_backup(
    address: &Address,
    environment: &Environment,
    config: &Config,
    follows_by: FollowsBy,
    reporter: &mut Reporter,
    signals: &mut Signals,
) -> Result<Option<Connection>, RunError> {
    let mut reception = Reception::open(address, environment.clone())
        .await
        .map_err(channel_failed)?;
    tracing::info!(address = %reception.address(), "waiting for the backup");
    reporter.event("listening", json!({ "address": reception.address().to_string() }));
    let beginning = Beginning::anew(config.generation, follows_by);
    let meeting = async {
        let mut candidate = reception.candidate().await.map_err(reception_failed)?;
        let round_trip = loop {
            if reception.welcome(&mut candidate, beginning).await
                && let Some(round_trip) = measured(&mut candidate, config).await
            {
                break round_trip;
            }
            candidate = reception.candidate().await.map_err(reception_failed)?;
        };
        check_round_trip(config, round_trip)?;
        reception.close().await;
        Ok(candidate)
    };
    unless_stopped(meeting, signals).await
}

/// A primary that was found.
#[derive(Debug)]
pub struct Found {
    /// The connection to it.
    pub connection: Connection,
    /// Its environment, with the pair's name.
    pub environment: Environment,
    /// Point at which the backup begins.
    pub beginning: Beginning,
}

/// Beginning of a side, with the pair and the generation of its machine.
pub(super) struct Met {
    pub pair: [u8; 16],
    pub generation: Generation,
    pub follows_by: FollowsBy,
    pub beginning: launch::Beginning,
}

/// Values that the two sides compare, and settings by which this one looks for the other.
pub(super) struct Meeting<'a> {
    pub plan: &'a Plan,
    pub configuration: &'a Configuration,
    pub settings: &'a PairSettings,
    /// Name of the shared storage.
    pub storage: [u8; 16],
    /// The machine in the store.
    pub identity: &'a Identity,
    /// Address at which this side can be joined.
    pub listens: &'a Address,
}

impl Meeting<'_> {
    /// Environment that the two sides compare, with the name of the pair.
    pub(super) fn environment(&self, pair: [u8; 16]) -> Result<Environment, RunError> {
        terms::environment(self.plan, self.configuration, self.storage, pair)
    }

    /// Takes what there is to take from the holder of the machine.
    pub(super) async fn join(&self, found: Found, reporter: &mut Reporter) -> Result<Met, NotReceived> {
        pass(Step::Found);
        let Found {
            mut connection,
            environment: Environment { pair, .. },
            beginning: from,
        } = found;
        let mode = self.configuration.mode;
        if !mode.allows(from.follows_by) {
            let found = from.follows_by;
            return Err(NotReceived::Mode { found, mode });
        }
        reporter.follows_by = from.follows_by;
        let images = self.plan.images();
        let mirrored = images.mirrored();
        if !mirrored.is_empty() {
            let ownership = self.identity.ownership(images.clone(), MachineId(pair));
            ownership
                .follows(from.generation)
                .map_err(|why| NotReceived::Ownership(Box::new(why)))?;
            tracing::info!("comparing the disks with those of {}", connection.peer());
            take(&mut connection, &mirrored).await?;
        }
        let beginning = if from.saved_state {
            tracing::info!(
                generation = from.generation.0,
                "joining the machine {}, which runs at {}: not its backup yet",
                self.identity.name(),
                connection.peer()
            );
            if from.follows_by != mode.first() {
                tracing::info!("its replays have differed again and again: it is followed by checkpoints");
            }
            let received = receive(&mut connection, pair, self.plan.memory_bytes(), reporter).await?;
            if !mirrored.is_empty() {
                take(&mut connection, &mirrored).await?;
            }
            launch::Beginning::Newcomer(connection, Box::new(received))
        } else {
            launch::Beginning::Backup(connection)
        };
        Ok(Met {
            pair,
            generation: from.generation,
            follows_by: from.follows_by,
            beginning,
        })
    }
}

/// Finds the primary.
///
/// A primary that listens and does not answer yet is waited for; one that is lost before it answers
/// is looked for again.
///
/// # Errors
/// [`RunError::Channel`], [`RunError::Peer`]. `None` when a signal came first.
pub async fn find_primary(
    address: &Address,
    environment: &Environment,
    config: &Config,
    signals: &mut Signals,
) -> Result<Option<Found>, RunError> {
    tracing::info!(%address, "looking for the primary");
    let looking = look_for_primary(address, environment, config, CONNECT_PATIENCE);
    unless_stopped(async { Ok(looking.await?) }, signals).await
}

async fn open_to_primary(
    connection: &mut Connection,
    environment: &Environment,
    limit: Duration,
) -> Result<(Environment, Beginning, Duration), HandshakeError> {
    let (adopted, beginning) = as_backup(connection, environment, limit).await?;
    let round_trip = measuring::answer(connection, MEASURING_LIMIT).await?;
    Ok((adopted, beginning, round_trip))
}

/// Reason why a primary was not found.
#[derive(Debug, thiserror::Error)]
pub enum NotFound {
    /// There is no connection.
    #[error(transparent)]
    Channel(ChannelError),
    /// Whoever answers is not the primary, or is lost.
    #[error(transparent)]
    Handshake(HandshakeError),
    /// It is too far away.
    #[error(transparent)]
    TooFar(RoundTripError),
}

impl NotFound {
    /// True where another try, there or elsewhere, may succeed.
    #[must_use]
    pub fn may_pass(&self) -> bool {
        match self {
            Self::Channel(_) => true,
            Self::Handshake(why) => why.is_loss() || why.is_for_now(),
            Self::TooFar(_) => false,
        }
    }
}

impl From<NotFound> for RunError {
    fn from(why: NotFound) -> Self {
        match why {
            NotFound::Channel(why) => channel_failed(why),
            NotFound::Handshake(why) => Self::Peer(Box::new(why)),
            NotFound::TooFar(why) => Self::Peer(Box::new(why)),
        }
    }
}

/// Looks for the primary at `address` for so long.
///
/// # Errors
/// [`NotFound`].
pub async fn look_for_primary(
    address: &Address,
    environment: &Environment,
    config: &Config,
    patience: Duration,
) -> Result<Found, NotFound> {
    let deadline = Instant::now() + patience;
    let left = || deadline.saturating_duration_since(Instant::now());
    let mut told = false;
    loop {
        let mut connection = connect(address, left()).await.map_err(NotFound::Channel)?;
        match open_to_primary(&mut connection, environment, left()).await {
            Ok((environment, beginning, round_trip)) => {
                round_trip_fits(config, round_trip).map_err(NotFound::TooFar)?;
                return Ok(Found {
                    connection,
                    environment,
                    beginning,
                });
            }
            Err(why) if (why.is_loss() || why.is_for_now()) && left() > RECONNECT_PAUSE => {
                if !std::mem::replace(&mut told, true) {
                    tracing::info!("no answer yet, trying again: {why}");
                }
                sleep(RECONNECT_PAUSE).await;
            }
            Err(why) => return Err(NotFound::Handshake(why)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::net::UnixListener;

    async fn look_for(address: &Address) -> RunError {
        look_for_primary(
            address,
            &Environment::default(),
            &Config::default(),
            CONNECT_PATIENCE,
        )
        .await
        .unwrap_err()
        .into()
    }

    /// A listener that nobody serves yet, as a primary that is busy with other connections.
    #[tokio::test(start_paused = true)]
    async fn a_primary_that_listens_and_does_not_answer_has_the_whole_patience() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("channel");
        let _listener = UnixListener::bind(&path).unwrap();
        let start = Instant::now();
        let error = look_for(&Address::Unix { path }).await;
        assert_eq!(start.elapsed(), CONNECT_PATIENCE);
        let RunError::Peer(why) = error else {
            panic!("{error}")
        };
        assert!(
            why.to_string()
                .contains("did not finish the handshake within 30000 ms"),
            "{why}"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_primary_that_closes_before_it_answers_is_looked_for_again() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("channel");
        let listener = UnixListener::bind(&path).unwrap();
        let mut closed = 0;
        let closing = async {
            while let Ok((connection, _)) = listener.accept().await {
                drop(connection);
                closed += 1;
            }
        };
        let start = Instant::now();
        let address = Address::Unix { path: path.clone() };
        let error = tokio::select! {
            error = look_for(&address) => error,
            () = closing => panic!("a listener that fails"),
        };
        assert!(closed > 1 && start.elapsed() > CONNECT_PATIENCE - 2 * RECONNECT_PAUSE);
        let RunError::Peer(why) = error else {
            panic!("{error}")
        };
        // Which end of the connection is noticed first, that of reading or that of writing, is a
        // race.
        let lost = why.downcast_ref().is_some_and(HandshakeError::is_loss);
        assert!(lost, "{why}");
    }
}
