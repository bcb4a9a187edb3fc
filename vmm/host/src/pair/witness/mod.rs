//! Asks the witnesses all the time, and tells the role machine of every answer.
//!
//! ```text
//!   10.0.2.2        ARP probes through the guest's attachment: written and read by the replica loop   arp.rs
//!   tcp:HOST:PORT   connections from the host: one task each, of which the loop hears by a channel
//! ```
//!
//! A station answers by existing: a connection that is refused proves as much as one that is
//! accepted. An accepted one is reset at once, so that no port waits for it on either side. Nothing
//! is decided here: what an answer is worth is the role machine's, `replica/role/witness.rs`.

mod address;
mod arp;

use self::arp::ArpProber;
use super::clock::role_ns;
use super::report::Reporter;
use super::terms::fresh_name;
use crate::error::RunError;
pub use address::{WitnessAddress, WitnessAddressError};
use lockstep_core::replica::role::{Config, Report};
use nix::sys::socket::{setsockopt, sockopt};
use serde_json::json;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::net::{TcpStream, lookup_host};
use tokio::sync::mpsc;
use tokio::task::JoinSet;
use tokio::time::{Interval, MissedTickBehavior, interval, timeout};

/// Longest time in which the name of a witness must be found.
const LOOKUP_LIMIT: Duration = Duration::from_secs(5);

/// Answers that may wait for the loop: those of eight witnesses in a timeout. What there is no room
/// for is as good as not answered.
const ANSWERS_WAITING_MAX: usize = 64;

/// A witness has answered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Answer {
    /// Ordinal of the witness, from 0.
    pub witness: usize,
    /// Time at which it was asked, on the role machine's clock.
    pub asked_at_ns: u64,
}

/// A task for the loop.
#[derive(Debug)]
pub enum Due {
    /// A witness has answered.
    Answer(Answer),
    /// These frames are to be sent.
    Probes(Vec<Vec<u8>>),
}

/// The witnesses of this side.
pub struct Witnesses {
    names: Vec<String>,
    arp: ArpProber,
    interval: Interval,
    answers: mpsc::Receiver<Answer>,
    // Kept, so that the channel stays open where nobody is asked by TCP.
    _answered: mpsc::Sender<Answer>,
    _tasks: JoinSet<()>,
}

impl Witnesses {
    /// Finds the witnesses by their names, once, and begins to ask those by TCP.
    ///
    /// # Errors
    /// [`RunError::Setting`]: one is not found.
    pub async fn open(addresses: &[WitnessAddress], config: &Config) -> Result<Self, RunError> {
        let names: Vec<String> = addresses.iter().map(ToString::to_string).collect();
        let every = Duration::from_nanos(config.witness_interval_ns());
        let (answered, answers) = mpsc::channel(ANSWERS_WAITING_MAX);
        let mut tasks = JoinSet::new();
        let mut stations = Vec::new();
        for (witness, address) in addresses.iter().enumerate() {
            match address {
                WitnessAddress::Arp(address) => stations.push((witness, *address)),
                WitnessAddress::Tcp { host, port } => {
                    let address = find(host, *port).await?;
                    tasks.spawn(ask_by_tcp(witness, address, every, answered.clone()));
                }
            }
        }
        if !names.is_empty() {
            tracing::info!(
                witnesses = names.join(" "),
                "asking whether clients reach this side"
            );
        }
        Ok(Self {
            names,
            arp: ArpProber::new(stations.into_iter(), fresh_name()?),
            interval: ticks(every),
            answers,
            _answered: answered,
            _tasks: tasks,
        })
    }

    /// Names of the witnesses, in their order.
    #[must_use]
    pub fn names(&self) -> Vec<String> {
        self.names.clone()
    }

    /// Waits for what there is to do. Cancel-safe.
    pub async fn due(&mut self) -> Due {
        tokio::select! {
            Some(answer) = self.answers.recv() => Due::Answer(answer),
            _ = self.interval.tick(), if self.arp.is_needed() => Due::Probes(self.arp.probes(role_ns())),
        }
    }

