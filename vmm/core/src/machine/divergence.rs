//! The report of a divergence: which entry, which part, expected and found, and the entries before
//! it.

use lockstep_logging_channel::view::EntryView;
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
    /// Names of the board's devices, by their numbers. The machine gives them: a replayer knows
    /// numbers only.
    pub devices: Vec<&'static str>,
    /// Description of what the log has.
    pub expected: String,
    /// Description of what the replay has.
    pub found: String,
    /// The entries before it, oldest first.
    pub before: Vec<Entry>,
}

impl Divergence {
    fn name(&self, device: DeviceId) -> &'static str {
        let name = self.devices.get(usize::from(device.0));
        name.copied().unwrap_or("not on the board")
    }
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
            write!(formatter, " ({device}, {})", self.name(device))?;
        }
        writeln!(formatter)?;
        writeln!(formatter, "  expected: {}", self.expected)?;
        writeln!(formatter, "  found:    {}", self.found)?;
        writeln!(formatter, "  recorded at {}", point(&self.recorded_at))?;
        write!(formatter, "  replayed at {}", point(&self.found_at))?;
        if !self.before.is_empty() {
            write!(formatter, "\n  before it:")?;
        }
        for entry in &self.before {
            write!(formatter, "\n  {}", EntryView::from(entry))?;
            if let Some(device) = entry.body.device() {
                write!(formatter, " ({})", self.name(device))?;
            }
        }
        Ok(())
    }
}

impl std::error::Error for Divergence {}
