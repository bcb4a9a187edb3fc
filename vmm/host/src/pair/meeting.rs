//! How the two sides of a pair find each other: address, environment, shared storage, handshake.

use super::reception::{Reception, ReceptionError};
use super::report::Reporter;
use super::storage::store;
use crate::build;
use crate::configuration::{Configuration, PairConfiguration};
use crate::error::RunError;
use crate::machine::Plan;
use crate::machine::plan::BUILD_FIELD;
use crate::outside::Signals;
use lockstep_core::replica::role::{Config, KEPT_BYTES_MAX, RoundTripError};
use lockstep_kvm::processor::processor;
use lockstep_logging_channel::handshake::{HandshakeError, as_backup};
use lockstep_logging_channel::measuring;
use lockstep_logging_channel::message::Beginning;
use lockstep_logging_channel::transport::{Address, ChannelError, Connection, connect};
use lockstep_logging_channel::{Environment, EnvironmentField};
use lockstep_shared_disk::Store;
use serde_json::json;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, sleep};

/// How long a peer has for its opening, and for taking what it is sent.
pub(super) const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);
/// How long the two have to measure their round trip.
const MEASURING_LIMIT: Duration = Duration::from_secs(5);
/// Longest time that a backup waits for its primary: to listen, and to answer. Storage that does
/// not answer at the start has as long.
pub const CONNECT_PATIENCE: Duration = Duration::from_secs(30);
/// Pause before a backup connects again to a primary that was lost before it answered.
const RECONNECT_PAUSE: Duration = Duration::from_millis(100);
/// Name of the field with the identity of the shared storage. It is compared first: a peer that
/// differs in another field shares it.
pub(super) const STORAGE_FIELD: &str = "shared storage";
/// Name of the field with the machine's name.
pub(super) const NAME_FIELD: &str = "machine name";
const NS_PER_MS: u64 = 1_000_000;

/// The settings that a pair cannot do without.
pub struct PairSettings {
    /// The logging channel, where one was given.
    pub address: Option<Address>,
    /// Where the test-and-set is made.
    pub store: Arc<dyn Store>,
    /// What the role machine is told.
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

/// Random bytes for names.
///
/// # Errors
/// The host gives none.
pub fn fresh_name() -> Result<[u8; 16], RunError> {
    let mut name = [0; 16];
    getrandom::fill(&mut name).map_err(RunError::no_random_bytes)?;
    Ok(name)
}

fn hexadecimal(bytes: [u8; 16]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing into a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// Values that both sides must have the same: the build, the machine, the pair's settings, the
/// `storage` they reach, and the kind of their network.
///
/// # Errors
/// [`RunError::File`]: the build cannot be named.
pub fn environment(
    plan: &Plan,
    configuration: &Configuration,
    storage: [u8; 16],
    pair: [u8; 16],
) -> Result<Environment, RunError> {
    let mut environment = plan.environment(pair);
    environment.informative.retain(|field| field.name != BUILD_FIELD);
    let field = |name: &str, value: String| EnvironmentField {
        name: name.to_owned(),
        value,
    };
    // Before the machine's own fields, because two builds may differ in what these say.
    environment
        .compared
        .insert(0, field(BUILD_FIELD, build::name()?.to_owned()));
    environment.compared.extend([
        field("host processor", processor()),
        field("peer timeout in ms", configuration.pair.timeout_ms.to_string()),
        field("window in bytes", configuration.pair.window_bytes.to_string()),
        field("lag limit in ms", configuration.pair.lag_ms_max.to_string()),
        field("kind of network", configuration.network.kind().to_owned()),
    ]);
    // First whose machine it is: what else differs between two machines is of no interest.
    let name = field(NAME_FIELD, configuration.pair.name.to_string());
    let storage = field(STORAGE_FIELD, hexadecimal(storage));
    environment.compared.splice(0..0, [storage, name]);
    Ok(environment)
}

pub(super) fn channel_failed(why: ChannelError) -> RunError {
    match why {
        ChannelError::NobodyAnswers { .. } => RunError::Peer(Box::new(why)),
        other => RunError::Channel(Box::new(other)),
    }
}

/// Refuses a channel whose round trip the timeout cannot bear.
fn check_round_trip(config: &Config, round_trip: Duration) -> Result<(), RunError> {
    round_trip_fits(config, round_trip).map_err(|why| RunError::Peer(Box::new(why)))
}

fn round_trip_fits(config: &Config, round_trip: Duration) -> Result<(), RoundTripError> {
    let round_trip_ns = u64::try_from(round_trip.as_nanos()).unwrap_or(u64::MAX);
    config.check_round_trip(round_trip_ns)
}

fn reception_failed(why: ReceptionError) -> RunError {
    match why {
        ReceptionError::Listener(why) => channel_failed(why),
        ReceptionError::Differs(why) => RunError::Peer(Box::new(why)),
    }
}

/// `work`, unless a signal comes first: then `None`.
///
/// # Errors
/// Those of `work`.
pub async fn unless_stopped<T>(
    work: impl Future<Output = Result<T, RunError>>,
    signals: &mut Signals,
) -> Result<Option<T>, RunError> {
    tokio::select! {
        done = work => done.map(Some),
        () = signals.received() => Ok(None),
    }
}

/// Waits for a backup that fits, for as long as it takes. Strangers do not end the wait; a side of
/// this pair that differs does.
///
/// # Errors
/// [`RunError::Channel`], [`RunError::Peer`]. `None` when a signal came first.
pub async fn wait_for_backup(
    address: &Address,
    environment: &Environment,
    config: &Config,
    reporter: &mut Reporter,
    signals: &mut Signals,
) -> Result<Option<Connection>, RunError> {
    let mut reception = Reception::open(address, environment.clone())
        .await
        .map_err(channel_failed)?;
    tracing::info!(address = %reception.address(), "waiting for the backup");
    reporter.event("listening", json!({ "address": reception.address().to_string() }));
    let beginning = Beginning::anew(config.generation);
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

/// True where the timeout bears the round trip to a newcomer; else says so.
pub(super) fn is_near_enough(config: &Config, round_trip: Duration) -> bool {
    let checked = check_round_trip(config, round_trip);
    if let Err(why) = &checked {
        tracing::warn!("a newcomer was refused: {why}");
    }
    checked.is_ok()
}

/// The round trip to a backup that was welcomed; `None`, with a message, where it was lost
/// meanwhile.
pub(super) async fn measured(candidate: &mut Connection, config: &Config) -> Option<Duration> {
    let enough = Duration::from_nanos(config.round_trip_ns_max());
    let measured = measuring::measure(candidate, enough, MEASURING_LIMIT).await;
    if let Err(why) = &measured {
        tracing::warn!("the backup was lost before the pair was formed: {why}");
    }
    measured.ok()
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

/// Why a primary was not found.
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
