//! Sends a machine that runs to a newcomer, beside the replica loop.
//!
//! ```text
//!   transfer thread --> records, a few waiting --> this task, at its pace --> newcomer
//!                                                  this task <-- Loaded ------ newcomer
//!                                                  the loop <-- the connection, for the log
//! ```
//!
//! Whatever fails here is the newcomer's loss: the machine runs on. A newcomer that takes nothing
//! is given up.

use super::newcomers::Place;
use super::stop_point::{Step, pass};
use crate::configuration::Pace;
use crate::live::Control;
use crate::machine::transfer::{self, Sent, Shown, Transfer, Way};
use lockstep_logging_channel::message::{FollowsBy, Message, Piece};
use lockstep_logging_channel::transport::{ChannelError, Connection};
use lockstep_logging_channel::{Kind, Record};
use lockstep_process::causes::with_causes;
use std::time::Duration;
use tokio::sync::{mpsc, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep_until, timeout};

/// Records that wait for the channel: 8 of at most 128 KiB are 1 MiB.
const RECORDS_WAITING_MAX: usize = 8;
/// A newcomer that takes nothing for so long is given up.
const STALL_LIMIT: Duration = Duration::from_secs(10);
/// A newcomer that has everything has so long until its machine stands: 3 GiB are mapped, and
/// checked, in a few seconds.
const LOADED_LIMIT: Duration = Duration::from_secs(60);
/// Between two looks at the progress of a transfer: as often as signs of life are written.
const SHOW_INTERVAL: Duration = Duration::from_secs(1);
/// Time that a pace may catch up: what was not used longer ago is lost.
const BURST: Duration = Duration::from_millis(50);

/// Schedule of the records.
#[derive(Debug)]
struct Paced {
    pace: Pace,
    next_at: Instant,
}

impl Paced {
    fn new(pace: Pace) -> Self {
        Self {
            pace,
            next_at: Instant::now(),
        }
    }

    /// So many bytes leave now; gives the time at which the next may.
    fn sent(&mut self, bytes: usize) -> Instant {
        let Some(rate) = self.pace.bytes_per_second else {
            return self.next_at;
        };
        let ns = (bytes as u128) * 1_000_000_000 / u128::from(rate.max(1));
        let takes = Duration::from_nanos(u64::try_from(ns).unwrap_or(u64::MAX));
        let earliest = Instant::now().checked_sub(BURST).unwrap_or(self.next_at);
        self.next_at = self.next_at.max(earliest) + takes;
        self.next_at
    }
}

/// Reason why a newcomer was lost.
pub type Lost = String;

/// A newcomer that has loaded the machine.
#[derive(Debug)]
pub struct Newcomer {
    /// Its connection, for the log.
    pub connection: Connection,
    /// Its place.
    pub place: Place,
    /// Summary of what was sent to it.
    pub sent: Sent,
    /// Time until it had everything.
    pub took: Duration,
}

/// A transfer to a newcomer. Dropped, the connection is closed, and the place is free when the
/// machine is no longer read.
#[derive(Debug)]
pub struct Sending {
    task: JoinHandle<Result<Newcomer, Lost>>,
    progress: watch::Receiver<Shown>,
    shown_at: Instant,
}

/// An event of a transfer.
#[derive(Debug)]
pub enum Transferred {
    /// It goes on, and its progress is to be shown.
    Further,
    /// The newcomer has said that its machine stands, or is lost. Nothing follows.
    Over(Box<Result<Newcomer, Lost>>),
}

impl Drop for Sending {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Sending {
    /// Begins to send the machine of `pair` under `control` to one who `follows_by` replay or by
    /// checkpoints.
    #[must_use]
    pub fn begin(
        connection: Connection,
        place: Place,
        control: Control,
        pair: [u8; 16],
        pace: Pace,
        follows_by: FollowsBy,
    ) -> Self {
        let (show, progress) = watch::channel(Shown::default());
        let task = tokio::spawn(send(connection, place, control, pair, pace, follows_by, show));
        Self {
            task,
            progress,
            shown_at: Instant::now(),
        }
    }

    /// Progress of the transfer.
    #[must_use]
    pub fn progress(&self) -> Shown {
        *self.progress.borrow()
    }

    /// The next event. Cancel-safe; not to be asked again after the last.
    pub async fn next(&mut self) -> Transferred {
        let outcome = tokio::select! {
            outcome = &mut self.task => outcome,
            () = sleep_until(self.shown_at + SHOW_INTERVAL) => {
                self.shown_at = Instant::now();
                return Transferred::Further;
            }
        };
        let outcome = outcome.unwrap_or_else(|why| Err(format!("its transfer ended: {why}")));
        Transferred::Over(Box::new(outcome))
    }
}

/// A machine that is read, and the place of the newcomer for whom. The place is free once the
/// machine is no longer read, because two transfers cannot read it.
struct Reading(Option<(Transfer, Place)>);

impl Reading {
    fn progress(&self) -> Shown {
        self.0
            .as_ref()
            .map(|(transfer, _)| transfer.progress())
            .unwrap_or_default()
    }

