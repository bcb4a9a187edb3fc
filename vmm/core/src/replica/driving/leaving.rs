//! Outputs that the role machine has released, on their way out.
//!
//! Outputs that one step releases leave together: frames that follow one another take a single
//! system call.

use crate::replica::cpu::Payload;
use crate::replica::mutant::{self, Mutant};
use crate::replica::role::Output;
use lockstep_logging_channel::OutputTarget;

/// Outputs released and not written yet, each with the time until which it may be.
#[derive(Debug, Default)]
pub struct Leaving {
    outputs: Vec<(Output<Payload>, u64)>,
}

impl Leaving {
    /// Takes an output that may leave until `until_ns` on the role machine's clock.
    pub fn push(&mut self, output: Output<Payload>, until_ns: u64) {
        self.outputs.push((output, until_ns));
    }

    /// True if nothing waits to be written.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.outputs.is_empty()
    }

    /// Outputs that wait to be written.
    #[must_use]
    pub fn len(&self) -> usize {
        self.outputs.len()
    }

    /// Outputs that may leave at `now_ns`, in order: all but frames whose time is over. These are
    /// lost, as frames are. Console text is never late: the peer has been told that it has left, so
    /// nobody else would write it.
    pub fn at(&self, now_ns: u64) -> impl Iterator<Item = &Output<Payload>> {
        self.outputs
            .iter()
            .filter(move |(output, until_ns)| may_leave(output.payload.0, *until_ns, now_ns))
            .map(|(output, _)| output)
    }

    /// All of them, in order, each with the time until which it may leave.
    pub fn into_all(self) -> impl Iterator<Item = (Output<Payload>, u64)> {
        self.outputs.into_iter()
    }

    /// Forgets them: those that may leave are written.
    pub fn clear(&mut self) {
        self.outputs.clear();
    }
}

/// True if an output with this time limit may leave now.
fn may_leave(target: OutputTarget, until_ns: u64, now_ns: u64) -> bool {
    let never_late = match target {
        OutputTarget::Console => !mutant::is(Mutant::DropLateText),
        OutputTarget::Network => mutant::is(Mutant::LetLateOut),
    };
    never_late || now_ns <= until_ns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn late_frames_are_dropped_and_late_console_text_is_not() {
        assert!(may_leave(OutputTarget::Network, 10, 10));
        assert!(!may_leave(OutputTarget::Network, 10, 11));
        assert!(may_leave(OutputTarget::Console, 10, 11));
    }
}
