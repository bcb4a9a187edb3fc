//! The report of a divergence: which entry, which part, expected and found, and the entries before
//! it.

use lockstep_logging_channel::{DeviceId, Entry, ExecutionPoint, Sequence};
use std::fmt;

/// The first place in which a replay differs from its log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Divergence {
    /// The log's entry that was not met.
    pub sequence: Sequence,
    /// Execution point of that entry in the log.
    pub recorded_at: ExecutionPoint,
    /// Execution point of the replay.
    pub found_at: ExecutionPoint,
    /// The part that differs: `execution point`, `question`, `event`, `output`, `registers`,
    /// `memory` or a device's name.
    pub part: String,
    /// The device of the log's entry, where that is an event or an output.
    pub device: Option<DeviceId>,
    /// Its name. The machine gives it: a replayer knows devices by their numbers.
    pub device_name: Option<&'static str>,
    /// Description of what the log has.
    pub expected: String,
    /// Description of what the replay has.
    pub found: String,
    /// The entries before it, oldest first.
    pub before: Vec<Entry>,
}

impl fmt::Display for Divergence {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let point = |point: &ExecutionPoint| {
            format!(
                "exit {} + {} instructions, rip {:#x}",
                point.exits, point.instructions, point.rip
            )
        };
        write!(
            formatter,
            "the replay differs from the log at entry {}: {}",
            self.sequence.0, self.part
        )?;
        if let Some(device) = self.device {
            let name = self.device_name.unwrap_or("not on the board");
            write!(formatter, " ({device}, {name})")?;
        }
        writeln!(formatter)?;
        writeln!(formatter, "  expected: {}", self.expected)?;
        writeln!(formatter, "  found:    {}", self.found)?;
        writeln!(formatter, "  recorded at {}", point(&self.recorded_at))?;
        write!(formatter, "  replayed at {}", point(&self.found_at))?;
        for entry in &self.before {
            write!(
                formatter,
                "\n  before it: entry {} at {}: {:?}",
                entry.sequence.0,
                point(&entry.point),
                entry.body
            )?;
        }
        Ok(())
    }
}

impl std::error::Error for Divergence {}
