//! A piece of a recording on a vCPU thread of its own: from the beginning or a snapshot to the next
//! snapshot or the end.
//!
//! ```text
//!   snapshot ----> began at the first execution point behind it ----> finish: the first behind the next snapshot, or the end
//! ```

use super::disks::PieceDisks;
use super::plan::Plan;
use super::thread::{MachineThread, Origin, spawn};
use crate::error::RunError;
use crate::live::control::Ordered;
use lockstep_core::machine::door::{Door, DoorError};
use lockstep_core::machine::run::Pause;
use lockstep_core::machine::{Ended, Machine, MachineError};
use lockstep_core::replica::snapshot::Boundary;
use lockstep_kvm::{Kicker, KvmCpu};
use lockstep_logging_channel::PartDigest;

/// Exits, and instructions since the last one.
pub type Position = (u64, u64);

/// Place at which a piece is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Ends {
    /// Position of its snapshot, where its state behind it is wanted.
    pub from: Option<Position>,
    /// Position of the next snapshot; none for the end of the recording.
    pub until: Option<Position>,
}

/// End of a piece.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Finish {
    /// That of the machine.
    Ended(Ended),
    /// The first execution point behind the next snapshot.
    Reached(Boundary),
}

/// A piece that was replayed.
#[derive(Debug)]
pub struct Checked {
    /// State at the first execution point behind its snapshot. None where that was not asked for,
    /// or not reached.
    pub began: Option<Boundary>,
    /// Its end.
    pub finish: Result<Finish, MachineError>,
}

/// Beginning of a piece.
pub enum Beginning {
    /// A machine, its door and its disks.
    Runs(Origin, Box<dyn Door>, PieceDisks),
    /// The recording ends there: nothing is to be run.
    Over(Ended),
}

/// Makes the beginning of a piece, on the vCPU thread.
pub type MakePiece = Box<dyn FnOnce() -> Result<Beginning, RunError> + Send>;

/// Starts the replay of a piece of a recording of `plan`.
///
/// # Errors
/// The host starts no thread.
pub fn start_piece(
    plan: Plan,
    ends: Ends,
    ordered: Ordered,
    make: MakePiece,
) -> Result<MachineThread<Checked>, RunError> {
    spawn(plan.memory_bytes(), move || {
        let (origin, mut door, mut disks) = match make()? {
            Beginning::Runs(origin, door, disks) => (origin, door, disks),
            Beginning::Over(ended) => {
                let finish = Ok(Finish::Ended(ended));
                return Ok(Checked { began: None, finish });
            }
        };
        let mut machine = origin.build(&plan, Some(disks.disks()))?;
        let (kicker, _target) = Kicker::for_this_thread();
        ordered.attach(kicker);
        let mut began = None;
        let mut digests = || disks.digests(&ordered);
        let finish = run(&mut machine, door.as_mut(), ends, &mut began, &mut digests);
        Ok(Checked { began, finish })
    })
}

/// Gives digests of what the disks hold.
type DiskDigests<'a> = &'a mut dyn FnMut() -> Result<Vec<PartDigest>, DoorError>;

fn run(
    machine: &mut Machine<KvmCpu>,
    door: &mut dyn Door,
    ends: Ends,
    began: &mut Option<Boundary>,
    disks: DiskDigests<'_>,
) -> Result<Finish, MachineError> {
    let Ends { from, until } = ends;
    if let Some(from) = from {
        match run_behind(machine, door, from, disks)? {
            Finish::Reached(state) => *began = Some(state),
            ended => return Ok(ended),
        }
    }
    let Some(until) = until else {
        return machine.run(door).map(Finish::Ended);
    };
    match began {
        // No execution point is between the two snapshots.
        Some(state) if state.point.position() > until => Ok(Finish::Reached(state.clone())),
        _ => run_behind(machine, door, until, disks),
    }
}

/// Runs to the first execution point behind `position`, and takes the state there.
fn run_behind(
    machine: &mut Machine<KvmCpu>,
    door: &mut dyn Door,
    position: Position,
    disks: DiskDigests<'_>,
) -> Result<Finish, MachineError> {
    let mut at = None;
    let mut is_behind = |pause: Pause| {
        at = (!pause.between && pause.point.position() > position).then_some(pause.point);
        at.is_some()
    };
    let ended = machine.run_until(door, &mut is_behind)?;
    Ok(match ended {
        Some(ended) => Finish::Ended(ended),
        None => Finish::Reached(Boundary::of(machine, at.unwrap_or_default())?.with(disks()?)),
    })
}
