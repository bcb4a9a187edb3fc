//! The vCPU thread: it builds the machine, makes its door, and runs it.

use super::plan::Plan;
use crate::kvm::Kicker;
use crate::machine::door::Door;
use crate::machine::run::Ended;
use crate::shell::live::control::Ordered;
use crate::shell::signals;
use crate::shell::status::CommandError;
use std::thread::{Builder, JoinHandle};
use tokio::sync::oneshot;

/// A running machine.
pub struct MachineThread {
    handle: JoinHandle<()>,
    outcome: oneshot::Receiver<Result<Ended, CommandError>>,
}

/// Makes a door, on the vCPU thread.
pub type MakeDoor = Box<dyn FnOnce() -> Result<Box<dyn Door>, CommandError> + Send>;

/// Starts the machine of `plan` behind the door that `make_door` makes.
///
/// # Errors
/// The host starts no thread.
pub fn start(plan: Plan, ordered: Ordered, make_door: MakeDoor) -> Result<MachineThread, CommandError> {
    let (send, outcome) = oneshot::channel();
    signals::machine_starts(plan.memory_bytes());
    let handle = Builder::new()
        .name("vcpu".to_owned())
        .spawn(move || {
            // Nobody waits any more when the program is going away.
            let _ = send.send(run(&plan, &ordered, make_door));
        })
        .map_err(CommandError::other("cannot start the vCPU thread"))?;
    Ok(MachineThread { handle, outcome })
}

fn run(plan: &Plan, ordered: &Ordered, make_door: MakeDoor) -> Result<Ended, CommandError> {
    let mut machine = plan.build()?;
    let (kicker, _target) = Kicker::for_this_thread();
    ordered.attach(kicker);
    let mut door = make_door()?;
    Ok(machine.run(door.as_mut())?)
}

impl MachineThread {
    /// Waits for its end.
    ///
    /// # Errors
    /// The machine's; or that its thread ended without saying why.
    pub async fn outcome(&mut self) -> Result<Ended, CommandError> {
        match (&mut self.outcome).await {
            Ok(outcome) => outcome,
            Err(_) => Err(CommandError::Defect {
                what: "the vCPU thread ended without an outcome".to_owned(),
            }),
        }
    }

    /// Waits for the thread itself, after its outcome.
    pub fn join(self) {
        // A panic was reported by the missing outcome.
        let _ = self.handle.join();
    }
}
