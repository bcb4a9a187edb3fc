//! The end of a replica.

use super::{Driver, Over};
use crate::disk::Durability;
use crate::error::RunError;
use crate::live::Order;
use crate::outside::conclude;
use crate::pair::link::Reading;
use lockstep_core::machine::MachineError;
use lockstep_core::machine::door::DoorError;
use lockstep_core::machine::run::Ended;
use lockstep_core::replica::role::{Halt, Outcome};
use lockstep_logging_channel::{EndReason, Generation, Message, Record};
use lockstep_process::causes::with_causes;
use lockstep_process::status::Status;
use std::time::Duration;
use tokio::time::timeout;

/// A vCPU that was told to stop has this long; a guest that runs without exits is kicked again
/// meanwhile.
const STOP_LIMIT: Duration = Duration::from_secs(5);
/// A side that is stopped waits so long for the last word of the other, which may have been stopped
/// with it, or for the store's. One that goes on closes the connection soon.
const LAST_WORD_LIMIT: Duration = Duration::from_millis(300);

impl Driver {
    /// Lets the last words leave, stops the vCPU, and says how it ended.
    ///
    /// # Errors
    /// [`DoorError::Fenced`].
    pub(super) async fn halt(&mut self, halt: Halt) -> Result<Over, RunError> {
        // The last messages are still to be sent, if the peer takes them.
        let (_, mut writing) = self.parts.link.halves();
        if self.standing.connected {
            let _ = timeout(Duration::from_millis(100), writing.flush(false)).await;
        }
        let order = if matches!(halt, Halt::Fenced | Halt::SwitchedOver) {
            Order::Fence
        } else {
            Order::Stop
        };
        if halt == Halt::Fenced {
            self.parts.disks.abandon();
        }
        self.parts.control.give(order);
        self.parts.from_cpu.close();
        if self.ended.is_none() && self.diverged.is_none() {
            let _ = timeout(STOP_LIMIT, self.parts.machine.outcome()).await;
        }
        let disks = std::mem::take(&mut self.parts.disks);
        // What a fenced side has written is of no use any more.
        let durability = match halt {
            Halt::Fenced => Durability::Unfinished,
            _ => disks.finish().await,
        };
        let mut generation = self.parts.replica.generation();
        if halt == Halt::Stopped && !self.standing.alone {
            generation = self.last_word().await.unwrap_or(generation);
        }
        let holding = &self.parts.holding;
        let ending = match &halt {
            Halt::Ended { reason } => Some(how(reason)),
            // A Goodbye is the last thing that a side does: nobody is left to go on.
            Halt::Stopped if self.standing.alone || self.peer_left => Some("it was stopped".to_owned()),
            _ => None,
        };
        let recording = async {
            if let Some(how) = &ending {
                holding.ended(generation, how).await;
            }
        };
        // A side that has not replayed everything has not written everything.
        let has_all = self.standing.live || matches!(halt, Halt::Ended { .. });
        if ending.is_some() && has_all && durability == Durability::Whole {
            let ownership = self.parts.ownership.clone();
            let ended = tokio::task::spawn_blocking(move || ownership.ended(generation)).await;
            if let Ok(Err(why)) = ended {
                tracing::warn!("no record of the end beside the images: {}", with_causes(&why));
            }
        }
        // Beside each other: storage that is slow holds the end up once.
        tokio::join!(recording, holding.forget_prepared());
        match halt {
            Halt::Fenced => Err(MachineError::Door(DoorError::Fenced).into()),
            Halt::NotArmed => {
                self.parts.reporter.event("not_armed", serde_json::json!({}));
                Err(RunError::NotArmed)
            }
            Halt::Diverged { again } => self.left_diverged(again).await,
            Halt::SwitchedOver => Err(RunError::SwitchedOver),
            Halt::Stopped => {
                self.parts.reporter.event("stopped", serde_json::json!({}));
                if let Some((disk, fault)) = self.failing.leaves_for.take() {
                    let why = fault.to_string();
                    return Err(RunError::DiskFails { disk, why });
                }
                ended_with(Status::Success, durability)
            }
            Halt::Ended { reason } => {
                self.parts.reporter.event(
                    "ended",
                    serde_json::json!({ "reason": format!("{reason:?}"), "how": how(&reason) }),
                );
                let point = self.ended.as_ref().map(|ended| ended.point).unwrap_or_default();
                ended_with(conclude(&Ended { reason, point }), durability)
            }
        }
    }

    /// Waits for what decides whether anybody goes on: the verdict on a claim that was made because
    /// the other side has left, or else the word with which it leaves. Gives the generation, if one
    /// was won.
    async fn last_word(&mut self) -> Option<Generation> {
        if self.peer_left {
            let answer = timeout(LAST_WORD_LIMIT, self.parts.answers.recv()).await;
            return match answer {
                Ok(Some((generation, Outcome::Won))) => Some(generation),
                _ => None,
            };
        }
        if self.standing.connected {
            let (reading, _) = self.parts.link.halves();
            let word = timeout(LAST_WORD_LIMIT, says_goodbye(reading)).await;
            self.peer_left = word.unwrap_or(false);
        }
        None
    }
}

/// The end of a guest, in words for `lockstep status`.
fn ended_with(status: Status, durability: Durability) -> Result<Over, RunError> {
    match durability {
        Durability::Unknown => Err(RunError::NotDurable),
        Durability::Whole | Durability::Unfinished => Ok(Over::Ended(status)),
    }
}

fn how(reason: &EndReason) -> String {
    match reason {
        EndReason::PoweredOff(status) => format!("its guest powered off with status {status}"),
        EndReason::Stopped => "it was stopped".to_owned(),
        EndReason::GuestFault(why) => format!("its guest could not go on: {why}"),
    }
}

/// Reads on until a Goodbye, or the end of the connection.
async fn says_goodbye(mut reading: Reading<'_>) -> bool {
    while let Ok(Some(record)) = reading.record().await {
        if matches!(record, Record::Message(Message::Goodbye(_))) {
            return true;
        }
    }
    false
}
