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

use super::copying::{Compared, Given, Giving};
use super::newcomers::Place;
use super::pace::Paced;
use super::stop_point::{Step, pass};
use super::terms::fresh_name;
use crate::configuration::Pace;
use crate::disk::{Mirrored, Watch};
use crate::live::Control;
use crate::machine::transfer::{self, Sent, Shown, Transfer, Way};
use lockstep_logging_channel::message::{FollowsBy, Message, Piece};
use lockstep_logging_channel::transport::{ChannelError, Connection};
use lockstep_logging_channel::{Generation, Kind, Record};
use lockstep_process::causes::with_causes;
use std::pin::pin;
use std::sync::Arc;
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
/// Rounds over the blocks that a machine writes meanwhile: one that writes as fast as they are sent
/// is not waited for, and its disks stand still for longer.
const DISK_ROUNDS_MAX: u32 = 4;
/// Blocks of 64 KiB after which no further round is made: 1 MiB.
const FEW_BLOCKS: usize = 16;
/// Between two looks at the progress of a transfer: as often as signs of life are written.
const SHOW_INTERVAL: Duration = Duration::from_secs(1);

/// Reason why a newcomer was lost.
pub type Lost = String;

/// A newcomer that has loaded the machine.
#[derive(Debug)]
pub struct Newcomer {
    /// Its connection, for the log.
    pub connection: Connection,
    /// Its place.
    pub place: Place,
    /// Comparison of its disks.
    pub disks: Given,
    /// What was compared of each.
    pub compared: Vec<Compared>,
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
    progress: watch::Receiver<Progress>,
    shown_at: Instant,
}

/// Progress of a transfer.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// Of the machine.
    pub machine: Shown,
    /// Of its disks, where it has some of its own.
    pub disks: Option<Given>,
}

/// The disks of a machine that is sent.
pub struct SentDisks {
    /// Images of which each side has its own.
    pub images: Vec<Mirrored>,
    /// Whoever watches what is written to them.
    pub watch: Watch,
    /// Generation of the machine.
    pub generation: Generation,
}

/// A transfer that is wanted.
pub struct Wanted {
    /// The newcomer.
    pub connection: Connection,
    /// Its place.
    pub place: Place,
    /// The machine that is sent.
    pub control: Control,
    /// Name of its pair.
    pub pair: [u8; 16],
    /// Speed of the transfer.
    pub pace: Pace,
    /// Method by which the newcomer is to follow.
    pub follows_by: FollowsBy,
    /// The machine's disks.
    pub disks: SentDisks,
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
    /// Begins to send a machine to a newcomer.
    #[must_use]
    pub fn begin(wanted: Wanted) -> Self {
        let (show, progress) = watch::channel(Progress::default());
        let task = tokio::spawn(send(wanted, show));
        Self {
            task,
            progress,
            shown_at: Instant::now(),
        }
    }

