//! Receives a machine that runs elsewhere, and says how far it is.

use super::copying::NotTaken;
use super::report::Reporter;
use super::stop_point::{Step, pass};
use crate::configuration::Mode;
use crate::error::RunError;
use lockstep_core::machine::memory::PAGE_BYTES;
use lockstep_core::replica::transfer::{Received, Receiver, Taken};
use lockstep_logging_channel::message::{FollowsBy, Message, Piece};
use lockstep_logging_channel::transport::{ChannelError, Connection};
use lockstep_logging_channel::{Kind, Record};
use lockstep_process::causes::with_causes;
use lockstep_process::writing::standard;
use serde_json::json;
use std::time::Duration;
use tokio::time::{Instant, timeout};

/// A machine that sends nothing for so long has been lost. It may pause between two rounds, and no
/// longer than its guest.
const SILENCE_LIMIT: Duration = Duration::from_secs(30);
/// Between two lines of progress on a terminal.
const LINES_ON_TERMINAL: Duration = Duration::from_secs(1);
/// The same elsewhere: a log file wants few.
const LINES_ELSEWHERE: Duration = Duration::from_secs(10);
/// Between two reports of progress.
const REPORTS: Duration = Duration::from_secs(1);

/// Reason why there is no machine.
#[derive(Debug, thiserror::Error)]
pub enum NotReceived {
    /// The sender is gone: another try, with whoever holds the machine then, may succeed.
    #[error("the machine was lost while it was received: {why}")]
    Lost {
        /// Cause of the loss.
        why: String,
    },
    /// The disks are not those of the holder.
    #[error(transparent)]
    Disks(NotTaken),
    /// The images of this side are not for this machine.
    #[error("the disks of this side cannot be used")]
    Ownership(#[source] Box<RunError>),
    /// The received data is not the machine.
    #[error("the machine that was received is refused")]
    Refused(#[source] lockstep_core::replica::transfer::TransferError),
    /// The backup of the machine follows by a method that the mode of both sides does not have.
    #[error("the machine is refused: its holder says that it is followed by {found}, and the mode is {mode}")]
    Mode {
        /// The method.
        found: FollowsBy,
        /// The mode of both sides.
        mode: Mode,
    },
    /// A record of another kind was received.
    #[error(
        "the machine that was received is refused: its holder sent {found} where {expected} was expected"
    )]
    Unexpected {
        /// Kind that was expected.
        expected: Kind,
        /// Kind that was received.
        found: Kind,
    },
}

impl From<NotReceived> for RunError {
    fn from(why: NotReceived) -> Self {
        match why {
            NotReceived::Ownership(why) => *why,
            why => Self::Peer(Box::new(why)),
        }
    }
}

impl From<NotTaken> for NotReceived {
    fn from(why: NotTaken) -> Self {
        match why {
            NotTaken::Lost(_) => Self::Lost { why: why.to_string() },
            why => Self::Disks(why),
        }
    }
}

/// Progress of a transfer, for people and programs.
struct Progress<'a> {
    reporter: &'a mut Reporter,
    memory_bytes: u64,
    begun: Instant,
    bytes: u64,
    pages: u64,
    line_at: Instant,
    report_at: Instant,
    lines: Duration,
}

impl<'a> Progress<'a> {
    fn begin(reporter: &'a mut Reporter, memory_bytes: u64) -> Self {
        let begun = Instant::now();
        let lines = if standard::error_is_terminal() {
            LINES_ON_TERMINAL
        } else {
            LINES_ELSEWHERE
        };
        Self {
            reporter,
            memory_bytes,
            begun,
            bytes: 0,
            pages: 0,
            line_at: begun + lines,
            report_at: begun,
            lines,
        }
    }

    fn came(&mut self, bytes: usize, pages: u64) {
        self.bytes += bytes as u64;
        self.pages = pages;
        let now = Instant::now();
        if now >= self.line_at {
            self.line_at = now + self.lines;
            tracing::info!("{}", self.line());
        }
        if now >= self.report_at {
            self.report_at = now + REPORTS;
            self.report("receiving");
        }
    }

    fn done(&mut self) {
        let next = match self.reporter.follows_by {
            FollowsBy::Replay => "replays what it has missed",
            FollowsBy::Checkpoints => "takes the checkpoints that it has missed",
        };
        tracing::info!("{}; all of it is here, and this side {next}", self.line());
        self.report("received");
    }

