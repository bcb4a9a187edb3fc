//! Terms of a pair: what both sides must have the same, how near they must be, and how long each
//! has to say so.

use crate::build;
use crate::configuration::Configuration;
use crate::error::RunError;
use crate::machine::Plan;
use crate::machine::plan::BUILD_FIELD;
use lockstep_core::replica::role::{Config, RoundTripError};
use lockstep_kvm::processor::processor;
use lockstep_logging_channel::measuring;
use lockstep_logging_channel::transport::{ChannelError, Connection};
use lockstep_logging_channel::{Environment, EnvironmentField};
use std::time::Duration;

/// Time that a peer has for its opening, and for taking what it is sent.
pub(super) const HANDSHAKE_LIMIT: Duration = Duration::from_secs(5);
/// Time that the two have to measure their round trip.
pub(super) const MEASURING_LIMIT: Duration = Duration::from_secs(5);
/// Longest time that a backup waits for its primary: to listen, and to answer. Storage that does
/// not answer at the start has as long.
pub const CONNECT_PATIENCE: Duration = Duration::from_secs(30);
/// Name of the field with the identity of the shared storage. It is compared first: a peer that
/// differs in another field shares it.
pub(super) const STORAGE_FIELD: &str = "shared storage";
/// Name of the field with the machine's name.
pub(super) const NAME_FIELD: &str = "machine name";

/// Name of the field with the method by which a backup follows.
const MODE_FIELD: &str = "mode";

/// Random bytes for names.
///
/// # Errors
/// The host gives none.
pub fn fresh_name() -> Result<[u8; 16], RunError> {
    let mut name = [0; 16];
    getrandom::fill(&mut name).map_err(RunError::no_random_bytes)?;
    Ok(name)
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
    let build = field(BUILD_FIELD, build::name()?.to_owned());
    let mode = field(MODE_FIELD, configuration.mode.to_string());
    environment.compared.splice(0..0, [build, mode]);
    environment.compared.extend([
        field("host processor", processor()),
        field("peer timeout in ms", configuration.pair.timeout_ms.to_string()),
        field("window in bytes", configuration.pair.window_bytes.to_string()),
        field("lag limit in ms", configuration.pair.lag_ms_max.to_string()),
        field("kind of network", configuration.network.kind().to_owned()),
    ]);
    // First whose machine it is: what else differs between two machines is of no interest.
    let name = field(NAME_FIELD, configuration.pair.name.to_string());
    let storage = field(STORAGE_FIELD, hex::encode(storage));
    environment.compared.splice(0..0, [storage, name]);
    Ok(environment)
}

/// Refuses a channel whose round trip the timeout cannot bear.
pub(super) fn check_round_trip(config: &Config, round_trip: Duration) -> Result<(), RunError> {
    round_trip_fits(config, round_trip).map_err(|why| RunError::Peer(Box::new(why)))
}

/// The same, as the role machine says it.
pub(super) fn round_trip_fits(config: &Config, round_trip: Duration) -> Result<(), RoundTripError> {
    let round_trip_ns = u64::try_from(round_trip.as_nanos()).unwrap_or(u64::MAX);
    config.check_round_trip(round_trip_ns)
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

/// A channel that cannot be used: by its configuration, or because nobody answers.
pub(super) fn channel_failed(why: ChannelError) -> RunError {
    match why {
        ChannelError::NobodyAnswers { .. } => RunError::Peer(Box::new(why)),
        other => RunError::Channel(Box::new(other)),
    }
}
