//! Newcomers of a machine that acts alone: the reception is open for as long as it does.
//!
//! ```text
//!   closed -- open --> listening: a candidate, the place is free ---> welcomed, measured ---> to the loop, with the place
//!     ^                    |      a candidate, the place is taken --> put off: it may ask again
//!     |                    |      one that differs, a stranger -----> told, closed and counted
//!     +------ close -------+      the address cannot be listened on -> tried again
//! ```
//!
//! Nobody who comes here changes anything for the machine that runs. It is a task beside the loop:
//! a handshake takes its time.

use super::reception::{Reception, ReceptionError};
use super::terms::{HANDSHAKE_LIMIT, is_near_enough, measured};
use crate::machine::plan::BUILD_FIELD;
use lockstep_core::replica::role::Config;
use lockstep_logging_channel::handshake::{HandshakeError, put_off};
use lockstep_logging_channel::message::{Beginning, FollowsBy};
use lockstep_logging_channel::transport::{Address, ChannelError, Connection};
use lockstep_logging_channel::{Environment, Generation};
use lockstep_process::once_a_minute;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep};

/// Pause before an address that cannot be listened on is tried again: whoever listens there may be
/// about to end. Doubled each time.
const LISTEN_PAUSE: Duration = Duration::from_secs(1);
/// The longest of these pauses.
const LISTEN_PAUSE_MAX: Duration = Duration::from_secs(30);
/// Lines about refused newcomers in a minute. Who sends them is a side of this machine, with its
/// settings wrong: a unit file starts it every few seconds at most.
const REFUSALS_TOLD_MAX: u32 = 6;
/// Reason that a second newcomer is given.
const TAKEN: &str = "another newcomer is joining this machine";

