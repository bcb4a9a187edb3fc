//! The state at a boundary between two pieces of a recording, to be compared.
//!
//! A snapshot may have been taken where a kick found the guest, which is no execution point. So a
//! boundary is the first execution point behind it: the machine that was built from the snapshot
//! runs up to there, and so does the machine of the piece before.

use crate::machine::cpu::Vcpu;
use crate::machine::cpu::saved::PROCESSOR_PART;
use crate::machine::devices::saved::{NoDigest, part};
use crate::machine::divergence::Divergence;
use crate::machine::{Machine, MachineError, memory};
use lockstep_logging_channel::{ExecutionPoint, PartDigest, Sequence};

/// Digests of everything, in a machine that is paused at an execution point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Boundary {
    /// The point.
    pub point: ExecutionPoint,
    parts: Vec<PartDigest>,
}

impl Boundary {
    /// State of `machine`, which is paused at `point`.
    ///
    /// # Errors
    /// A part of the state cannot be seen.
    pub fn of<V: Vcpu>(machine: &mut Machine<V>, point: ExecutionPoint) -> Result<Self, MachineError> {
        // First, because it completes the pending access, which may write to memory.
        let saved = machine.save()?;
        let mut parts = vec![
            part("position", &saved.position)?,
            part("registers", &saved.cpu.digested())?,
        ];
        parts.extend(saved.devices.iter().map(|device| device.digest()));
        let name = "memory".to_owned();
        parts.push(match memory::digest(machine.memory()) {
            Ok(digest) => PartDigest { part: name, digest },
            Err(why) => return Err(NoDigest { part: name, why }.into()),
        });
        parts.push(part(PROCESSOR_PART, &saved.cpu.compared())?);
        Ok(Self { point, parts })
    }

    /// The same with what is compared beside the machine: what its disks hold.
    #[must_use]
    pub fn with(mut self, parts: Vec<PartDigest>) -> Self {
        self.parts.extend(parts);
        self
    }
}

/// The first part in which `replayed`, the end of a piece, differs from `snapshot`, the beginning
/// of the piece behind it, whose first entry is number `entry`. None stands for a machine that
/// ended before that boundary.
#[must_use]
pub fn difference(
    entry: u64,
    snapshot: Option<&Boundary>,
    replayed: Option<&Boundary>,
) -> Option<Divergence> {
    let point = |state: Option<&Boundary>| state.map(|state| state.point).unwrap_or_default();
    let (part, expected, found) = first_difference(snapshot, replayed)?;
    Some(Divergence {
        sequence: Sequence(entry),
        recorded_at: point(snapshot),
        found_at: point(replayed),
        part,
        device: None,
        devices: Vec::new(),
        expected: from_its_snapshot(&expected),
        found,
        before: Vec::new(),
    })
}

/// The same where the machine from the snapshot has differed from the log, as `divergence` says,
/// before a boundary behind it, and the piece before has not: that one has what the log has.
#[must_use]
pub fn from_the_snapshot(entry: u64, divergence: &Divergence) -> Divergence {
    Divergence {
        sequence: Sequence(entry),
        recorded_at: divergence.found_at,
        found_at: divergence.recorded_at,
        expected: from_its_snapshot(&divergence.found),
        found: divergence.expected.clone(),
        ..divergence.clone()
    }
}

fn from_its_snapshot(text: &str) -> String {
    format!("{text}, from its snapshot")
}

/// The first part that differs: its name, and what each side has.
fn first_difference(
    snapshot: Option<&Boundary>,
    replayed: Option<&Boundary>,
) -> Option<(String, String, String)> {
    let (snapshot, replayed) = match (snapshot, replayed) {
        (Some(snapshot), Some(replayed)) => (snapshot, replayed),
        (None, None) => return None,
        (snapshot, replayed) => {
            let text = |state: Option<&Boundary>| match state {
                Some(_) => "the machine runs on".to_owned(),
                None => "the machine ends".to_owned(),
            };
            return Some(("end".to_owned(), text(snapshot), text(replayed)));
        }
    };
    if snapshot.point.position() != replayed.point.position() {
        let text = |point: ExecutionPoint| format!("exit {} + {}", point.exits, point.instructions);
        let part = "execution point".to_owned();
        return Some((part, text(snapshot.point), text(replayed.point)));
    }
    let names = |state: &Boundary| {
        state
            .parts
            .iter()
            .map(|part| part.part.clone())
            .collect::<Vec<_>>()
    };
    if names(snapshot) != names(replayed) {
        let text = |state: &Boundary| names(state).join(", ");
        return Some(("parts".to_owned(), text(snapshot), text(replayed)));
    }
    let mut both = snapshot.parts.iter().zip(&replayed.parts);
    let (expected, found) = both.find(|(expected, found)| expected != found)?;
    let (part, expected, found) = (&expected.part, expected.digest, found.digest);
    Some((part.clone(), expected.to_string(), found.to_string()))
}
