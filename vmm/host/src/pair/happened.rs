//! Events that the replica loop waits for.

use super::FromCpu;
use super::clock::role_ns;
use super::holding::{Holding, Noticed};
use super::link::Link;
use super::newcomers::{Arrival, Newcomers};
use super::parts::Parts;
use super::sending::{Sending, Transferred};
use super::storage::Answer;
use super::turns;
use super::witness::{Due, Witnesses};
use crate::disk::DiskThreads;
use crate::error::RunError;
use crate::machine::MachineThread;
use crate::outside::Signals;
use lockstep_core::machine::run::Ended;
use lockstep_core::replica::driving::Turns;
use lockstep_logging_channel::Record;
use lockstep_logging_channel::transport::ChannelError;
use lockstep_network::NetworkReceiver;
use std::future::pending;
use std::pin::pin;
use std::time::Duration;
use tokio::sync::mpsc;

/// An event of the replica loop.
pub enum Happened {
    /// The vCPU thread has a message.
    Cpu(FromCpu),
    /// A record of the peer, the end of the connection, or its failure.
    Peer(Result<Option<Record>, ChannelError>),
    /// A frame for the guest.
    Frame(Vec<u8>),
    /// The store has answered.
    Answer(Answer),
    /// A witness is to be asked, or has answered.
    Witness(Due),
    /// The time that the role machine asked for.
    Wake,
    /// A signal asks for the end.
    Stop,
    /// Something happened at the reception.
    Arrival(Arrival),
    /// The transfer to a newcomer has gone on, or is over.
    Transferred(Transferred),
    /// The store shows something to the holder of a generation.
    Noticed(Noticed),
    /// The machine has ended.
    Ended(Result<Ended, RunError>),
    /// A disk has failed, or works again.
    Disk,
    /// The bytes queued for the peer are written, or cannot be.
    Flushed(Result<(), ChannelError>),
}

/// Events that are possible in this state of the loop.
#[derive(Clone, Copy, Debug)]
pub struct Waits {
    /// The role machine wants to be stepped then.
    pub wake_at_ns: Option<u64>,
    /// The connection to the peer stands.
    pub connected: bool,
    /// The connection is being closed.
    pub closing: bool,
    /// The machine has not ended.
    pub runs: bool,
}

/// Sources of the next thing that happens.
pub struct Sources<'a> {
    /// From and to the peer.
    pub link: &'a mut Link,
    /// From the vCPU thread.
    pub from_cpu: &'a mut mpsc::Receiver<FromCpu>,
    /// From the store.
    pub answers: &'a mut mpsc::UnboundedReceiver<Answer>,
    /// From the witnesses.
    pub witnesses: &'a mut Witnesses,
    /// From the network.
    pub frames: &'a mut NetworkReceiver,
    /// The vCPU thread's end.
    pub machine: &'a mut MachineThread,
    /// SIGTERM and SIGINT.
    pub signals: &'a mut Signals,
    /// The reception.
    pub newcomers: Option<&'a mut Newcomers>,
    /// The transfer to a newcomer.
    pub sending: Option<&'a mut Sending>,
    /// The machine in the store.
    pub holding: Option<&'a mut Holding>,
    /// Its disks.
    pub disks: &'a DiskThreads,
}

impl<'a> Sources<'a> {
    /// Those of the loop.
    pub fn of(parts: &'a mut Parts) -> Self {
        Self {
            link: &mut parts.link,
            from_cpu: &mut parts.from_cpu,
            answers: &mut parts.answers,
            witnesses: &mut parts.witnesses,
            frames: &mut parts.frames,
            machine: &mut parts.machine,
            signals: &mut parts.signals,
            newcomers: Some(&mut parts.newcomers),
            sending: parts.sending.as_mut(),
            holding: Some(&mut parts.holding),
            disks: &parts.disks,
        }
    }
}

/// Returns the next thing that happens. Writing and waking come first: each is over when it was
/// done, and comes back only after something else has. The others take turns.
pub async fn next(sources: Sources<'_>, waits: Waits, order: &mut Turns) -> Happened {
    let Waits {
        wake_at_ns,
        connected,
        closing,
        runs,
    } = waits;
    let (mut reading, mut writing) = sources.link.halves();
    let has_output = closing || connected && writing.is_due();
    let record = pin!(when(connected, async { Happened::Peer(reading.record().await) }));
    let message = pin!(async { Happened::Cpu(some(sources.from_cpu.recv()).await) });
    let answer = pin!(async { Happened::Answer(some(sources.answers.recv()).await) });
    let due = pin!(async { Happened::Witness(sources.witnesses.due().await) });
    let frame = pin!(async { Happened::Frame(sources.frames.recv().await) });
    let ended = pin!(when(runs, async {
        Happened::Ended(sources.machine.outcome().await)
    }));
    let arrival = pin!(async {
        match sources.newcomers {
            Some(newcomers) => Happened::Arrival(newcomers.next().await),
            None => pending().await,
        }
    });
    let transferred = pin!(async {
        match sources.sending {
            Some(sending) => Happened::Transferred(sending.next().await),
            None => pending().await,
        }
    });
    let noticed = pin!(async {
        match sources.holding {
            Some(holding) => Happened::Noticed(holding.notices().await),
            None => pending().await,
        }
    });
    let disk = pin!(async {
        sources.disks.noticed().await;
        Happened::Disk
    });
    let stop = pin!(async {
        sources.signals.received().await;
        Happened::Stop
    });
    tokio::select! {
        biased;
        outcome = writing.flush(closing), if has_output => Happened::Flushed(outcome),
        () = sleep_until(wake_at_ns), if wake_at_ns.is_some() => Happened::Wake,
        happened = turns::next(order, [record, message, answer, due, frame, ended, arrival, transferred, noticed, disk, stop]) => happened,
    }
}

async fn sleep_until(at_ns: Option<u64>) {
    let after_ns = at_ns.unwrap_or(0).saturating_sub(role_ns());
    tokio::time::sleep(Duration::from_nanos(after_ns)).await;
}

/// `future`, or nothing for ever.
async fn when<T>(wanted: bool, future: impl Future<Output = T>) -> T {
    if wanted { future.await } else { pending().await }
}

/// Returns what `future` brings. A channel that is over brings nothing, and does not happen again
/// and again.
async fn some<T>(future: impl Future<Output = Option<T>>) -> T {
    match future.await {
        Some(brought) => brought,
        None => pending().await,
    }
}

#[cfg(test)]
mod tests;
