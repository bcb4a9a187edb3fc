//! How the two sides of a pair find each other: address, environment, shared storage, handshake.

use super::report::Reporter;
use super::storage;
use crate::replica::role::Config;
use crate::shell::commands::arrange::Signals;
use crate::shell::configuration::{Configuration, PairConfiguration};
use crate::shell::machine::Plan;
use crate::shell::machine::processor::processor;
use crate::shell::status::CommandError;
use lockstep_logging_channel::handshake::{HandshakeError, as_backup, as_primary};
use lockstep_logging_channel::measuring;
use lockstep_logging_channel::transport::{Address, ChannelError, Connection, Listener, connect};
use lockstep_logging_channel::{Environment, EnvironmentField};
use serde_json::json;
use std::fmt::Write;
use std::path::Path;
use std::time::Duration;

/// How long a side has for its part of the handshake.
const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);
/// How long a backup waits for its primary to listen.
const CONNECT_PATIENCE: Duration = Duration::from_secs(30);
const NS_PER_MS: u64 = 1_000_000;

/// The settings that a pair cannot do without.
pub struct PairSettings<'a> {
    /// The logging channel.
    pub address: Address,
    /// Where the test-and-set is made.
    pub directory: &'a Path,
    /// What the role machine is told.
    pub config: Config,
}

/// Checks the settings of a pair.
///
/// # Errors
/// [`CommandError::Setting`].
pub fn settings(pair: &PairConfiguration) -> Result<PairSettings<'_>, CommandError> {
    let missing = |setting| CommandError::setting(setting, "a protected pair needs it; see --help");
    let address = pair.channel.as_deref().ok_or_else(|| missing("channel"))?;
    let directory = pair
        .shared_directory
        .as_deref()
        .ok_or_else(|| missing("shared-directory"))?;
    let config = Config {
        timeout_ns: pair.timeout_ms.saturating_mul(NS_PER_MS),
        window_bytes_max: pair.window_bytes,
        lag_ns_max: pair.lag_ms_max.saturating_mul(NS_PER_MS),
        ..Config::default()
    };
    config
        .check()
        .map_err(|why| CommandError::setting("pair settings", why.to_string()))?;
    let address = address
        .parse()
        .map_err(|why| CommandError::setting("channel", format!("{why}")))?;
    Ok(PairSettings {
        address,
        directory,
        config,
    })
}

/// Random bytes for names.
///
/// # Errors
/// The host gives none.
pub fn fresh_name() -> Result<[u8; 16], CommandError> {
    let mut name = [0; 16];
    getrandom::fill(&mut name).map_err(|why| CommandError::setting("random bytes", why.to_string()))?;
    Ok(name)
}

fn hexadecimal(bytes: [u8; 16]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing into a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// What both sides must have the same: the machine, the pair's settings, and the storage they reach.
///
/// # Errors
/// [`CommandError::Setting`]: the storage cannot be used.
pub fn environment(
    plan: &Plan,
    configuration: &Configuration,
    settings: &PairSettings<'_>,
    pair: [u8; 16],
) -> Result<Environment, CommandError> {
    let mut environment = plan.environment(pair);
    let storage = storage::identity(settings.directory, fresh_name()?)?;
    let field = |name: &str, value: String| EnvironmentField {
        name: name.to_owned(),
        value,
    };
    environment.compared.extend([
        field("host processor", processor()),
        field("shared storage", hexadecimal(storage)),
        field("peer timeout in ms", configuration.pair.timeout_ms.to_string()),
        field("window in bytes", configuration.pair.window_bytes.to_string()),
        field("lag limit in ms", configuration.pair.lag_ms_max.to_string()),
    ]);
    Ok(environment)
}

fn channel_failed(why: ChannelError) -> CommandError {
    match why {
        ChannelError::NobodyAnswers { .. } => CommandError::Peer(Box::new(why)),
        other => CommandError::Channel(Box::new(other)),
    }
}

/// Refuses a channel whose round trip the timeout cannot bear.
fn check_round_trip(config: &Config, round_trip: Duration) -> Result<(), CommandError> {
    let round_trip_ns = u64::try_from(round_trip.as_nanos()).unwrap_or(u64::MAX);
    config
        .check_round_trip(round_trip_ns)
        .map_err(|why| CommandError::Peer(Box::new(why)))
}

/// Waits for a backup that fits. What is no Lockstep is turned away; a backup that differs ends the wait.
///
/// # Errors
/// [`CommandError::Channel`], [`CommandError::Peer`]. `None` when a signal came first.
pub async fn wait_for_backup(
    address: &Address,
    environment: &Environment,
    config: &Config,
    reporter: &mut Reporter,
    signals: &mut Signals,
) -> Result<Option<Connection>, CommandError> {
    let listener = Listener::bind(address).await.map_err(channel_failed)?;
    tracing::info!(address = %listener.address(), "waiting for the backup");
    reporter.event("listening", json!({ "address": listener.address().to_string() }));
    loop {
        let meeting = async {
            let mut connection = listener.accept().await.map_err(channel_failed)?;
            let round_trip = async {
                as_primary(&mut connection, environment, HANDSHAKE_LIMIT).await?;
                let enough = Duration::from_nanos(config.round_trip_ns_max());
                measuring::measure(&mut connection, enough, HANDSHAKE_LIMIT).await
            };
            match round_trip.await {
                Ok(round_trip) => check_round_trip(config, round_trip).map(|()| Some(connection)),
                Err(why) if is_wrong_backup(&why) => Err(CommandError::Peer(Box::new(why))),
                Err(why) => {
                    tracing::warn!("turned away: {why}");
                    Ok(None)
                }
            }
        };
        tokio::select! {
            met = meeting => if let Some(connection) = met? { return Ok(Some(connection)) },
            () = signals.received() => return Ok(None),
        }
    }
}

/// Whether a backup came that does not fit. Whoever else finds the port does not end the wait for it.
fn is_wrong_backup(why: &HandshakeError) -> bool {
    why.is_mismatch() && !matches!(why, HandshakeError::Foreign { .. })
}

/// Finds the primary. Returns the connection and the environment with the pair's name.
///
/// # Errors
/// [`CommandError::Channel`], [`CommandError::Peer`]. `None` when a signal came first.
pub async fn find_primary(
    address: &Address,
    environment: &Environment,
    config: &Config,
    signals: &mut Signals,
) -> Result<Option<(Connection, Environment)>, CommandError> {
    let meeting = async {
        let mut connection = connect(address, CONNECT_PATIENCE).await.map_err(channel_failed)?;
        let adopted = as_backup(&mut connection, environment, HANDSHAKE_LIMIT)
            .await
            .map_err(handshake_failed)?;
        let round_trip = measuring::answer(&mut connection, HANDSHAKE_LIMIT).await;
        check_round_trip(config, round_trip.map_err(handshake_failed)?)?;
        Ok(Some((connection, adopted)))
    };
    tracing::info!(%address, "looking for the primary");
    tokio::select! {
        met = meeting => met,
        () = signals.received() => Ok(None),
    }
}

fn handshake_failed(why: HandshakeError) -> CommandError {
    CommandError::Peer(Box::new(why))
}
