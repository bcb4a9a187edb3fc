//! Starts the machine and the replica loop of a side that has what it begins with.

use super::asking::Asking;
use super::diverging::Diverging;
use super::door::CpuSide;
use super::driver::{Driver, Over};
use super::feed;
use super::follows::Follows;
use super::holding::Holding;
use super::journal::{self, Shared};
use super::link::Link;
use super::newcomers::{Newcomers, Welcoming};
use super::ownership::Ownership;
use super::parts::Parts;
use super::report::Reporter;
use super::stop_point::{Step, pass};
use super::storage::{Answer, Storage};
use super::terms::HANDSHAKE_LIMIT;
use super::witness::Witnesses;
use crate::configuration::{Configuration, Pace};
use crate::error::RunError;
use crate::machine::Plan;
use crate::machine::thread::{MachineThread, Origin, start_live};
use crate::outside::{Live, Outsides, Signals, unless_stopped};
use lockstep_core::replica::driving::Standing;
use lockstep_core::replica::recorder::Start;
use lockstep_core::replica::role::{Config, Replica};
use lockstep_core::replica::transfer::Received;
use lockstep_kvm::ClockKind;
use lockstep_logging_channel::message::{FollowsBy, Message};
use lockstep_logging_channel::transport::{ChannelError, Connection};
use lockstep_logging_channel::{Generation, Sequence};
use lockstep_process::clock::role_ns;
use lockstep_process::status::Status;
use serde_json::json;
use std::sync::{Arc, OnceLock};
use tokio::sync::{mpsc, oneshot};
use tokio::time::timeout;

/// Role in which a side begins, with the connection to its peer, if there is one.
pub enum Beginning {
    /// The guest begins here, and its backup is there.
    Primary(Connection),
    /// The guest begins elsewhere, and this side replays it from the beginning.
    Backup(Connection),
    /// The guest begins here, and nobody else is there.
    Alone,
    /// The guest runs elsewhere, and this side has what it needs to join.
    Newcomer(Connection, Box<Received>),
}

impl Beginning {
    fn peer(&self) -> Option<String> {
        match self {
            Self::Primary(connection) | Self::Backup(connection) | Self::Newcomer(connection, _) => {
                Some(connection.peer().to_owned())
            }
            Self::Alone => None,
        }
    }
}

/// A side that is ready to begin.
pub struct Launch {
    /// Its role at the beginning, and its connection.
    pub beginning: Beginning,
    /// Settings. The generation is that in which the machine is.
    pub config: Config,
    /// The machine.
    pub plan: Plan,
    /// The pair's name.
    pub pair: [u8; 16],
    /// Claims.
    pub storage: Storage,
    /// Their answers.
    pub answers: mpsc::UnboundedReceiver<Answer>,
    /// The vCPU's ends of the outside.
    pub live: Live,
    /// The host's ends.
    pub host: Outsides,
    /// SIGTERM and SIGINT.
    pub signals: Signals,
    /// Reports.
    pub reporter: Reporter,
    /// Witnesses.
    pub witnesses: Witnesses,
    /// Settings for newcomers, which may join once this side acts alone.
    pub welcoming: Welcoming,
    /// Bandwidth of what newcomers are sent.
    pub pace: Pace,
    /// The machine in the store.
    pub holding: Holding,
    /// Records beside its images.
    pub ownership: Ownership,
    /// Divergences of this side.
    pub diverging: Diverging,
    /// Method by which the backup follows.
    pub follows: Follows,
}

