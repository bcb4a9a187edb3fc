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
}

/// The first part in which `replayed`, the end of a piece, differs from `snapshot`, the beginning
/// of the piece behind it, whose first entry is number `entry`.
#[must_use]
pub fn difference(entry: u64, snapshot: &Boundary, replayed: &Boundary) -> Option<Divergence> {
    let differs = |part: &str, expected: String, found: String| {
        Some(Divergence {
            sequence: Sequence(entry),
            recorded_at: snapshot.point,
            found_at: replayed.point,
            part: part.to_owned(),
            device: None,
            device_name: None,
            expected: format!("{expected}, from its snapshot"),
            found,
            before: Vec::new(),
        })
    };
    if snapshot.point.position() != replayed.point.position() {
        let text = |point: ExecutionPoint| format!("exit {} + {}", point.exits, point.instructions);
        return differs("execution point", text(snapshot.point), text(replayed.point));
    }
    let names = |state: &Boundary| {
        state
            .parts
            .iter()
            .map(|part| part.part.clone())
            .collect::<Vec<_>>()
    };
    if names(snapshot) != names(replayed) {
        let text = |state: &Boundary| format!("{:?}", names(state));
        return differs("parts", text(snapshot), text(replayed));
    }
    let mut both = snapshot.parts.iter().zip(&replayed.parts);
    let (expected, found) = both.find(|(expected, found)| expected != found)?;
    differs(
        &expected.part,
        expected.digest.to_string(),
        found.digest.to_string(),
    )
}