    /// Progress of the transfer.
    #[must_use]
    pub fn progress(&self) -> Progress {
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

async fn send(wanted: Wanted, show: watch::Sender<Progress>) -> Result<Newcomer, Lost> {
    let Wanted {
        mut connection,
        place,
        control,
        pair,
        pace,
        follows_by,
        disks,
    } = wanted;
    let begun = Instant::now();
    let mut giving = Giving::of(disks.images, pace);
    let generation = disks.generation;
    let watch = (!giving.is_empty()).then(|| Arc::new(disks.watch));
    if let Some(watch) = &watch {
        compare(&mut giving, watch, &mut connection, &show).await?;
    }
    let (records, mut taken) = mpsc::channel(RECORDS_WAITING_MAX);
    let transfer = transfer::send_to(control, pair, Way::Decided, follows_by, watch.clone(), records)
        .map_err(|why| format!("the host starts no thread for its transfer: {why}"))?;
    let mut reading = Reading(Some((transfer, place)));
    let loaded = pieces(&mut connection, &mut taken, pace, || {
        show.send_modify(|shown| shown.machine = reading.progress());
    })
    .await?;
    let sent = reading.sent().await?;
    if let Some(watch) = watch {
        if loaded {
            return Err(too_early());
        }
        for (disk, blocks) in watch.take() {
            giving.blocks(&mut connection, disk, blocks).await?;
        }
        let name = fresh_name().map_err(|why| with_causes(&why))?;
        giving.finish_equal(&mut connection, name, generation).await?;
    }
    let took = begun.elapsed();
    tell(&sent, took);
    pass(Step::AllSent);
    if !loaded {
        stands(&mut connection).await?;
    }
    Ok(Newcomer {
        connection,
        place: reading.into_place()?,
        sent,
        disks: giving.given(),
        compared: giving.compared().to_vec(),
        took,
    })
}

/// Sends the records at a pace until there are no more. True if the newcomer has said meanwhile
/// that its machine stands: one without disks of its own waits for nothing else, and may be quicker
/// than the end of the thread that made the records.
async fn pieces(
    connection: &mut Connection,
    taken: &mut mpsc::Receiver<Vec<u8>>,
    pace: Pace,
    mut show: impl FnMut(),
) -> Result<bool, Lost> {
    let Connection { reader, writer } = connection;
    let mut paced = Paced::new(pace);
    let mut next_at = Instant::now();
    loop {
        let may_send_at = next_at;
        // The pace is of what is sent: that nothing follows is known at once.
        let mut next = pin!(async {
            let record = taken.recv().await;
            if record.is_some() {
                sleep_until(may_send_at).await;
            }
            record
        });
        let record = tokio::select! {
            biased;
            said = reader.read() => {
                is_loaded(said)?;
                return match next.await {
                    None => Ok(true),
                    Some(_) => Err(too_early()),
                };
            }
            record = &mut next => record,
        };
        show();
        let Some(bytes) = record else { return Ok(false) };
        next_at = paced.sent(bytes.len());
        pass(Step::BeforePiece);
        let piece = Message::Piece(Piece { bytes });
        writer.queue(&piece).map_err(|why| with_causes(&why))?;
        written(timeout(STALL_LIMIT, writer.flush()).await)?;
    }
}

/// Waits until the newcomer says that its machine stands.
async fn stands(connection: &mut Connection) -> Result<(), Lost> {
    match timeout(LOADED_LIMIT, connection.reader.read()).await {
        Ok(said) => is_loaded(said),
        Err(_) => Err(format!(
            "its machine did not stand within {} s",
            LOADED_LIMIT.as_secs()
        )),
    }
}

/// Compares all blocks while the machine runs, and sends those that it has written meanwhile, until
/// they are few.
async fn compare(
    giving: &mut Giving,
    watch: &Watch,
    connection: &mut Connection,
    show: &watch::Sender<Progress>,
) -> Result<(), Lost> {
    let shown = |given| show.send_modify(|shown| shown.disks = Some(given));
    giving.compare(connection, shown).await?;
    for _ in 0..DISK_ROUNDS_MAX {
        let written = watch.take();
        let blocks: usize = written.iter().map(|(_, blocks)| blocks.len()).sum();
        for (disk, blocks) in written {
            giving.blocks(connection, disk, blocks).await?;
        }
        if blocks <= FEW_BLOCKS {
            break;
        }
    }
    giving.finish(connection).await?;
    let given = giving.given();
    tracing::info!(
        "compared {} MiB of disks with the newcomer's, and copied {} MiB of them",
        given.compared_bytes >> 20,
        given.copied_bytes >> 20
    );
    Ok(())
}

fn written(outcome: Result<Result<(), ChannelError>, tokio::time::error::Elapsed>) -> Result<(), Lost> {
    match outcome {
        Ok(written) => written.map_err(|why| with_causes(&why)),
        Err(_) => Err(format!("it took nothing for {} s", STALL_LIMIT.as_secs())),
    }
}

/// Fails where a newcomer does anything but report that its machine stands.
fn is_loaded(said: Result<Option<Record>, ChannelError>) -> Result<(), Lost> {
    Err(match said {
        Ok(Some(Record::Message(Message::Loaded))) => return Ok(()),
        Ok(None) => "it closed the connection".to_owned(),
        Ok(Some(Record::Message(Message::Goodbye(goodbye)))) => {
            format!("it said goodbye: {}", goodbye.reason.escape_debug())
        }
        Ok(Some(record)) => format!("it sent {} where {} was expected", record.kind(), Kind::Loaded),
        Err(why) => with_causes(&why),
    })
}

fn too_early() -> Lost {
    format!("it sent {} before it had everything", Kind::Loaded)
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
    use tokio::io::split;

    const SLOW: Pace = Pace {
        bytes_per_second: Some(1),
    };

    fn connected() -> (Connection, Connection) {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let of = |stream| {
            let (read, write) = split(stream);
            Connection::new(read, write, "the peer")
        };
        (of(ours), of(theirs))
    }

    async fn says_loaded(newcomer: &mut Connection) {
        newcomer.writer.queue(&Message::Loaded).unwrap();
        newcomer.writer.flush().await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_newcomer_that_stands_before_the_pace_lets_more_leave_is_not_lost() {
        let (mut ours, mut newcomer) = connected();
        let (records, mut taken) = mpsc::channel(1);
        records.send(vec![0; 1_000]).await.unwrap();
        let begun = Instant::now();
        let mut sent = pin!(pieces(&mut ours, &mut taken, SLOW, || ()));
        let said = async {
            let piece = newcomer.reader.read().await.unwrap();
            assert!(matches!(piece, Some(Record::Message(Message::Piece(_)))));
            says_loaded(&mut newcomer).await;
            // It is read before the thread that made the records ends.
            sleep_until(Instant::now() + Duration::from_secs(1)).await;
        };
        tokio::select! {
            early = &mut sent => panic!("{early:?} while records may follow"),
            () = said => drop(records),
        }
        assert_eq!(sent.await, Ok(true));
        assert_eq!(
            begun.elapsed(),
            Duration::from_secs(1),
            "nothing waits for the pace"
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_newcomer_that_stands_before_it_has_everything_is_lost() {
        let (mut ours, mut newcomer) = connected();
        let (records, mut taken) = mpsc::channel(2);
        records.send(vec![0; 1_000]).await.unwrap();
        records.send(vec![0; 1_000]).await.unwrap();
        drop(records);
        says_loaded(&mut newcomer).await;
        assert_eq!(pieces(&mut ours, &mut taken, SLOW, || ()).await, Err(too_early()));
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_the_records_is_not_paced() {
        let (mut ours, newcomer) = connected();
        let (records, mut taken) = mpsc::channel(1);
        records.send(vec![0; 1_000]).await.unwrap();
        drop(records);
        let begun = Instant::now();
        assert_eq!(pieces(&mut ours, &mut taken, SLOW, || ()).await, Ok(false));
        assert_eq!(begun.elapsed(), Duration::ZERO);
        drop(newcomer);
    }
}
