//! Place where a primary waits for its backup. Anybody can connect there, and nobody but a backup
//! changes anything.
//!
//! ```text
//!   accept ---> hear_backup, many beside each other ---> fits ------> welcome_backup, one at a time ---> the pair
//!                   |          |          |              other settings, same storage ---> the wait ends: status 43
//!                   |          |          +------------- everything else -----------------> closed and counted
//!                   |          +-- no opening within HANDSHAKE_LIMIT: closed and counted
//!                   +-- HANDSHAKES_MAX are open: the oldest is closed and counted
//! ```
//!
//! Once the pair is formed nobody listens any longer: what still waits in the queue is refused in
//! words.

use super::strangers::Strangers;
use super::terms::{HANDSHAKE_LIMIT, NAME_FIELD, STORAGE_FIELD};
use lockstep_logging_channel::Environment;
use lockstep_logging_channel::handshake::{HandshakeError, hear_backup, turn_away, welcome_backup};
use lockstep_logging_channel::message::Beginning;
use lockstep_logging_channel::transport::{Address, ChannelError, Connection, Listener};
use lockstep_process::causes::with_causes;
use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;
use tokio::task::{AbortHandle, JoinError, JoinSet};
use tokio::time::{Instant, sleep_until, timeout};

/// Handshakes that may be open at a time. Each has a read buffer of two records and an opening of
/// one, some 400 KiB: 25 MiB in all. A backup sends its opening as it connects, so that even a
/// flood has to bring as many connections within one round trip to push it out; it then connects
/// again.
const HANDSHAKES_MAX: usize = 64;
/// Pause after the host could give no connection: it has no descriptor or memory left.
const ACCEPT_PAUSE: Duration = Duration::from_millis(100);
/// Fields in which a stranger can differ, of which those before the shared storage are compared by
/// the handshake itself. The storage's name is random and known to those who reach it: whoever
/// names it, and the machine, is a side of this pair.
const STRANGE_FIELDS: [&str; 4] = [
    "software version",
    "log format version",
    STORAGE_FIELD,
    NAME_FIELD,
];
/// Reason that a second backup is given.
const TAKEN: &str = "this primary has its backup already";

/// Outcome of one handshake.
type Heard = Result<Connection, HandshakeError>;

/// The listener, and the handshakes that are open.
#[derive(Debug)]
pub struct Reception {
    listener: Listener,
    environment: Arc<Environment>,
    handshakes: JoinSet<Heard>,
    /// In the order in which they began.
    open: VecDeque<AbortHandle>,
    /// The listener rests until then.
    resting_until: Option<Instant>,
    strangers: Strangers,
}

impl Reception {
    /// Listens on `address`.
    ///
    /// # Errors
    /// As [`Listener::bind`].
    pub async fn open(address: &Address, environment: Environment) -> Result<Self, ChannelError> {
        Ok(Self {
            listener: Listener::bind(address).await?,
            environment: Arc::new(environment),
            handshakes: JoinSet::new(),
            open: VecDeque::new(),
            resting_until: None,
            strangers: Strangers::default(),
        })
    }

    /// Address at which it listens.
    #[must_use]
    pub fn address(&self) -> &Address {
        self.listener.address()
    }

    /// A backup that fits and waits for its welcome. Cancel-safe.
    ///
    /// # Errors
    /// [`ReceptionError`]: the listener no longer listens, or a side of this pair came that
    /// differs.
    pub async fn candidate(&mut self) -> Result<Connection, ReceptionError> {
        loop {
            let rest = self.resting_until;
            tokio::select! {
                accepted = self.listener.accept(), if rest.is_none() => self.admit(accepted)?,
                Some(heard) = self.handshakes.join_next() => {
                    if let Some(candidate) = self.judge(heard)? {
                        return Ok(candidate);
                    }
                }
                () = sleep_until(rest.unwrap_or_else(Instant::now)), if rest.is_some() => self.resting_until = None,
                () = self.strangers.due() => tell(self.strangers.tell()),
            }
        }
    }

