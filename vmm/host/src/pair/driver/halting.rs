//! The end of a replica.

use super::Driver;
use crate::error::RunError;
use crate::live::Order;
use crate::outside::conclude;
use lockstep_core::machine::MachineError;
use lockstep_core::machine::door::DoorError;
use lockstep_core::machine::run::Ended;
use lockstep_core::replica::role::Halt;
use lockstep_process::status::Status;
use std::time::Duration;

/// A vCPU that was told to stop has this long; a guest that runs without exits is kicked again
/// meanwhile.
const STOP_LIMIT: Duration = Duration::from_secs(5);

impl Driver {
    /// Lets the last words leave, stops the vCPU, and says how it ended.
    ///
    /// # Errors
    /// [`DoorError::Fenced`].
    pub(super) async fn halt(&mut self, halt: Halt) -> Result<Status, RunError> {
        // The last messages are still to be sent, if the peer takes them.
        let (_, mut writing) = self.parts.link.halves();
        if self.standing.connected {
            let _ = tokio::time::timeout(Duration::from_millis(100), writing.flush(false)).await;
        }
        let order = if halt == Halt::Fenced {
            Order::Fence
        } else {
            Order::Stop
        };
        self.parts.control.give(order);
        self.parts.from_cpu.close();
        if self.ended.is_none() {
            let _ = tokio::time::timeout(STOP_LIMIT, self.parts.machine.outcome()).await;
        }
        let (holding, generation) = (&self.parts.holding, self.parts.replica.generation());
        match &halt {
            Halt::Ended { reason } => holding.ended(generation, &format!("{reason:?}")).await,
            // A Goodbye is the last thing that a side does: nobody is left to go on.
            Halt::Stopped if self.standing.alone || self.peer_left => {
                holding.ended(generation, "it was stopped").await;
            }
            _ => {}
        }
        match halt {
            Halt::Fenced => Err(MachineError::Door(DoorError::Fenced).into()),
            Halt::NotArmed => {
                self.parts.reporter.event("not_armed", serde_json::json!({}));
                Err(RunError::NotArmed)
            }
            Halt::Stopped => {
                self.parts.reporter.event("stopped", serde_json::json!({}));
                Ok(Status::Success)
            }
            Halt::Ended { reason } => {
                self.parts
                    .reporter
                    .event("ended", serde_json::json!({ "reason": format!("{reason:?}") }));
                let point = self.ended.as_ref().map(|ended| ended.point).unwrap_or_default();
                Ok(conclude(&Ended { reason, point }))
            }
        }
    }
}
