//! Delivery contracts: what the outside of each target expects of the outputs that were released
//! for it.
//!
//! Outputs of all targets leave in the order of their entries, and a backup that goes live releases
//! again what it does not know to have left. The contract says what becomes of one whose time is
//! over before it is written.

use crate::replica::mutant::{self, Mutant};
use lockstep_logging_channel::{OutputKind, OutputTarget};

/// Expectation of the outside of a target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Delivery {
    /// At a time when this side may speak, or never: whoever waits for it asks again. What is late
    /// is dropped, as a network may drop it.
    InTimeOrNever,
    /// All of it, however late: the peer has been told that it has left, so nobody else would write
    /// it.
    Always,
}

impl Delivery {
    /// The contract of this target.
    #[must_use]
    pub fn of(target: OutputTarget) -> Self {
        match target.kind {
            OutputKind::Frame => Self::InTimeOrNever,
            // What a disk was not given is never done, and its guest would wait for ever. Whether
            // this side may still touch the disk is the disk's own question.
            OutputKind::Text | OutputKind::Disk => Self::Always,
        }
    }

    /// True if an output that was to leave until `until_ns` may leave at `now_ns`.
    #[must_use]
    pub fn allows(self, until_ns: u64, now_ns: u64) -> bool {
        let always = match self {
            Self::InTimeOrNever => mutant::is(Mutant::LetLateOut),
            Self::Always => !mutant::is(Mutant::DropLateText),
        };
        always || now_ns <= until_ns
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_logging_channel::DeviceId;

    #[test]
    fn late_frames_are_dropped_and_late_console_text_is_not() {
        let network = Delivery::of(OutputTarget::network(DeviceId(4)));
        assert!(network.allows(10, 10));
        assert!(!network.allows(10, 11));
        let console = Delivery::of(OutputTarget::console(DeviceId(3)));
        assert!(console.allows(10, 11));
    }
}