    fn report(&mut self, event: &str) {
        let fields = json!({
            "bytes": self.bytes,
            "memory_bytes_received": self.pages * PAGE_BYTES,
            "memory_bytes": self.memory_bytes,
            "elapsed_ms": self.begun.elapsed().as_millis() as u64,
        });
        self.reporter.event(event, fields);
    }

    fn line(&self) -> String {
        progress_line(
            self.bytes,
            self.pages * PAGE_BYTES,
            self.memory_bytes,
            self.begun.elapsed(),
        )
    }
}

/// A page may come more than once, and a page of zeros does not come at all: the share is of the
/// whole memory, and 100 % at most.
fn progress_line(bytes: u64, received_bytes: u64, memory_bytes: u64, took: Duration) -> String {
    let share = received_bytes.saturating_mul(100) / memory_bytes.max(1);
    let rate = u128::from(bytes) * 1_000 / took.as_millis().max(1);
    format!(
        "received {} of memory ({} % of {}) in {}, at {}/s",
        size(received_bytes),
        share.min(100),
        size(memory_bytes),
        size(bytes),
        size(u64::try_from(rate).unwrap_or(u64::MAX))
    )
}

/// A number of bytes in MiB; in KiB where that would leave one digit.
fn size(bytes: u64) -> String {
    if bytes < 10 << 20 {
        format!("{} KiB", bytes >> 10)
    } else {
        format!("{} MiB", bytes >> 20)
    }
}

/// Receives the machine of `pair`, with so much memory.
///
/// # Errors
/// [`NotReceived`]; nothing of what came may be used.
pub async fn receive(
    connection: &mut Connection,
    pair: [u8; 16],
    memory_bytes: u64,
    reporter: &mut Reporter,
) -> Result<Received, NotReceived> {
    let mut receiver = Receiver::new(pair, memory_bytes);
    reporter.joins();
    let mut progress = Progress::begin(reporter, memory_bytes);
    loop {
        let bytes = match timeout(SILENCE_LIMIT, connection.reader.read()).await {
            Ok(said) => piece(said, &receiver)?,
            Err(_) => {
                let why = format!("nothing came for {} s", SILENCE_LIMIT.as_secs());
                return Err(NotReceived::Lost { why });
            }
        };
        let taken = receiver.take(&bytes).map_err(NotReceived::Refused)?;
        progress.came(bytes.len(), receiver.pages());
        pass(Step::AfterPiece);
        if let Taken::All(received) = taken {
            progress.done();
            pass(Step::AllReceived);
            return Ok(*received);
        }
    }
}

fn piece(said: Result<Option<Record>, ChannelError>, receiver: &Receiver) -> Result<Vec<u8>, NotReceived> {
    let unexpected = |found| NotReceived::Unexpected {
        expected: Kind::Piece,
        found,
    };
    match said {
        Ok(Some(Record::Message(Message::Piece(Piece { bytes })))) => Ok(bytes),
        Ok(Some(Record::Message(Message::Goodbye(goodbye)))) => Err(NotReceived::Lost {
            why: format!("its holder said goodbye: {}", goodbye.reason.escape_debug()),
        }),
        Ok(Some(record)) => Err(unexpected(record.kind())),
        Ok(None) => Err(NotReceived::Lost {
            why: receiver.cut().to_string(),
        }),
        Err(why) => Err(NotReceived::Lost {
            why: with_causes(&why),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_says_how_much_of_what_and_how_fast() {
        let line = progress_line(50 << 20, 128 << 20, 256 << 20, Duration::from_secs(2));
        assert_eq!(
            line,
            "received 128 MiB of memory (50 % of 256 MiB) in 50 MiB, at 25 MiB/s"
        );
    }

    #[test]
    fn little_is_said_in_kib() {
        let line = progress_line(700 << 10, 2 << 20, 64 << 20, Duration::from_secs(7));
        assert_eq!(
            line,
            "received 2048 KiB of memory (3 % of 64 MiB) in 700 KiB, at 100 KiB/s"
        );
    }

    #[test]
    fn pages_that_came_again_are_not_more_than_all() {
        let line = progress_line(0, 300 << 20, 256 << 20, Duration::ZERO);
        assert!(line.contains("(100 % of 256 MiB)"), "{line}");
    }
}
