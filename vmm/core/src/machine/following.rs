//! The following of a machine without running, from common point to common point, for the machine
//! and for whatever is judged in its place (docs/determinism.md, Checkpoint mode).
//!
//! ```text
//!   live:       runs --> common point --> runs --> common point --> runs --> gone
//!   following:           is put there              is put there              runs from there
//! ```

use super::cpu::SavedCpu;
use super::disk::Request;
use super::door::{Door, DoorError, Followed, Met};
use crate::mutant::{self, Mutant};
use lockstep_logging_channel::{DeviceId, EndReason, ExecutionPoint};

/// A machine that can be put where another one is.
///
/// # Errors
/// Every method refuses with the machine's own error; the machine then stops.
#[allow(
    missing_docs,
    clippy::missing_errors_doc,
    reason = "said once for all methods, above"
)]
pub trait Follower {
    type Error: From<DoorError>;

    /// Its execution point.
    fn followed_to(&self) -> ExecutionPoint;

    /// Takes over everything of a common point but the vCPU, which it gives.
    fn be_put(&mut self, met: Met) -> Result<SavedCpu, Self::Error>;

    /// Takes over the vCPU.
    fn load_cpu(&mut self, cpu: &SavedCpu) -> Result<(), Self::Error>;
}

/// Result of one step of following.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// It was put to the next common point.
    Put,
    /// It runs live from where it is, and has followed until then.
    Live,
    /// It does not follow without running.
    Runs,
    /// The machine that it follows has ended.
    Ended(EndReason, ExecutionPoint),
}

/// Asks the disks of a machine that goes live at `point` for what was not done where it was put: no
/// disk of its own has been asked for that.
///
/// # Errors
/// The door's.
pub fn ask_again(
    outstanding: impl IntoIterator<Item = (DeviceId, Request)>,
    point: ExecutionPoint,
    door: &mut dyn Door,
) -> Result<(), DoorError> {
    if mutant::is(Mutant::ForgetOutstanding) {
        return Ok(());
    }
    let mut outstanding = outstanding.into_iter();
    outstanding.try_for_each(|(device, request)| door.disk_request(point, device, request))
}

/// Meets what comes next. `newest` is the vCPU of the last common point, none before the first.
///
/// # Errors
/// The machine's, or the door's.
pub fn follow<M: Follower>(
    machine: &mut M,
    newest: &mut Option<SavedCpu>,
    door: &mut dyn Door,
) -> Result<Step, M::Error> {
    match door.follow(machine.followed_to())? {
        Followed::Met(met) => {
            let cpu = machine.be_put(met)?;
            // A host that does not take this vCPU is known now, and not at the failover. Later ones
            // wait until they are needed: each makes KVM forget its page tables.
            if newest.is_none() {
                machine.load_cpu(&cpu)?;
            }
            *newest = Some(cpu);
            Ok(Step::Put)
        }
        Followed::Live => {
            if let Some(cpu) = newest.take().filter(|_| !mutant::is(Mutant::KeepFirstRegisters)) {
                machine.load_cpu(&cpu)?;
            }
            Ok(Step::Live)
        }
        Followed::Runs => Ok(Step::Runs),
        Followed::Ended(reason, point) => Ok(Step::Ended(reason, point)),
    }
}