    /// Makes the backup of this connection the primary's. `false`: it was lost while it waited.
    pub async fn welcome(&mut self, candidate: &mut Connection, beginning: Beginning) -> bool {
        // It says nothing before its welcome: what can be read is its end.
        let ended = timeout(Duration::ZERO, candidate.reader.read()).await.is_ok();
        if ended {
            tell(self.strangers.note("it left before it was welcomed"));
            return false;
        }
        let welcomed = welcome_backup(candidate, &self.environment, beginning, HANDSHAKE_LIMIT).await;
        if let Err(why) = &welcomed {
            tell(self.strangers.note(&with_causes(why)));
        }
        welcomed.is_ok()
    }

    /// The pair is formed: whoever else is here or in the queue is told so, without anybody waiting
    /// for it, and nobody listens any longer.
    pub async fn close(mut self) {
        tell(self.strangers.tell());
        for _ in 0..HANDSHAKES_MAX {
            // Only those that are there already.
            let Ok(accepted) = timeout(Duration::ZERO, self.listener.accept()).await else {
                break;
            };
            if self.admit(accepted).is_err() || self.resting_until.is_some() {
                break;
            }
        }
        let mut handshakes = self.handshakes;
        // Ends with the last handshake, within HANDSHAKE_LIMIT and the limit of the refusal.
        tokio::spawn(async move {
            while let Some(heard) = handshakes.join_next().await {
                if let Ok(Ok(mut second)) = heard {
                    turn_away(&mut second, TAKEN, HANDSHAKE_LIMIT).await;
                }
            }
        });
    }

    fn admit(&mut self, accepted: Result<Connection, ChannelError>) -> Result<(), ReceptionError> {
        let mut connection = match accepted {
            Ok(connection) => connection,
            Err(why) if why.may_pass() => {
                self.resting_until = Some(Instant::now() + ACCEPT_PAUSE);
                tell(self.strangers.note(&with_causes(&why)));
                return Ok(());
            }
            Err(why) => return Err(ReceptionError::Listener(why)),
        };
        self.open.retain(|handshake| !handshake.is_finished());
        if self.open.len() >= HANDSHAKES_MAX
            && let Some(oldest) = self.open.pop_front()
        {
            oldest.abort();
            tell(
                self.strangers
                    .note("it was silent, and too many others were there"),
            );
        }
        let environment = self.environment.clone();
        let handshake = async move {
            hear_backup(&mut connection, &environment, HANDSHAKE_LIMIT).await?;
            Ok(connection)
        };
        self.open.push_back(self.handshakes.spawn(handshake));
        Ok(())
    }

    fn judge(&mut self, heard: Result<Heard, JoinError>) -> Result<Option<Connection>, ReceptionError> {
        match heard {
            Ok(Ok(candidate)) => Ok(Some(candidate)),
            Ok(Err(why)) if is_of_this_pair(&why) => Err(ReceptionError::Differs(why)),
            Ok(Err(why)) => {
                tell(self.strangers.note(&with_causes(&why)));
                Ok(None)
            }
            // Closed as the oldest, and told then.
            Err(_) => Ok(None),
        }
    }
}

/// Reason why the wait for a backup is over without one.
#[derive(Debug, thiserror::Error)]
pub enum ReceptionError {
    /// Nobody can connect any longer.
    #[error(transparent)]
    Listener(ChannelError),
    /// A side of this pair came that differs.
    #[error(transparent)]
    Differs(HandshakeError),
}

/// True where a peer differs in something and names the same shared storage: it is the other side
/// of this pair, and its settings are wrong, or this side's.
fn is_of_this_pair(why: &HandshakeError) -> bool {
    matches!(why, HandshakeError::Differs { field, .. } if !STRANGE_FIELDS.contains(&field.as_str()))
}

/// A quiet line, if there is one.
fn tell(line: Option<String>) {
    if let Some(line) = line {
        tracing::info!("{line}");
    }
}

#[cfg(test)]
mod tests;