impl Launch {
    /// Runs until the replica halts.
    ///
    /// # Errors
    /// [`RunError`].
    pub async fn run(mut self, configuration: &Configuration) -> Result<Over, RunError> {
        let Live {
            mut outlets,
            arrivals,
            ordered,
        } = self.live;
        self.storage.prepare(Generation(self.config.generation.0 + 1));
        tell(&self.beginning, &mut self.reporter);

        let shared = Arc::new(Shared::default());
        let won = Arc::new(OnceLock::new());
        let (to_loop, from_cpu) = journal::to_loop();
        let (entering, mac) = (self.plan.entering(), self.plan.mac());
        // Who follows without running asks for what was not done when it goes live: until then its
        // disks do what those of the other side have done.
        let requests = match self.follows.by() {
            FollowsBy::Replay => Some(arrivals.disks().clone()),
            FollowsBy::Checkpoints => None,
        };
        let (loop_itself, orders) = (to_loop.clone(), ordered.clone());
        let cpu_side = CpuSide {
            to_loop,
            shared: shared.clone(),
            won: won.clone(),
            arrivals,
            ordered: ordered.clone(),
            entering,
            follows_by: self.follows.by(),
            memory_bytes: self.plan.memory_bytes(),
            disks: self.plan.board().disks().collect(),
            ownership: self.ownership.clone(),
        };
        let (stands, standing_there) = oneshot::channel();
        let mut config = self.config;
        let peer = self.beginning.peer();
        let first = Start {
            generation: config.generation,
            sequence: Sequence(1),
        };
        let (origin, make_door, items, link) = match self.beginning {
            Beginning::Primary(connection) => {
                let link = Side::Primary(connection);
                (Origin::Boot, cpu_side.live(first), None, link)
            }
            Beginning::Alone => {
                shared.go_alone();
                (Origin::Boot, cpu_side.live(first), None, Side::Alone)
            }
            Beginning::Backup(connection) => {
                let (items, out) = feed::items();
                let make_door = cpu_side.replaying(out, None, stands);
                (Origin::Boot, make_door, Some(items), Side::Backup(connection))
            }
            Beginning::Newcomer(connection, received) => {
                let (items, out) = feed::items();
                config.common = Sequence(received.position.sequence);
                let make_door = cpu_side.replaying(out, Some(received.position), stands);
                let link = Side::Newcomer(connection);
                (Origin::Captured(received), make_door, Some(items), link)
            }
        };
        let is_live = items.is_none();
        if is_live {
            outlets.network().announce(self.pair, config.generation, mac);
        }
        let images = self.plan.images().clone();
        let mut machine = start_live(self.plan, origin, ordered, requests, make_door)?;
        let now_ns = role_ns;
        let (replica, link, standing) = match link {
            Side::Primary(connection) => (
                Replica::primary(config, now_ns()),
                Link::over(connection),
                Standing::new(true),
            ),
            Side::Backup(connection) => {
                let recording = self.holding.identity().record(config.generation);
                if unless_stopped(recording, &mut self.signals).await?.is_none() {
                    return Ok(Over::Ended(Status::Success));
                }
                (
                    Replica::backup(config, now_ns()),
                    Link::over(connection),
                    Standing::new(false),
                )
            }
            Side::Alone => (
                Replica::alone(config, now_ns()),
                Link::default(),
                Standing::alone(),
            ),
            Side::Newcomer(mut connection) => {
                stands_there(&mut machine, standing_there).await?;
                pass(Step::Stands);
                let recording = self.holding.identity().record(config.generation);
                if unless_stopped(recording, &mut self.signals).await?.is_none() {
                    return Ok(Over::Ended(Status::Success));
                }
                if let Err(why) = loaded(&mut connection).await {
                    self.reporter.event("not_armed", json!({}));
                    return Err(why);
                }
                (
                    Replica::newcomer(config, now_ns()),
                    Link::over(connection),
                    Standing::new(false),
                )
            }
        };
        let mut newcomers = Newcomers::new(self.welcoming, self.follows.by());
        if standing.alone {
            newcomers.open(config.generation);
        }
        let mut holding = self.holding;
        holding.follows(&self.follows);
        if is_live {
            holding.hold(config.generation);
        }
        let parts = Parts {
            replica: replica.map_err(|why| RunError::setting("pair settings", why.to_string()))?,
            link,
            from_cpu,
            to_loop: loop_itself,
            ordered: orders,
            shared,
            items,
            won,
            storage: self.storage,
            answers: self.answers,
            outlets,
            frames: self.host.frames,
            frames_in: self.host.frames_in,
            disks: self.host.disks,
            images,
            ownership: self.ownership,
            kicks: entering.clock != ClockKind::None,
            control: self.host.control,
            signals: self.signals,
            machine,
            reporter: self.reporter,
            witnesses: self.witnesses,
            asking: if is_live {
                Asking::default()
            } else {
                Asking::over(configuration)
            },
            pair: self.pair,
            mac,
            newcomers,
            sending: None,
            pace: self.pace,
            holding,
            peer,
            diverging: self.diverging,
            follows: self.follows,
        };
        Driver::new(parts, standing).run().await
    }
}

/// Role of a side, with its connection.
enum Side {
    Primary(Connection),
    Backup(Connection),
    Alone,
    Newcomer(Connection),
}

fn tell(beginning: &Beginning, reporter: &mut Reporter) {
    match beginning {
        Beginning::Primary(connection) => {
            let by = reporter.by_checkpoints();
            tracing::info!("protected{by}: the backup is {}", connection.peer());
            let mode = reporter.follows_by.to_string();
            reporter.event("protected", json!({ "role": "primary", "mode": mode }));
        }
        Beginning::Backup(connection) => {
            let by = reporter.by_checkpoints();
            tracing::info!("protecting {}{by}", connection.peer());
            let mode = reporter.follows_by.to_string();
            reporter.event("protected", json!({ "role": "backup", "mode": mode }));
        }
        Beginning::Alone => {
            tracing::warn!("the machine runs, and is not protected: no backup is there yet");
            reporter.event("alone", json!({}));
        }
        // Its lines are that it joins, and that all of the machine is here.
        Beginning::Newcomer(..) => reporter.event("joining", json!({})),
    }
}

/// Waits until the machine that was received stands.
async fn stands_there(machine: &mut MachineThread, stands: oneshot::Receiver<()>) -> Result<(), RunError> {
    if stands.await.is_err() {
        // It says why; it cannot have ended well before it began.
        machine.outcome().await?;
    }
    Ok(())
}

/// Says to its holder that the machine stands.
async fn loaded(connection: &mut Connection) -> Result<(), RunError> {
    let lost = |why: ChannelError| {
        tracing::warn!("the machine was lost: {why}");
        RunError::NotArmed
    };
    pass(Step::BeforeLoaded);
    connection.writer.queue(&Message::Loaded).map_err(lost)?;
    // If it takes longer, the loop finds out why.
    let written = timeout(HANDSHAKE_LIMIT, connection.writer.flush()).await;
    pass(Step::AfterLoaded);
    written.map_or(Ok(()), |written| written.map_err(lost))
}
