//! Outputs that the role machine has released, on their way out.
//!
//! What one step releases leaves together: frames that follow one another take a single system call.

use super::Payload;
use super::clock::role_ns;
use super::stop_point::{Step, pass, pass_several};
use crate::machine::door::DoorError;
use crate::shell::outlets::Outlets;
use lockstep_logging_channel::OutputTarget;

/// Outputs released and not written yet, each with the time until which it may be.
#[derive(Debug, Default)]
pub struct Leaving {
    outputs: Vec<(Payload, u64)>,
}

impl Leaving {
    /// Takes an output that may leave until `until_ns` on the role machine's clock.
    pub fn push(&mut self, output: Payload, until_ns: u64) {
        // What leaves without a time limit leaves because this replica acts alone.
        let alone = until_ns == u64::MAX;
        pass(if alone {
            Step::OutputAlone
        } else {
            Step::BeforeRelease
        });
        self.outputs.push((output, until_ns));
    }

    /// Writes them, but for frames whose time is over: these are lost, as frames are. Console text is never late: the peer has been told
    /// that it has left, so nobody else would write it.
    ///
    /// # Errors
    /// As [`Outlets::release`].
    pub fn let_out(&mut self, outlets: &mut Outlets) -> Result<(), DoorError> {
        if self.outputs.is_empty() {
            return Ok(());
        }
        let now_ns = role_ns();
        let leaving = self.outputs.iter().filter_map(|((target, bytes), until_ns)| {
            may_leave(*target, *until_ns, now_ns).then_some((*target, bytes.as_slice()))
        });
        outlets.release(leaving)?;
        pass_several(Step::AfterRelease, self.outputs.len() as u64);
        self.outputs.clear();
        Ok(())
    }
}

/// True if an output with this time limit may leave now.
fn may_leave(target: OutputTarget, until_ns: u64, now_ns: u64) -> bool {
    target == OutputTarget::Console || now_ns <= until_ns
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_frame_may_be_late_and_console_text_may_not() {
        assert!(may_leave(OutputTarget::Network, 10, 10));
        assert!(!may_leave(OutputTarget::Network, 10, 11));
        assert!(may_leave(OutputTarget::Console, 10, 11));
    }
}