    async fn sent(&mut self) -> Result<Sent, Lost> {
        match &mut self.0 {
            Some((transfer, _)) => transfer.outcome().await.map_err(|why| with_causes(&why)),
            None => Err("its transfer is over".to_owned()),
        }
    }

    fn into_place(mut self) -> Result<Place, Lost> {
        let (_, place) = self.0.take().ok_or("its transfer is over")?;
        Ok(place)
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        if let Some((mut transfer, place)) = self.0.take() {
            tokio::spawn(async move {
                let _ = transfer.outcome().await;
                drop(place);
            });
        }
    }
}

async fn send(
    mut connection: Connection,
    place: Place,
    control: Control,
    pair: [u8; 16],
    pace: Pace,
    follows_by: FollowsBy,
    show: watch::Sender<Shown>,
) -> Result<Newcomer, Lost> {
    let (records, mut taken) = mpsc::channel(RECORDS_WAITING_MAX);
    let transfer = transfer::send_to(control, pair, Way::Decided, follows_by, records)
        .map_err(|why| format!("the host starts no thread for its transfer: {why}"))?;
    let mut reading = Reading(Some((transfer, place)));
    let mut paced = Paced::new(pace);
    let mut may_send_at = Instant::now();
    let begun = Instant::now();
    loop {
        let Connection { reader, writer } = &mut connection;
        let next = async {
            sleep_until(may_send_at).await;
            taken.recv().await
        };
        let record = tokio::select! {
            biased;
            said = reader.read() => return Err(unwanted(said)),
            record = next => record,
        };
        show.send_replace(reading.progress());
        let Some(bytes) = record else { break };
        may_send_at = paced.sent(bytes.len());
        pass(Step::BeforePiece);
        let piece = Message::Piece(Piece { bytes });
        writer.queue(&piece).map_err(|why| with_causes(&why))?;
        written(timeout(STALL_LIMIT, writer.flush()).await)?;
    }
    let sent = reading.sent().await?;
    let took = begun.elapsed();
    tell(&sent, took);
    pass(Step::AllSent);
    match timeout(LOADED_LIMIT, connection.reader.read()).await {
        Ok(Ok(Some(Record::Message(Message::Loaded)))) => Ok(Newcomer {
            connection,
            place: reading.into_place()?,
            sent,
            took,
        }),
        Ok(said) => Err(unwanted(said)),
        Err(_) => Err(format!(
            "its machine did not stand within {} s",
            LOADED_LIMIT.as_secs()
        )),
    }
}

fn written(outcome: Result<Result<(), ChannelError>, tokio::time::error::Elapsed>) -> Result<(), Lost> {
    match outcome {
        Ok(written) => written.map_err(|why| with_causes(&why)),
        Err(_) => Err(format!("it took nothing for {} s", STALL_LIMIT.as_secs())),
    }
}

/// Describes the loss of a newcomer that does anything but report that its machine is ready.
fn unwanted(said: Result<Option<Record>, ChannelError>) -> Lost {
    match said {
        Ok(None) => "it closed the connection".to_owned(),
        Ok(Some(Record::Message(Message::Goodbye(goodbye)))) => {
            format!("it said goodbye: {}", goodbye.reason.escape_debug())
        }
        Ok(Some(record)) => format!("it sent {} where {} was expected", record.kind(), Kind::Loaded),
        Err(why) => with_causes(&why),
    }
}

fn tell(sent: &Sent, took: Duration) {
    tracing::info!(
        rounds = sent.rounds,
        pages = sent.pages,
        copied = sent.copied,
        declined = sent.declined,
        "sent {} MiB to the newcomer in {} ms; the guest was paused for {} ms at most",
        sent.bytes >> 20,
        took.as_millis(),
        sent.pause.as_millis()
    );
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_pace_bounds_the_bytes_and_catches_up_for_a_moment_only() {
        let mut paced = Paced::new(Pace {
            bytes_per_second: Some(1_000),
        });
        let start = Instant::now();
        assert_eq!(paced.sent(1_000), start + Duration::from_secs(1));
        assert_eq!(paced.sent(500), start + Duration::from_millis(1_500));
        tokio::time::advance(Duration::from_secs(60)).await;
        assert_eq!(
            paced.sent(1_000),
            start + Duration::from_secs(61) - BURST,
            "a minute of silence is not made up for"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_bound_nothing_waits() {
        let mut paced = Paced::new(Pace::default());
        assert!(paced.sent(usize::MAX) <= Instant::now());
    }
}