/// The only place for a newcomer. It is taken until this is dropped.
#[derive(Debug)]
pub struct Place(#[expect(dead_code, reason = "it is held, not used")] OwnedSemaphorePermit);

/// Event at the reception.
#[derive(Debug)]
pub enum Arrival {
    /// It listens.
    Listening(Address),
    /// It cannot listen, and will try again.
    Deaf(String),
    /// A newcomer was welcomed.
    Newcomer(Connection, Place),
}

/// Settings that are needed to receive newcomers.
#[derive(Clone, Debug)]
pub struct Welcoming {
    /// Address that newcomers connect to.
    pub address: Address,
    /// Environment that newcomers must have too, with the name of the pair.
    pub environment: Environment,
    /// Settings, of which the round trip has to be right.
    pub config: Config,
}

/// The reception of a machine that runs.
#[derive(Debug)]
pub struct Newcomers {
    welcoming: Welcoming,
    /// Method by which whoever joins follows. It changes only while the place is free or taken by
    /// one who is lost, so each newcomer is told what is done with it.
    follows_by: watch::Sender<FollowsBy>,
    place: Arc<Semaphore>,
    open: Option<Open>,
}

/// An open reception: it is closed when this is dropped.
#[derive(Debug)]
struct Open {
    arrivals: mpsc::Receiver<Arrival>,
    task: JoinHandle<()>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Newcomers {
    /// A reception that is closed.
    #[must_use]
    pub fn new(welcoming: Welcoming, follows_by: FollowsBy) -> Self {
        Self {
            welcoming,
            follows_by: watch::Sender::new(follows_by),
            place: Arc::new(Semaphore::new(1)),
            open: None,
        }
    }

    /// Newcomers follow so from now on.
    pub fn follow_by(&mut self, follows_by: FollowsBy) {
        self.follows_by.send_replace(follows_by);
    }

    /// Opens it, for newcomers of `generation`.
    pub fn open(&mut self, generation: Generation) {
        let (to_loop, arrivals) = mpsc::channel(1);
        let receiving = Receiving {
            welcoming: self.welcoming.clone(),
            generation,
            follows_by: self.follows_by.subscribe(),
            place: self.place.clone(),
            to_loop,
            refusals: Refusals::default(),
        };
        let task = tokio::spawn(receiving.run());
        self.open = Some(Open { arrivals, task });
    }

    /// Closes it.
    pub fn close(&mut self) {
        self.open = None;
    }

    /// Returns the next event; waits for ever while the reception is closed. Cancel-safe.
    pub async fn next(&mut self) -> Arrival {
        if let Some(open) = &mut self.open
            && let Some(arrival) = open.arrivals.recv().await
        {
            return arrival;
        }
        std::future::pending().await
    }
}

struct Receiving {
    welcoming: Welcoming,
    generation: Generation,
    follows_by: watch::Receiver<FollowsBy>,
    place: Arc<Semaphore>,
    to_loop: mpsc::Sender<Arrival>,
    refusals: Refusals,
}

/// Newcomers that were refused, as people are told of them.
#[derive(Debug, Default)]
struct Refusals {
    minute: Option<Instant>,
    /// In this minute.
    told: u32,
    /// Since the last line.
    untold: u64,
}

impl Refusals {
    /// The line about one that was refused now, if one is due.
    fn note(&mut self, why: &str) -> Option<String> {
        let now = Instant::now();
        let in_minute = |since: Instant| now.duration_since(since) < once_a_minute::INTERVAL;
        if !self.minute.is_some_and(in_minute) {
            (self.minute, self.told) = (Some(now), 0);
        }
        if self.told == REFUSALS_TOLD_MAX {
            self.untold += 1;
            return None;
        }
        self.told += 1;
        let untold = match std::mem::take(&mut self.untold) {
            0 => String::new(),
            count => format!(", and {count} before it"),
        };
        Some(format!("a newcomer was refused{untold}: {why}"))
    }
}

impl Receiving {
    /// Receives until the loop is gone.
    async fn run(mut self) {
        let mut pause = LISTEN_PAUSE;
        while !self.to_loop.is_closed() {
            let (address, environment) = (&self.welcoming.address, self.welcoming.environment.clone());
            match Reception::open(address, environment).await {
                Ok(reception) => {
                    pause = LISTEN_PAUSE;
                    self.listen(reception).await;
                }
                Err(why) => self.deaf(&why).await,
            }
            sleep(pause).await;
            pause = (pause * 2).min(LISTEN_PAUSE_MAX);
        }
    }

    async fn listen(&mut self, mut reception: Reception) {
        let listening = Arrival::Listening(reception.address().clone());
        if self.to_loop.send(listening).await.is_err() {
            return;
        }
        loop {
            let candidate = match reception.candidate().await {
                Ok(candidate) => candidate,
                Err(ReceptionError::Differs(why)) => {
                    let keeps = match &why {
                        HandshakeError::Differs { field, .. } if field == BUILD_FIELD => {
                            ": a machine keeps the build with which it began"
                        }
                        _ => "",
                    };
                    let line = self.refusals.note(&format!("{why}{keeps}"));
                    line.iter().for_each(|line| tracing::warn!("{line}"));
                    continue;
                }
                Err(ReceptionError::Listener(why)) => {
                    self.deaf(&why).await;
                    return;
                }
            };
            if let Some(newcomer) = self.receive(&mut reception, candidate).await
                && self.to_loop.send(newcomer).await.is_err()
            {
                return;
            }
        }
    }

    /// Welcomes a newcomer that fits, if there is room.
    async fn receive(&self, reception: &mut Reception, mut candidate: Connection) -> Option<Arrival> {
        let Ok(permit) = self.place.clone().try_acquire_owned() else {
            put_off(&mut candidate, TAKEN, HANDSHAKE_LIMIT).await;
            return None;
        };
        let beginning = Beginning::joining(self.generation, *self.follows_by.borrow());
        if !reception.welcome(&mut candidate, beginning).await {
            return None;
        }
        let round_trip = measured(&mut candidate, &self.welcoming.config).await?;
        is_near_enough(&self.welcoming.config, round_trip)
            .then_some(Arrival::Newcomer(candidate, Place(permit)))
    }

    /// The loop is told, which tells people and the store.
    async fn deaf(&self, why: &ChannelError) {
        // After the loop has gone nobody has to be told.
        let _ = self.to_loop.send(Arrival::Deaf(why.to_string())).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pair::terms::STORAGE_FIELD;
    use lockstep_logging_channel::EnvironmentField;
    use lockstep_logging_channel::handshake::{HandshakeError, as_backup};
    use lockstep_logging_channel::measuring;
    use lockstep_logging_channel::transport::connect;
    use tempfile::TempDir;

    /// Longer than anything here takes.
    const PATIENCE: Duration = Duration::from_secs(60);

    fn environment(memory: &str, pair: [u8; 16]) -> Environment {
        let field = |name: &str, value: &str| EnvironmentField {
            name: name.to_owned(),
            value: value.to_owned(),
        };
        Environment {
            pair,
            compared: vec![field(STORAGE_FIELD, "ours"), field("memory", memory)],
            informative: Vec::new(),
        }
    }

    fn welcoming(address: &Address) -> Welcoming {
        Welcoming {
            address: address.clone(),
            environment: environment("64 MiB", [7; 16]),
            config: Config::default(),
        }
    }

    async fn open() -> (TempDir, Newcomers, Address) {
        let directory = tempfile::tempdir().unwrap();
        let address = Address::Unix {
            path: directory.path().join("channel"),
        };
        let mut newcomers = Newcomers::new(welcoming(&address), FollowsBy::Replay);
        newcomers.open(Generation(5));
        assert!(matches!(newcomers.next().await, Arrival::Listening(_)));
        (directory, newcomers, address)
    }

    /// A newcomer that connects, opens, and measures.
    async fn come(address: &Address, memory: &str) -> Result<(Connection, Beginning), HandshakeError> {
        let mut connection = connect(address, PATIENCE).await.unwrap();
        let here = environment(memory, [0; 16]);
        let (adopted, beginning) = as_backup(&mut connection, &here, PATIENCE).await?;
        assert_eq!(adopted.pair, [7; 16]);
        measuring::answer(&mut connection, PATIENCE).await?;
        Ok((connection, beginning))
    }

    #[tokio::test]
    async fn one_newcomer_is_taken_at_a_time_and_a_second_one_may_come_again() {
        let (_directory, mut newcomers, address) = open().await;
        let (came, arrival) = tokio::join!(come(&address, "64 MiB"), newcomers.next());
        let (_first, beginning) = came.unwrap();
        let replay = Beginning::joining(Generation(5), FollowsBy::Replay);
        assert_eq!(beginning, replay);
        let Arrival::Newcomer(_, place) = arrival else {
            panic!("{arrival:?}")
        };
        let second = come(&address, "64 MiB").await.unwrap_err();
        assert!(second.is_for_now(), "{second}");

        newcomers.follow_by(FollowsBy::Checkpoints);
        drop(place);
        let (came, arrival) = tokio::join!(come(&address, "64 MiB"), newcomers.next());
        let checkpoints = Beginning::joining(Generation(5), FollowsBy::Checkpoints);
        assert!(came.is_ok_and(|(_, beginning)| beginning == checkpoints));
        assert!(matches!(arrival, Arrival::Newcomer(..)));
    }

    #[tokio::test]
    async fn one_that_differs_is_told_and_the_next_one_is_taken() {
        let (_directory, mut newcomers, address) = open().await;
        let refused = come(&address, "32 MiB").await.unwrap_err();
        assert!(refused.to_string().contains("memory"), "{refused}");
        let (came, arrival) = tokio::join!(come(&address, "64 MiB"), newcomers.next());
        assert!(came.is_ok() && matches!(arrival, Arrival::Newcomer(..)));
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_are_told_in_a_bounded_number_of_lines_and_none_is_lost() {
        let mut refusals = Refusals::default();
        for _ in 0..REFUSALS_TOLD_MAX {
            assert_eq!(refusals.note("why").unwrap(), "a newcomer was refused: why");
        }
        assert!((0..5).all(|_| refusals.note("why").is_none()));
        sleep(once_a_minute::INTERVAL).await;
        let line = refusals.note("another").unwrap();
        assert_eq!(line, "a newcomer was refused, and 5 before it: another");
    }

    #[tokio::test(start_paused = true)]
    async fn an_address_in_use_is_told_and_tried_again() {
        let other = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address: Address = format!("tcp:{}", other.local_addr().unwrap()).parse().unwrap();
        let mut newcomers = Newcomers::new(welcoming(&address), FollowsBy::Replay);
        newcomers.open(Generation(5));
        for _ in 0..8 {
            let arrival = newcomers.next().await;
            let named = matches!(&arrival, Arrival::Deaf(why) if why.contains(&address.to_string()));
            assert!(named, "{arrival:?}");
        }
        drop(other);
        assert!(matches!(newcomers.next().await, Arrival::Listening(_)));
    }

    #[tokio::test]
    async fn nobody_listens_once_it_is_closed() {
        let (_directory, mut newcomers, address) = open().await;
        newcomers.close();
        // The task ends when it is polled next.
        while connect(&address, Duration::ZERO).await.is_ok() {
            tokio::task::yield_now().await;
        }
    }
}
