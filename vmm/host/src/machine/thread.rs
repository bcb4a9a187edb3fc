//! The vCPU thread: it builds the machine, makes its door, and runs it.

use super::plan::Plan;
use crate::disk::Disks;
use crate::error::RunError;
use crate::live::control::Ordered;
use lockstep_core::machine::door::Door;
use lockstep_core::machine::{Ended, Machine, MachineError};
use lockstep_core::replica::LiveDoor;
use lockstep_core::replica::transfer::Received;
use lockstep_kvm::{Kicker, KvmCpu};
use lockstep_process::signals;
use std::thread::{Builder, JoinHandle};
use tokio::sync::oneshot;

/// A running machine, whose thread gives a `T`.
pub struct MachineThread<T = Ended> {
    handle: JoinHandle<()>,
    outcome: oneshot::Receiver<Result<T, RunError>>,
}

/// Makes a door, on the vCPU thread.
pub type MakeDoor = Box<dyn FnOnce() -> Result<Box<dyn Door>, RunError> + Send>;

/// Makes a door of a machine that can be captured, on the vCPU thread, when the machine exists.
pub type MakeLiveDoor = Box<dyn FnOnce() -> Result<Box<dyn LiveDoor>, RunError> + Send>;

/// Point at which a machine begins.
pub enum Origin {
    /// At its first instruction.
    Boot,
    /// At the point where it was captured.
    Captured(Box<Received>),
}

impl Origin {
    /// Builds the machine, and asks its `disks`, if they are given, for what it had asked for
    /// before it was captured.
    /// Must be called on the thread that runs it.
    ///
    /// # Errors
    /// [`RunError`] naming what cannot be built.
    pub fn build(self, plan: &Plan, disks: Option<&Disks>) -> Result<Machine<KvmCpu>, RunError> {
        let machine = match self {
            Self::Boot => plan.build(),
            Self::Captured(received) => plan.restore(*received),
        }?;
        if let Some(disks) = disks {
            for (device, request) in machine.outstanding_disk_requests() {
                disks.issue(device, request).map_err(MachineError::from)?;
            }
        }
        Ok(machine)
    }
}

/// Starts the machine of `plan` behind the door that `make_door` makes.
///
/// # Errors
/// The host starts no thread.
pub fn start(plan: Plan, ordered: Ordered, make_door: MakeDoor) -> Result<MachineThread, RunError> {
    spawn(plan.memory_bytes(), move || {
        let mut machine = plan.build()?;
        let (kicker, _target) = Kicker::for_this_thread();
        ordered.attach(kicker);
        let mut door = make_door()?;
        Ok(machine.run(door.as_mut())?)
    })
}

/// The same for a machine that can pause, from `origin`. What it has asked for before it was captured
/// is asked of `disks`, unless it follows without running.
///
/// # Errors
/// The host starts no thread.
pub fn start_live(
    plan: Plan,
    origin: Origin,
    ordered: Ordered,
    disks: Option<Disks>,
    make_door: MakeLiveDoor,
) -> Result<MachineThread, RunError> {
    spawn(plan.memory_bytes(), move || {
        let ended = run_live(&plan, origin, &ordered, disks, make_door);
        ordered.no_more_pauses();
        ended
    })
}

/// Starts a vCPU thread that does `run`.
///
/// # Errors
/// The host starts no thread.
pub(super) fn spawn<T: Send + 'static>(
    memory_bytes: u64,
    run: impl FnOnce() -> Result<T, RunError> + Send + 'static,
) -> Result<MachineThread<T>, RunError> {
    let (send, outcome) = oneshot::channel();
    signals::machine_starts(memory_bytes);
    let handle = Builder::new()
        .name("vcpu".to_owned())
        .spawn(move || {
            // Nobody waits any more when the program is going away.
            let _ = send.send(run());
        })
        .map_err(RunError::other("cannot start the vCPU thread"))?;
    Ok(MachineThread { handle, outcome })
}

fn run_live(
    plan: &Plan,
    origin: Origin,
    ordered: &Ordered,
    disks: Option<Disks>,
    make_door: MakeLiveDoor,
) -> Result<Ended, RunError> {
    let mut machine = origin.build(plan, disks.as_ref())?;
    let (kicker, _target) = Kicker::for_this_thread();
    ordered.attach(kicker);
    let mut door = make_door()?;
    if let Some(ended) = machine.follow(door.as_mut(), plan.board())? {
        return Ok(ended);
    }
    Ok(run_pausing(&mut machine, door.as_mut(), ordered)?)
}

/// Runs to the end, and does at pauses what was asked for.
///
/// # Errors
/// The machine's.
pub fn run_pausing(
    machine: &mut Machine<KvmCpu>,
    door: &mut dyn LiveDoor,
    ordered: &Ordered,
) -> Result<Ended, MachineError> {
    loop {
        if let Some(ended) = machine.run_until(door, &mut |_| ordered.pause_asked())? {
            return Ok(ended);
        }
        if let Some(at_pause) = ordered.take_pause() {
            at_pause(machine, door);
        }
    }
}

impl MachineThread {
    /// A thread without a machine, whose end somebody else tells.
    #[cfg(test)]
    #[must_use]
    pub fn without_machine(outcome: oneshot::Receiver<Result<Ended, RunError>>) -> Self {
        let handle = std::thread::spawn(|| ());
        Self { handle, outcome }
    }
}

impl<T> MachineThread<T> {
    /// Waits for its end.
    ///
    /// # Errors
    /// The machine's; or that its thread ended without saying why.
    pub async fn outcome(&mut self) -> Result<T, RunError> {
        match (&mut self.outcome).await {
            Ok(outcome) => outcome,
            Err(_) => Err(RunError::Defect {
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