    /// The frame, where it is the guest's; otherwise it was for the prober, and `answered` is given
    /// what it says.
    pub fn sift(&mut self, frame: Vec<u8>, answered: impl FnOnce(Answer)) -> Option<Vec<u8>> {
        let Some(answer) = self.arp.take(&frame) else {
            return Some(frame);
        };
        if let Some((witness, asked_at_ns)) = answer {
            answered(Answer { witness, asked_at_ns });
        }
        None
    }
}

async fn find(host: &str, port: u16) -> Result<SocketAddr, RunError> {
    let refuse = |why: String| RunError::setting("witness", format!("tcp:{host}:{port} {why}"));
    let found = timeout(LOOKUP_LIMIT, lookup_host((host, port))).await;
    match found {
        Ok(Ok(mut addresses)) => addresses
            .next()
            .ok_or_else(|| refuse("has no address".to_owned())),
        Ok(Err(why)) => Err(refuse(format!("is not found: {why}"))),
        Err(_) => Err(refuse(format!(
            "is not found within {LOOKUP_LIMIT:?}: name it by its address"
        ))),
    }
}

fn ticks(every: Duration) -> Interval {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    ticks
}

async fn ask_by_tcp(witness: usize, address: SocketAddr, every: Duration, answered: mpsc::Sender<Answer>) {
    let mut ticks = ticks(every);
    while !answered.is_closed() {
        ticks.tick().await;
        let asked_at_ns = role_ns();
        // A kernel repeats a lost SYN after a second: a question is given up after two intervals,
        // and a new one asked.
        let outcome = timeout(2 * every, TcpStream::connect(address)).await;
        let answers = match outcome {
            Ok(Ok(stream)) => {
                reset(&stream);
                true
            }
            Ok(Err(why)) => {
                tracing::trace!(%address, %why, "a witness is not connected to");
                matches!(
                    why.kind(),
                    ErrorKind::ConnectionRefused | ErrorKind::ConnectionReset
                )
            }
            Err(_) => false,
        };
        if answers {
            // A full channel: the loop does not hear anything at the moment.
            let _ = answered.try_send(Answer { witness, asked_at_ns });
        }
    }
}

/// Has the connection reset when it is dropped.
fn reset(stream: &TcpStream) {
    let at_once = libc::linger {
        l_onoff: 1,
        l_linger: 0,
    };
    if let Err(why) = setsockopt(stream, sockopt::Linger, &at_once) {
        tracing::trace!(%why, "a witness is disconnected from in the usual way");
    }
}

/// Tells people and programs what the role machine says of witnesses. Other reports are not told
/// here.
pub fn tell(reporter: &mut Reporter, report: &Report) {
    let name = |witness: usize| {
        reporter
            .witnesses
            .get(witness)
            .cloned()
            .unwrap_or_else(|| witness.to_string())
    };
    match report {
        Report::WaitingForWitness { wait_ns } => {
            let wait_ms = wait_ns / 1_000_000;
            tracing::warn!(wait_ms, "waiting before claiming: no witness reachable");
            reporter.event("waiting_for_witness", json!({ "wait_ns": wait_ns }));
        }
        Report::WitnessLost { witness, any } => {
            let name = name(*witness);
            if *any {
                tracing::warn!("witness {name} does not answer");
            } else {
                tracing::warn!(
                    "witness {name} does not answer, and no other: clients may not reach this side"
                );
            }
            reporter.event("witness_lost", json!({ "witness": name, "any": any }));
        }
        Report::WitnessBack { witness } => {
            let name = name(*witness);
            tracing::info!("witness {name} answers again");
            reporter.event("witness_back", json!({ "witness": name }));
        }
        _ => {}
    }
}

#[cfg(test)]
mod tests;
